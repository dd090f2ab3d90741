"""Write-ahead log by part: which table or index a record is about, without the images of whole pages."""
from contextlib import contextmanager

# A record of several pages is charged to the first, which is the one that it changes.
RECORDS = r"""
SELECT substring(block_ref FROM 'rel \d+/(\d+)/\d+')::oid AS database, substring(block_ref FROM 'rel \d+/\d+/(\d+)')::oid AS filenode,
       resource_manager, count(*)::int AS records, sum(record_length - fpi_length)::bigint AS bytes
FROM pg_get_wal_records_info(%s, %s) GROUP BY 1, 2, 3"""

# An event's partition counts as event; a TOAST table and its index as their table.
RELATIONS = """
SELECT pg_relation_filenode(c.oid)::bigint, coalesce(parent.relname, owner.relname, t.relname, c.relname),
       c.relkind = 'i' AND owner.oid IS NULL
FROM pg_class c
LEFT JOIN pg_index i ON i.indexrelid = c.oid
LEFT JOIN pg_class t ON t.oid = coalesce(i.indrelid, c.oid)
LEFT JOIN pg_class owner ON owner.reltoastrelid = t.oid
LEFT JOIN pg_inherits h ON h.inhrelid = t.oid
LEFT JOIN pg_class parent ON parent.oid = h.inhparent
WHERE c.relkind IN ('r', 'i', 't', 'S') AND coalesce(t.relnamespace, c.relnamespace) <> 'pg_catalog'::regnamespace"""


@contextmanager
def no_autovacuum(admin):
    """Its records would fall into one measurement and not into another."""
    admin.execute("ALTER SYSTEM SET autovacuum = off")
    admin.execute("SELECT pg_reload_conf()")
    try:
        yield
    finally:
        admin.execute("ALTER SYSTEM RESET autovacuum")
        admin.execute("SELECT pg_reload_conf()")


def position(admin):
    return admin.execute("SELECT pg_current_wal_flush_lsn()").fetchone()[0]


def parts(admin, db, begin, end):
    """Bytes by part between two positions: of db's tables, of its indexes, and of commits."""
    admin.execute("CREATE EXTENSION IF NOT EXISTS pg_walinspect")
    oid = db.execute("SELECT oid::bigint FROM pg_database WHERE datname = current_database()").fetchone()[0]
    names = {filenode: (table, index) for filenode, table, index in db.execute(RELATIONS) if filenode}
    found = {}
    for database, filenode, manager, _, size in admin.execute(RECORDS, (begin, end)):
        if database == oid and filenode in names:
            table, index = names[filenode]
            part = f"{table} indexes" if index else table
        elif database is None and manager == "Transaction":
            part = "commit"
        else:
            continue    # the catalogs' statistics, another database, the checkpointer, the snapshots for standbys
        found[part] = found.get(part, 0) + size
    return found
