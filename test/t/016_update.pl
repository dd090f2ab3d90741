# An update from the oldest version that is installed beside this one equals a
# fresh install, object by object: definitions, owners, rights, comments, and
# what pg_dump is to take.  As long as nothing has been released there is no
# older version, and what is shown is that the comparison sees a difference.

use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('update');
$node->init;
$node->start;

sub on { my ($database, $sql) = @_; return $node->safe_psql($database, $sql) }

# every object that belongs to the extension, a line each
sub objects
{
	my $database = shift;
	return join "\n", sort split /\n/, on($database, q(
		WITH member AS (
			SELECT d.classid, d.objid FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
			WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = 'holdfast')
		SELECT concat_ws(' ', 'definition', kind, object, md5(definition)) FROM holdfast.present_definitions()
		UNION ALL
		SELECT concat_ws(' ', 'member', i.type, i.identity, obj_description(m.objid, m.classid::regclass::text))
		FROM member m, pg_identify_object(m.classid, m.objid, 0) i
		UNION ALL
		SELECT concat_ws(' ', 'column', a.attrelid::regclass, a.attname, a.attnum - (SELECT count(*) FROM pg_attribute x WHERE x.attrelid = a.attrelid AND x.attisdropped AND x.attnum BETWEEN 1 AND a.attnum),
			a.attstorage, array_remove(a.attoptions, (SELECT o FROM unnest(a.attoptions) o WHERE o LIKE 'pg_attver=%')), col_description(a.attrelid, a.attnum))
		FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
		WHERE c.relnamespace = 'holdfast'::regnamespace AND a.attnum > 0 AND NOT a.attisdropped AND NOT c.relispartition
		UNION ALL
		SELECT concat_ws(' ', 'relation', c.oid::regclass, c.relkind, c.reloptions, c.relreplident, pg_get_userbyid(c.relowner), c.relacl)
		FROM pg_class c WHERE c.relnamespace = 'holdfast'::regnamespace AND NOT c.relispartition
		UNION ALL
		SELECT concat_ws(' ', 'function', p.oid::regprocedure, pg_get_userbyid(p.proowner), p.proacl, p.procost, p.prorows, p.proleakproof, md5(pg_get_function_sqlbody(p.oid))) FROM pg_proc p WHERE p.pronamespace = 'holdfast'::regnamespace
		UNION ALL
		SELECT concat_ws(' ', 'schema', pg_get_userbyid(n.nspowner), n.nspacl) FROM pg_namespace n WHERE n.nspname = 'holdfast'
		UNION ALL
		SELECT concat_ws(' ', 'dumped', c::regclass, k) FROM pg_extension e, unnest(e.extconfig, e.extcondition) AS d (c, k) WHERE e.extname = 'holdfast'
		UNION ALL
		SELECT concat_ws(' ', 'default right', pg_get_userbyid(d.defaclrole), d.defaclacl) FROM pg_default_acl d)) =~ s/\r//gr;
}

on('postgres', 'CREATE DATABASE fresh');
on('fresh', 'CREATE EXTENSION holdfast');
my $fresh = objects('fresh');
cmp_ok(scalar(split /\n/, $fresh), '>', 500, 'objects');

# What is compared is all that can differ.
for my $change (
	"ALTER FUNCTION holdfast.version() COST 7", "COMMENT ON FUNCTION holdfast.version() IS 'other'", "COMMENT ON COLUMN holdfast.job.priority IS 'other'",
	"GRANT EXECUTE ON FUNCTION holdfast.version() TO PUBLIC", "GRANT SELECT ON holdfast.job TO PUBLIC", "ALTER TABLE holdfast.job SET (fillfactor = 80)",
	"ALTER TABLE holdfast.job ALTER priority SET DEFAULT 3", "ALTER TABLE holdfast.finding REPLICA IDENTITY NOTHING", "UPDATE pg_trigger SET tgenabled = 'O' WHERE tgrelid = 'holdfast.finding'::regclass AND tgname = 'guard_before'",
	"ALTER SEQUENCE holdfast.job_id_seq CACHE 7", "ALTER TYPE holdfast.verify_result ADD ATTRIBUTE more text", "ALTER EXTENSION holdfast DROP FUNCTION holdfast.version()",
	"UPDATE pg_extension SET extconfig = extconfig[2:], extcondition = extcondition[2:] WHERE extname = 'holdfast'",
	"CREATE OR REPLACE FUNCTION holdfast.span(since timestamptz, until timestamptz) RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE RETURN 'x'",
	"CREATE INDEX more ON holdfast.finding (kind)")
{
	my $changed = "changed";
	on('postgres', "DROP DATABASE IF EXISTS $changed");
	on('postgres', "CREATE DATABASE $changed TEMPLATE fresh");
	my ($status, undef, $err) = $node->psql($changed, $change, on_error_stop => 1);
	$status == 0 or diag($err);
	isnt(objects($changed), $fresh, "the comparison sees: $change");
}
on('postgres', 'CREATE DATABASE again');
on('again', 'CREATE EXTENSION holdfast');
is(objects('again'), $fresh, 'and two fresh installs are equal');

# From the oldest version, with rows in it.
my $oldest = on('postgres', q(
	SELECT v.version FROM pg_available_extension_versions v
	JOIN pg_available_extensions a ON a.name = v.name
	JOIN pg_extension_update_paths('holdfast') p ON p.source = v.version AND p.target = a.default_version AND p.path IS NOT NULL
	WHERE v.name = 'holdfast' AND v.version <> a.default_version
	ORDER BY string_to_array(v.version, '.')::integer[] LIMIT 1));
if ($oldest)
{
	on('postgres', 'CREATE DATABASE updated');
	on('updated', "CREATE EXTENSION holdfast VERSION '$oldest'");
	on('updated', 'ALTER EXTENSION holdfast UPDATE');
	is(objects('updated'), $fresh, "an update from $oldest is a fresh install, object by object");
	is(on('updated', 'SELECT * FROM holdfast.verify()'), '', 'and verify() finds nothing');
}
else
{
	note('nothing has been released yet: there is no older version to update from');
}

$node->stop;
done_testing();
