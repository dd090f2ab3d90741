# What an owner without superuser rights can do to the evidence by DDL and DML:
# every attack is refused, or is on record in the same transaction; none passes
# unrecorded.  A change that is rolled back leaves no record, a committed one
# always does, and a refusal that was caught is on record.

use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('attacks');
$node->init;
$node->append_conf('postgresql.conf', "log_statement = none\nmax_prepared_transactions = 5\n");
$node->start;

# The owner installs as a superuser, and is none afterwards.
$node->safe_psql('postgres', q(
	CREATE ROLE evidence_owner LOGIN SUPERUSER;
	CREATE ROLE accomplice LOGIN;
	GRANT accomplice TO evidence_owner;
));
$node->safe_psql('postgres', 'CREATE DATABASE attacked OWNER evidence_owner');

sub as { my ($role, $sql) = @_; return $node->psql('attacked', $sql, extra_params => [ '-U', $role, '-v', 'VERBOSITY=verbose' ]) }
sub owner { my ($status, $stdout, $stderr) = as('evidence_owner', shift); return ($status, $stdout, $stderr) }
sub super { return $node->safe_psql('attacked', shift) }

my ($status, undef, $stderr) = owner(q(
	CREATE EXTENSION holdfast;
	SELECT holdfast.define_retry_policy('p', '10 s', jitter_window => '0');
	SELECT holdfast.create_queue('mail', retry_policy => 'p'), holdfast.create_queue('plain', retry_policy => 'p', side_effects => false);
	SELECT holdfast.grant_queue('mail', 'accomplice', 'worker');
	SELECT holdfast.define_stream('mail', 's');
	SELECT holdfast.enqueue('mail', 'act', 's' || n), holdfast.enqueue('plain', 'act', 'p' || n) FROM generate_series(1, 9) n;
	CREATE TABLE held AS SELECT job_id, lease_id, row_number() OVER () AS n FROM holdfast.claim('mail', 'w', 6);
	INSERT INTO held SELECT job_id, lease_id, 100 + row_number() OVER () FROM holdfast.claim('plain', 'w', 3);
));
is($stderr, '', 'the owner installs, as a superuser');
($status, undef, $stderr) = owner(q(
	SELECT holdfast.complete(job_id, lease_id) FROM held WHERE n = 1;
	SELECT f.decision FROM held, holdfast.fail(job_id, lease_id, 'TimeoutError') f WHERE n = 2;
	SELECT f.decision FROM held, holdfast.fail(job_id, lease_id, 'ValidationError') f WHERE n = 3;
	SELECT f.decision FROM held, holdfast.fail(job_id, lease_id, 'Http503', side_effect => 'none') f WHERE n IN (4, 101);
	SELECT holdfast.complete(job_id, gen_random_uuid()) FROM held WHERE n = 5;
));
is($stderr, '', '... and works');
$node->safe_psql('postgres', 'ALTER ROLE evidence_owner NOSUPERUSER');
my $day = super(q(SELECT to_char(now() AT TIME ZONE 'UTC', '"event_"YYYYMMDD')));
is(super(q(SELECT count(*) FROM pg_tables WHERE schemaname = 'holdfast' AND tableowner <> 'evidence_owner')), '0', 'the tables are the owner\'s');
is(super(q(SELECT count(*) FROM holdfast.verify())), '0', 'verify() reports nothing');

# What counts as a record: a finding or an event that was not there before.
my $records = q((SELECT count(*) FROM holdfast.finding) + (SELECT count(*) FROM holdfast.event_all
	WHERE kind IN ('action_changed_by_sql', 'action_violation')));
# What an attack is after: everything that holdfast has stored, and how its objects are defined.
my $state = q((SELECT md5(concat(
	(SELECT string_agg(e::text, ';' ORDER BY e.event_id, e::text) FROM holdfast.event_all e WHERE kind NOT IN ('action_changed_by_sql', 'action_violation')),
	(SELECT string_agg(j::text, ';' ORDER BY j.job_id) FROM holdfast.job j), (SELECT string_agg(j::text, ';' ORDER BY j.job_id) FROM holdfast.dead_job j),
	(SELECT string_agg(l::text, ';' ORDER BY l.idempotency_key) FROM holdfast.ledger l), (SELECT string_agg(q::text, ';' ORDER BY q.queue_id) FROM holdfast.queue q),
	(SELECT string_agg(p::text, ';' ORDER BY p.policy_name) FROM holdfast.retry_policy p),
	(SELECT string_agg(concat(d.kind, d.object, d.definition), ';' ORDER BY d.kind, d.object) FROM holdfast.present_definitions() d)))));

# expected: refused (with a SQLSTATE), recorded, or noop (it did nothing)
my @attacks = (
	# events and findings
	[ 'JQ004', "UPDATE holdfast.event SET worker_name = 'another'" ],
	[ 'JQ004', "UPDATE holdfast.$day SET at = at - interval '1 h'" ],
	[ 'JQ004', 'DELETE FROM holdfast.event' ],
	[ 'JQ004', "DELETE FROM holdfast.$day WHERE kind = 'action_stale_report'" ],
	[ 'JQ004', 'TRUNCATE holdfast.event' ],
	[ 'JQ004', "TRUNCATE holdfast.$day" ],
	[ 'JQ004', 'TRUNCATE holdfast.finding, holdfast.job CASCADE' ],
	[ 'JQ004', 'DELETE FROM holdfast.finding' ],
	[ 'JQ004', "UPDATE holdfast.finding SET detail = '{}'" ],
	[ 'recorded', 'INSERT INTO holdfast.event SELECT * FROM holdfast.event LIMIT 1' ],
	[ 'recorded', "INSERT INTO holdfast.$day SELECT * FROM holdfast.event LIMIT 1" ],
	[ 'recorded', "INSERT INTO holdfast.finding (at, queue, kind) VALUES (now(), 1, 'stale')" ],
	[ 'recorded', 'INSERT INTO holdfast.job SELECT (jsonb_populate_record(j, \'{"job_id": 4711, "idempotency_key": "11111111-1111-1111-1111-111111111111"}\')).* FROM holdfast.job j LIMIT 1' ],
	[ 'JQ004', 'MERGE INTO holdfast.finding f USING (VALUES (1)) v ON true WHEN MATCHED THEN DELETE' ],
	[ 'JQ004', 'WITH gone AS (DELETE FROM holdfast.event RETURNING 1) SELECT count(*) FROM gone' ],
	[ 'JQ004', 'DELETE FROM holdfast.definition' ],
	# jobs and the ledger
	[ 'JQ006', "UPDATE holdfast.job SET status = 'pending', lease_id = NULL, lease_expires_at = NULL, started_at = NULL WHERE status = 'running'" ],
	[ 'JQ006', 'UPDATE holdfast.job SET run_after = now() WHERE failures > 0' ],
	[ 'recorded', "UPDATE holdfast.job SET run_after = now() + interval '1 day' WHERE status = 'pending'" ],
	[ 'recorded', "UPDATE holdfast.job SET status = 'pending', lease_id = NULL, lease_expires_at = NULL, started_at = NULL, run_after = now() + interval '1 h' WHERE status = 'running'" ],
	[ 'JQ004', "UPDATE holdfast.job SET attempt_number = 0 WHERE status = 'pending'" ],
	[ 'JQ007', 'UPDATE holdfast.job SET idempotency_key = gen_random_uuid()' ],
	[ 'recorded', 'DELETE FROM holdfast.job WHERE attempt_number = 0' ],
	[ 'JQ004', 'DELETE FROM holdfast.dead_job' ],
	[ 'JQ004', "UPDATE holdfast.ledger SET state = 'planned' WHERE state = 'unknown'" ],
	[ 'JQ004', 'DELETE FROM holdfast.ledger' ],
	[ 'JQ004', 'DELETE FROM holdfast.unknown_effect' ],
	[ 'recorded', 'UPDATE holdfast.retry_policy SET max_attempts = 1' ],
	[ 'recorded', 'DELETE FROM holdfast.queue_grant' ],
	[ 'JQ004', 'DELETE FROM holdfast.queue' ],
	# the guards themselves
	[ 'recorded', 'ALTER TABLE holdfast.job DISABLE TRIGGER guard_before' ],
	[ 'recorded', 'ALTER TABLE holdfast.event DISABLE TRIGGER ALL' ],
	[ 'recorded', "ALTER TABLE ONLY holdfast.$day DISABLE TRIGGER guard_before" ],
	[ 'recorded', 'ALTER TABLE holdfast.finding ENABLE TRIGGER guard_before' ],
	[ 'recorded', 'ALTER TABLE holdfast.ledger ENABLE REPLICA TRIGGER guard_before' ],
	[ 'recorded', 'DROP TRIGGER guard_before ON holdfast.event' ],
	[ 'recorded', 'DROP TRIGGER guard_statement ON holdfast.finding' ],
	[ 'recorded', 'ALTER TRIGGER guard_before ON holdfast.job RENAME TO other' ],
	[ '42501', q(CREATE OR REPLACE FUNCTION holdfast.guard() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END') ],
	[ '42501', q(CREATE OR REPLACE FUNCTION holdfast.evidence_ddl() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END') ],
	[ '42501', q(SET search_path = holdfast; CREATE OR REPLACE FUNCTION evidence_ddl() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END') ],
	[ '2BP01', 'DROP FUNCTION holdfast.guard() CASCADE' ],
	[ '42501', 'ALTER EXTENSION holdfast DROP FUNCTION holdfast.guard()' ],
	[ '42501', 'ALTER EXTENSION holdfast DROP EVENT TRIGGER holdfast_ddl_end' ],
	[ '42501', 'ALTER EVENT TRIGGER holdfast_ddl_end DISABLE' ],
	[ '42501', 'DROP EVENT TRIGGER holdfast_ddl_end' ],
	[ '42501', 'SET session_replication_role = replica; DELETE FROM holdfast.event' ],
	[ '42501', "UPDATE pg_trigger SET tgenabled = 'D'" ],
	[ '42501', 'ALTER FUNCTION holdfast.maintain() RENAME TO maintained' ],
	[ '42501', 'ALTER FUNCTION holdfast.evidence_ddl() SET SCHEMA public' ],
	# tables
	[ 'recorded', "DROP TABLE holdfast.$day" ],
	[ 'recorded', "ALTER TABLE holdfast.event DETACH PARTITION holdfast.$day" ],
	[ '55000', "ALTER TABLE holdfast.$day SET SCHEMA public" ],
	[ '55000', 'ALTER TABLE holdfast.finding SET SCHEMA public' ],
	[ '42P01', 'ALTER TABLE holdfast.finding RENAME TO findings' ],
	[ 'recorded', "ALTER TABLE holdfast.$day RENAME TO forgotten" ],
	[ 'recorded', 'ALTER TABLE holdfast.job RENAME COLUMN worker_name TO w' ],
	[ '2BP01', 'ALTER TABLE holdfast.event DROP COLUMN worker_name' ],
	[ 'recorded', 'ALTER TABLE holdfast.queue_hour DROP COLUMN failed CASCADE' ],
	[ '55006', 'ALTER TABLE holdfast.finding DROP COLUMN detail CASCADE' ],
	[ 'recorded', 'ALTER TABLE holdfast.dead_job ALTER COLUMN last_error_message TYPE varchar(20) USING NULL' ],
	[ 'recorded', "ALTER TABLE holdfast.$day SET UNLOGGED" ],
	[ 'recorded', 'GRANT CREATE ON SCHEMA holdfast TO accomplice; ALTER TABLE holdfast.ledger OWNER TO accomplice' ],
	[ '55000', 'CREATE RULE forget AS ON INSERT TO holdfast.event DO INSTEAD NOTHING' ],
	[ '55000', "CREATE RULE keep AS ON UPDATE TO holdfast.$day DO INSTEAD NOTHING" ],
	[ '55000', q(CREATE FUNCTION public.nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; CREATE TRIGGER aaa BEFORE INSERT ON holdfast.finding FOR EACH ROW EXECUTE FUNCTION public.nothing()) ],
	[ '55000', 'ALTER TABLE holdfast.event ENABLE ROW LEVEL SECURITY' ],
	[ 'recorded', 'CREATE POLICY hide ON holdfast.finding USING (false)' ],
	[ '55000', 'CREATE TABLE public.child () INHERITS (holdfast.finding)' ],
	[ '55000', 'CREATE TABLE public.child (LIKE holdfast.finding); ALTER TABLE public.child INHERIT holdfast.finding' ],
	[ '55000', 'CREATE TABLE public.refers (job_id bigint REFERENCES holdfast.job)' ],
	[ '55000', 'CREATE TABLE public.refers (job_id bigint); ALTER TABLE public.refers ADD FOREIGN KEY (job_id) REFERENCES holdfast.job' ],
	[ '55000', 'CREATE SCHEMA annex CREATE TABLE refers (job_id bigint REFERENCES holdfast.job)' ],
	[ '55000', 'CREATE SCHEMA annex CREATE TABLE child () INHERITS (holdfast.finding)' ],
	[ '55000', "ALTER TABLE holdfast.event ADD CHECK (kind <> 'action_violation')" ],
	[ '55000', "ALTER TABLE holdfast.finding ADD COLUMN extra integer CHECK (extra > 0)" ],
	[ 'recorded', 'ALTER TABLE holdfast.ledger DROP CONSTRAINT ledger_state_check' ],
	[ '55000', "CREATE TABLE holdfast.event_default PARTITION OF holdfast.event DEFAULT" ],
	[ '55000', "CREATE TABLE public.elsewhere (LIKE holdfast.event); ALTER TABLE holdfast.event ATTACH PARTITION public.elsewhere FOR VALUES FROM ('2040-01-01') TO ('2041-01-01')" ],
	[ '55000', "CREATE TABLE holdfast.event_20400101 PARTITION OF holdfast.event FOR VALUES FROM ('2040-01-01') TO ('2041-01-01')" ],
	[ 'recorded', 'DROP INDEX holdfast.job_dispatch' ],
	[ 'recorded', "DROP INDEX holdfast.${day}_job" ],
	[ 'recorded', 'CREATE UNIQUE INDEX one ON holdfast.event_overflow ((true))' ],
	[ '55000', q(CREATE FUNCTION public.evil(bigint) RETURNS bigint IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN 1; END'; CREATE INDEX evil ON holdfast.job (public.evil(job_id))) ],
	[ '55000', q(CREATE FUNCTION public.evil(bigint) RETURNS bigint IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN 1; END'; ALTER TABLE holdfast.event_overflow ADD COLUMN g bigint GENERATED ALWAYS AS (public.evil(job_id)) STORED) ],
	[ '55000', q(CREATE FUNCTION public.evil() RETURNS bigint LANGUAGE plpgsql AS 'BEGIN RETURN 1; END'; ALTER TABLE holdfast.upkeep ADD COLUMN evil bigint DEFAULT public.evil()) ],
	[ '55000', q(CREATE DOMAIN public.evil AS bigint CHECK (VALUE > 0); ALTER TABLE holdfast.upkeep ADD COLUMN evil public.evil) ],
	[ '55000', q(CREATE FUNCTION public.evil(text) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN DELETE FROM holdfast.finding; RETURN true; END'; CREATE DOMAIN public.evil AS text CHECK (public.evil(VALUE)); CREATE INDEX evil ON holdfast.upkeep ((name::public.evil))) ],
	[ '55000', q(CREATE DOMAIN public.evil AS text; CREATE INDEX evil ON holdfast.upkeep (name) WHERE name::public.evil <> 'x') ],
	[ '55000', q(ALTER TABLE holdfast.upkeep ADD COLUMN evil text DEFAULT pg_catalog.query_to_xml('SELECT public.evil()', true, true, '')::text) ],
	[ '55000', q(CREATE TYPE public.evil AS (a integer); ALTER TABLE holdfast.upkeep ADD COLUMN evil text DEFAULT pg_catalog.jsonb_populate_record(NULL::public.evil, '{"a": 1}')::text) ],
	[ 'recorded', 'ALTER TABLE holdfast.upkeep ADD COLUMN noted timestamptz DEFAULT now(), ADD COLUMN who text DEFAULT current_user' ],
	[ 'recorded', "CREATE TABLE holdfast.event_20400101 PARTITION OF holdfast.event FOR VALUES FROM ('2040-01-01 00:00:00+00') TO ('2040-01-02 00:00:00+00')" ],
	[ '42501', q(CREATE OR REPLACE FUNCTION holdfast.do_maintain() RETURNS SETOF holdfast.maintain_result LANGUAGE sql AS 'DELETE FROM holdfast.event; SELECT NULL::holdfast.maintain_result') ],
	[ 'recorded', q(INSERT INTO holdfast.attempt_record SELECT * FROM holdfast.attempt_record) ],
	[ '42501', 'ALTER SEQUENCE holdfast.event_id_seq RESTART' ],
	[ '42501', 'ALTER TYPE holdfast.maintain_result ADD ATTRIBUTE more integer' ],
	[ '42501', 'ALTER VIEW holdfast.guarded RENAME TO unguarded' ],
	[ '42501', 'CREATE OR REPLACE VIEW holdfast.guarded AS SELECT table_name, rule, trigger_name, events, level FROM (VALUES (\'\'::text, \'\'::text, \'\'::text, \'\'::text, \'\'::text)) AS v (table_name, rule, trigger_name, events, level)' ],
	[ '42501', 'CREATE FUNCTION holdfast.complete(text) RETURNS text LANGUAGE sql AS \'SELECT $1\'' ],
	[ '42501', 'CREATE FUNCTION holdfast.watch_check(regclass, jsonb, text) RETURNS void LANGUAGE sql AS \'DELETE FROM holdfast.finding\'; CREATE TABLE public.bait (id integer, status text); SELECT holdfast.watch(\'public.bait\', \'{"id": "id", "status": "status"}\')' ],
	[ '42501', 'CREATE FUNCTION public.purge_ledger() RETURNS bigint LANGUAGE sql AS \'SELECT 1\'; ALTER FUNCTION public.purge_ledger() SET SCHEMA holdfast' ],
	[ '42501', 'CREATE PROCEDURE holdfast.fold_hours(text) LANGUAGE sql AS \'DELETE FROM holdfast.event\'' ],
	[ '42501', 'CREATE AGGREGATE holdfast.clock(text) (SFUNC = pg_catalog.textcat, STYPE = text)' ],
	[ 'recorded', 'CREATE DOMAIN holdfast.text AS pg_catalog.text' ],
	[ 'recorded', 'CREATE OPERATOR holdfast.= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = pg_catalog.int8ne)' ],
	[ 'recorded', 'CREATE VIEW holdfast.spy AS SELECT * FROM holdfast.job' ],
	# the schema, the extension, rights
	[ 'refused', 'ALTER SCHEMA holdfast RENAME TO hidden' ],
	[ 'refused', 'ALTER EXTENSION holdfast SET SCHEMA public' ],
	[ '42501', 'ALTER EXTENSION holdfast DROP TABLE holdfast.finding' ],
	[ '42501', 'ALTER EXTENSION holdfast DROP TABLE holdfast.finding; DROP TABLE holdfast.finding CASCADE' ],
	[ '42501', 'ALTER EXTENSION holdfast DROP TABLE holdfast.unknown_effect; DROP TABLE holdfast.unknown_effect' ],
	[ 'recorded', 'GRANT UPDATE, DELETE ON holdfast.event TO accomplice' ],
	[ 'recorded', 'CREATE SCHEMA annex GRANT UPDATE ON holdfast.event TO accomplice' ],
	[ 'recorded', 'GRANT ALL ON ALL TABLES IN SCHEMA holdfast TO accomplice' ],
	[ 'recorded', 'GRANT CREATE ON SCHEMA holdfast TO accomplice' ],
	[ 'recorded', "SELECT holdfast.permit_ddl('no reason at all'); ALTER TABLE holdfast.job DISABLE TRIGGER ALL" ],
	[ 'recorded', "SELECT holdfast.set_evidence_mode('observe', 'why not')" ],
	[ 'recorded', "SELECT holdfast.accept_definitions('all is well')" ],
	[ 'JQ004', "SELECT holdfast.do_maintain() FROM holdfast.do_drop_queue('plain', true)" ],
	[ 'JQ004', 'SELECT holdfast.store_definitions()' ],
);
cmp_ok(scalar @attacks, '>=', 40, 'there are at least forty attacks: ' . @attacks);

# With the right to set it, session_replication_role silences neither the triggers nor the event triggers.
$node->safe_psql('postgres', 'CREATE ROLE silencer; GRANT SET ON PARAMETER session_replication_role TO silencer');
my @silenced = map { [ $_->[0], "SET LOCAL session_replication_role = replica; $_->[1]" ] }
	grep { $_->[1] !~ /run_after = now\(\) / && $_->[1] =~ /^(?:(?:UPDATE|DELETE|TRUNCATE|INSERT|DROP|CREATE RULE) |ALTER TABLE holdfast\.event)/ } @attacks;		# what is due by then may be put to now
cmp_ok(scalar @silenced, '>=', 25, 'attacks that replication might hide: ' . @silenced);

for my $attack (@attacks, @silenced)
{
	my ($expected, $sql) = @$attack;
	$node->safe_psql('postgres', 'GRANT silencer TO evidence_owner') if $attack == $silenced[0];
	my ($rc, $out, $err) = owner("\\set ON_ERROR_STOP on\nBEGIN;\nSELECT 'before', $records, $state;\n$sql;\nRESET search_path;\nSELECT 'after', $records, $state;\nROLLBACK;");
	my ($state_code) = $err =~ /(?:ERROR|FATAL):\s+(\w{5}):/;
	if ($expected eq 'recorded')
	{
		my @rows = map { [ split /\|/ ] } grep { /^(before|after)\|/ } split /\n/, $out;
		ok(!defined $state_code && @rows == 2 && $rows[1][1] > $rows[0][1], "recorded: $sql") or diag("$out\n$err");
	}
	elsif ($expected eq 'refused') { ok(defined $state_code, "refused: $sql") or diag($out) }
	else { is($state_code, $expected, "refused: $sql") or diag("$out\n$err") }
}
$node->safe_psql('postgres', 'REVOKE silencer FROM evidence_owner');
is(super(q(SELECT count(*) FROM holdfast.verify())), '0', 'what was rolled back has changed nothing');
is(super(q(SELECT count(*) FROM holdfast.finding WHERE kind IN ('evidence_ddl', 'changed_by_sql', 'refusal', 'setting_changed', 'ddl_permitted'))), '0', 'G7: and left no record');

# By a worker, and by the owner of the database, who own nothing of the extension, none of it can be done at all.
$node->safe_psql('postgres', 'CREATE ROLE landlord LOGIN; ALTER DATABASE attacked OWNER TO landlord');
for my $role ('accomplice', 'landlord')
{
	my ($rc, $out, $err) = as($role, join("\n", '\set ON_ERROR_STOP off', map { "BEGIN;\n$attacks[$_][1];\nSELECT 'passed', $_;\nROLLBACK; RESET ALL;" } 0 .. $#attacks));
	# a GRANT of what one has, and may not pass on, does nothing, and says so
	is(join("\n", grep { $_ ne 'GRANT CREATE ON SCHEMA holdfast TO accomplice' || $err !~ /WARNING:\s+01007: no privileges were granted for "holdfast"/ }
		map { /^passed\|(\d+)/ ? $attacks[$1][1] : () } split /\n/, $out), '', "no attack passes for $role");
	cmp_ok(scalar(() = $err =~ /ERROR:\s+42501:/g), '>=', @attacks - 3, '... nearly all of them for want of a right');
}
$node->safe_psql('postgres', 'ALTER DATABASE attacked OWNER TO evidence_owner');

# Committed, each leaves its record; caught, a refusal does.
for my $case (
	[ 'evidence_ddl', 'CREATE INDEX mine ON holdfast.job (subject)' ],
	[ 'evidence_ddl', 'DROP INDEX holdfast.mine' ],
	[ 'evidence_ddl', 'CREATE INDEX CONCURRENTLY mine ON holdfast.job (subject)' ],
	[ 'evidence_ddl', 'DROP INDEX CONCURRENTLY holdfast.mine' ],
	[ 'evidence_ddl', 'ALTER TABLE holdfast.job DISABLE TRIGGER guard_before' ],
	[ 'changed_by_sql', "INSERT INTO holdfast.finding (at, queue, kind) VALUES (now(), 1, 'forged')" ],
	[ 'setting_changed', 'UPDATE holdfast.retry_policy SET max_attempts = 4' ],
	[ 'refusal', q(DO $$ BEGIN DELETE FROM holdfast.event; EXCEPTION WHEN OTHERS THEN NULL; END $$) ],
	[ 'refusal', q(DO $$ BEGIN UPDATE holdfast.job SET attempt_number = 0 WHERE status = 'running'; EXCEPTION WHEN OTHERS THEN NULL; END $$) ],
	[ 'refusal', q(DO $$ BEGIN CREATE RULE r AS ON DELETE TO holdfast.event DO INSTEAD NOTHING; EXCEPTION WHEN OTHERS THEN NULL; END $$) ],
	[ 'refusal', "\\set ON_ERROR_STOP off\nBEGIN; SAVEPOINT s; TRUNCATE holdfast.event; ROLLBACK TO s; COMMIT" ])
{
	my ($kind, $sql) = @$case;
	my $count = "SELECT count(*) FROM holdfast.finding WHERE kind = '$kind' AND detail->>'by' = 'evidence_owner'";
	my $before = super($count);
	owner($sql);
	is(super($count) - $before, 1, "G7: committed, on record once as $kind: $sql");
}
is(super(q(SELECT tgenabled FROM pg_trigger WHERE tgname = 'guard_before' AND tgrelid = 'holdfast.job'::regclass)), 'A', 'a trigger that was switched off is on again');
is(super(q(SELECT string_agg(kind, ' ' ORDER BY event_id) FROM holdfast.event_all WHERE kind IN ('action_violation', 'action_changed_by_sql'))), 'action_violation action_violation',
	'G7: refusals about a job are events of it');

# Evidence mode enforce: what could stop the evidence is refused, unless it was permitted first.
owner(q(SELECT holdfast.set_evidence_mode('enforce', 'audit')));
for my $sql ("DROP TABLE holdfast.$day", "ALTER TABLE holdfast.event DETACH PARTITION holdfast.$day", 'DROP TRIGGER guard_before ON holdfast.event', 'DROP INDEX holdfast.job_dispatch',
	"ALTER TABLE holdfast.$day SET UNLOGGED", 'ALTER TABLE holdfast.queue_hour DROP COLUMN failed CASCADE', 'GRANT UPDATE ON holdfast.event TO accomplice', 'ALTER TABLE holdfast.job DISABLE TRIGGER ALL',
	q(CREATE OR REPLACE FUNCTION holdfast.guard() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'), 'ALTER EXTENSION holdfast DROP FUNCTION holdfast.guard()',
	'DROP EXTENSION holdfast CASCADE', 'DROP SCHEMA holdfast CASCADE', 'DROP OWNED BY evidence_owner CASCADE', 'ALTER SEQUENCE holdfast.event_id_seq RESTART')
{
	my (undef, undef, $err) = owner($sql);
	like($err, qr/ERROR:\s+42501: \S.* is refused on/, "enforce: refused: $sql");
}
for my $sql ('CREATE INDEX mine ON holdfast.job (subject)', 'ALTER TABLE holdfast.job ADD COLUMN extra text', 'ALTER TABLE holdfast.ledger SET (fillfactor = 40)', "COMMENT ON TABLE holdfast.job IS 'x'",
	"BEGIN; SELECT holdfast.permit_ddl('an index less'); DROP INDEX holdfast.mine; COMMIT", 'SELECT FROM holdfast.maintain()', q(SELECT holdfast.create_queue('later')),
	q(SELECT holdfast.grant_queue('later', 'accomplice', 'reader')), 'CREATE TABLE public.mine (a integer)', 'DROP TABLE public.mine')
{
	my ($rc, undef, $err) = owner($sql);
	is($err, '', "enforce: allowed: $sql");
}
my (undef, undef, $left) = owner("BEGIN; SAVEPOINT s; SELECT holdfast.permit_ddl('x'); ROLLBACK TO s; DROP INDEX holdfast.job_dispatch; COMMIT");
like($left, qr/42501/, 'a permission that is rolled back permits nothing');
like(super(q(SELECT string_agg(kind || coalesce(' ' || (detail->>'reason'), ''), ', ' ORDER BY at) FROM holdfast.finding WHERE kind IN ('evidence_mode', 'ddl_permitted'))),
	qr/^evidence_mode audit, ddl_permitted an index less$/, 'who permitted what, and why, is on record');

# Watched tables: their triggers stay on, and a watch that enforces is not ended by DDL.
owner(q(CREATE TABLE public.own_queue (id bigint, status text, attempts integer, run_after timestamptz, made date) PARTITION BY RANGE (made);
	CREATE TABLE public.own_queue_1 PARTITION OF public.own_queue FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
	SELECT holdfast.watch('public.own_queue', '{"id": "id", "status": "status", "pending": ["p"], "running": ["r"], "succeeded": ["s"], "failed": ["f"],
		"attempt_number": "attempts", "run_after": "run_after", "action_key": {"expr": "''x''"}, "subject": {"expr": "id::text"}}', 'enforce')));
my $on_watch = q(SELECT count(*) FROM holdfast.finding WHERE kind = 'evidence_ddl' AND (queue < 0 OR detail->>'object' LIKE '%own_queue%'));
is(super($on_watch), '0', 'watch() itself leaves no record of DDL');
for my $sql ('ALTER TABLE public.own_queue DROP COLUMN attempts', 'ALTER TABLE public.own_queue RENAME COLUMN status TO state', 'DROP TRIGGER holdfast_watch ON public.own_queue', 'DROP TRIGGER zzz_holdfast_watch ON public.own_queue')
{
	my (undef, undef, $err) = $node->psql('attacked', $sql, extra_params => [ '-v', 'VERBOSITY=verbose' ]);
	like($err, qr/ERROR:\s+42501: \S.* is refused on/, "a watch that enforces: refused: $sql");
}
owner('ALTER TABLE public.own_queue DISABLE TRIGGER ALL');
owner(q(CREATE TABLE public.own_queue_2 PARTITION OF public.own_queue FOR VALUES FROM ('2026-02-01') TO ('2026-03-01')));
is(super(q(SELECT string_agg(DISTINCT c.relname || ' ' || n, ', ' ORDER BY c.relname || ' ' || n) FROM pg_class c, LATERAL (SELECT count(*) AS n FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.tgenabled = 'A') t
	WHERE c.relname LIKE 'own_queue%')), 'own_queue 3, own_queue_1 3, own_queue_2 3', 'its triggers are on, and on a new partition');
is(super($on_watch), '1', '... and that they were switched off is on record');
super("ALTER TABLE public.own_queue ADD COLUMN more integer");
is(super($on_watch), '1', 'what does not concern the watch is not');
# whoever owns the table, and has no right in holdfast, goes on as before
super('ALTER TABLE public.own_queue OWNER TO accomplice; ALTER TABLE public.own_queue_1 OWNER TO accomplice; ALTER TABLE public.own_queue_2 OWNER TO accomplice; GRANT CREATE ON SCHEMA public TO accomplice');
{
	my (undef, undef, $err) = as('accomplice', q(ALTER TABLE public.own_queue ADD COLUMN note text; CREATE INDEX ON public.own_queue (id);
		CREATE TABLE public.theirs (a integer); DROP TABLE public.theirs));
	is($err, '', 'the owner of a watched table adds a column and an index');
	(undef, undef, $err) = as('accomplice', 'ALTER TABLE public.own_queue DISABLE TRIGGER ALL');
	is($err, '', '... switches its triggers off');
	is(super(q(SELECT count(*) FROM pg_trigger WHERE tgrelid = 'public.own_queue'::regclass AND tgenabled = 'A')), '3', '... which are on again');
	(undef, undef, $err) = as('accomplice', 'DROP TRIGGER holdfast_watch ON public.own_queue', 'DROP TRIGGER zzz_holdfast_watch ON public.own_queue');
	like($err, qr/ERROR:\s+42501: DROP TRIGGER is refused on/, '... who cannot end the watch');
	as('accomplice', q(CREATE FUNCTION public.theirs() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'));
	for my $sql ('ALTER TRIGGER holdfast_watch ON public.own_queue RENAME TO other', 'ALTER TRIGGER holdfast_watch_truncate ON public.own_queue RENAME TO other', 'DROP TRIGGER holdfast_watch_truncate ON public.own_queue',
		'ALTER TRIGGER zzz_holdfast_watch ON public.own_queue DEPENDS ON EXTENSION plpgsql', 'CREATE OR REPLACE TRIGGER holdfast_watch AFTER INSERT ON public.own_queue FOR EACH ROW EXECUTE FUNCTION public.theirs()',
		'CREATE OR REPLACE TRIGGER zzz_holdfast_watch BEFORE UPDATE ON public.own_queue FOR EACH ROW EXECUTE FUNCTION public.theirs()')
	{
		(undef, undef, $err) = as('accomplice', $sql);
		like($err, qr/ERROR:\s+42501: \S.* is refused on/, "... also not by $sql");
	}
	(undef, undef, $err) = as('accomplice', q(CREATE TRIGGER theirs AFTER INSERT ON public.own_queue FOR EACH ROW EXECUTE FUNCTION public.theirs(); ALTER TRIGGER theirs ON public.own_queue RENAME TO theirs_2;
		CREATE OR REPLACE TRIGGER theirs_2 AFTER INSERT ON public.own_queue FOR EACH ROW WHEN (false) EXECUTE FUNCTION public.theirs(); DROP TRIGGER theirs_2 ON public.own_queue));
	is($err, '', '... and whose own triggers are his');
}
# What changes its rows past the triggers is on record, and refused where the watch enforces; so is a child table, whose rows it does not see.
super('CREATE TABLE public.plain (id bigint, status text, attempts integer, run_after timestamptz); ALTER TABLE public.plain OWNER TO evidence_owner');
for my $mode ('observe', 'enforce')
{
	owner(qq(SELECT holdfast.watch('public.plain', '{"id": "id", "status": "status", "attempt_number": "attempts", "run_after": "run_after"}', '$mode')));
	for my $sql ("ALTER TABLE public.plain ALTER COLUMN status TYPE varchar USING 'pending'", 'ALTER TABLE public.plain DROP COLUMN attempts, ADD COLUMN attempts integer DEFAULT 0',
		'CREATE TABLE public.child () INHERITS (public.plain)', 'CREATE TABLE public.child (LIKE public.plain); ALTER TABLE public.child INHERIT public.plain',
		'CREATE SCHEMA annex CREATE TABLE child () INHERITS (public.plain)', 'ALTER TABLE public.plain RENAME TO other', 'CREATE SCHEMA annex; ALTER TABLE public.plain SET SCHEMA annex')
	{
		my (undef, $out, $err) = owner("\\set ON_ERROR_STOP on\nBEGIN; SELECT ($on_watch); $sql; SELECT ($on_watch); ROLLBACK");
		my @counts = split /\n/, $out;
		if ($mode eq 'enforce' && $sql !~ /RENAME|SET SCHEMA/) { like($err, qr/ERROR:\s+42501: \S.* is refused on/, "enforce: refused: $sql") }
		else { is($err . ($counts[1] - $counts[0]), '1', "$mode: recorded: $sql") }
	}
}
owner(q(SELECT holdfast.unwatch('public.plain'); DROP TABLE public.plain));
{
	my $before = super($on_watch);
	owner('ALTER TABLE public.own_queue DETACH PARTITION public.own_queue_1');
	owner(q(INSERT INTO public.own_queue_1 VALUES (1, 'r', 1, now(), '2026-01-02'); ALTER TABLE public.own_queue ATTACH PARTITION public.own_queue_1 FOR VALUES FROM ('2026-01-01') TO ('2026-02-01')));
	owner(q(CREATE TABLE public.own_queue_3 (LIKE public.own_queue); ALTER TABLE public.own_queue ATTACH PARTITION public.own_queue_3 FOR VALUES FROM ('2026-03-01') TO ('2026-04-01')));
	is(super($on_watch) - $before, '2', 'a partition that goes, and one that comes with rows, is on record; one that comes empty is not');
	owner('DROP TABLE public.own_queue_3; DELETE FROM public.own_queue');
}
# a trigger that sees less, or makes evidence of another table, is on record, and refused where the watch enforces
owner(q(CREATE TABLE public.observed (id bigint, status text); CREATE TABLE public.unobserved (LIKE public.observed); SELECT holdfast.watch('public.observed', '{"id": "id", "status": "status"}')));
my $watch_id = super(q(SELECT watch_id FROM holdfast.watch WHERE source = 'public.observed'));
for my $case ([ 'public.observed', 'INSERT OR UPDATE OR DELETE', 'WHEN (false)' ], [ 'public.observed', 'UPDATE OF id', '' ], [ 'public.unobserved', 'INSERT OR UPDATE OR DELETE', '' ])
{
	my ($table, $events, $when) = @$case;
	my $sql = "CREATE OR REPLACE TRIGGER holdfast_watch AFTER $events ON $table FOR EACH ROW $when EXECUTE FUNCTION holdfast.watch_row($watch_id)";
	my (undef, $out, $err) = owner("BEGIN; $sql; SELECT count(*), (SELECT count(*) > 0 FROM holdfast.watched w WHERE w.problem IS NOT NULL) FROM holdfast.finding WHERE kind = 'evidence_ddl' AND queue = -$watch_id; ROLLBACK");
	is("$out$err", '1|t', "recorded, and told by verify(): $sql");
	owner(q(SELECT holdfast.watch('public.observed', '{"id": "id", "status": "status", "run_after": {"expr": "now()"}}', 'enforce'))) if $table eq 'public.unobserved';
}
like((owner("CREATE OR REPLACE TRIGGER holdfast_watch AFTER INSERT OR UPDATE OR DELETE ON public.observed FOR EACH ROW WHEN (false) EXECUTE FUNCTION holdfast.watch_row($watch_id)"))[2],
	qr/ERROR:\s+42501: CREATE TRIGGER is refused on/, 'a watch that enforces: refused');
owner(q(SELECT holdfast.unwatch('public.observed'); DROP TABLE public.observed, public.unobserved));
super("BEGIN; SELECT holdfast.permit_ddl('another way'); DROP TRIGGER zzz_holdfast_watch ON public.own_queue; ALTER TABLE public.own_queue DISABLE TRIGGER holdfast_watch; COMMIT");
like(super(q(SELECT problem FROM holdfast.verify() WHERE check_name = 'watch')), qr/own_queue/, 'permitted, a trigger goes, and verify() says so');
super('DROP TABLE public.own_queue');
cmp_ok(super($on_watch), '>', 2, 'the table itself may be dropped, on record');
super('SELECT holdfast.unwatch_all()');

# What a row trigger of the owner's does to the evidence is the owner's doing, also within what the extension does.
owner(q(CREATE FUNCTION public.forget() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN DELETE FROM holdfast.event; RETURN NEW; END';
	CREATE TABLE public.trap (id bigint, status text, attempts integer, max_attempts integer, run_after timestamptz);
	CREATE TRIGGER forget BEFORE UPDATE ON public.trap FOR EACH ROW EXECUTE FUNCTION public.forget();
	SELECT holdfast.watch('public.trap', '{"id": "id", "status": "status", "pending": ["p"], "running": ["r"], "succeeded": ["s"], "failed": ["f"],
		"attempt_number": "attempts", "max_attempts": "max_attempts", "run_after": "run_after", "action_key": {"expr": "''x''"}, "subject": {"expr": "id::text"}}', 'observe', true);
	INSERT INTO public.trap VALUES (1, 'r', 1, 5, now());
	ALTER TABLE public.trap DISABLE TRIGGER forget;
	UPDATE public.trap SET status = 'f';
	ALTER TABLE public.trap ENABLE TRIGGER forget));
my (undef, undef, $trapped) = owner('SELECT * FROM holdfast.maintain()');
is($trapped, '', 'maintain() comes to a row whose trigger deletes events');
cmp_ok(super('SELECT count(*) FROM holdfast.event'), '>', 5, '... and they are there');
cmp_ok(super(q(SELECT count(*) FROM holdfast.finding WHERE kind = 'refusal' AND detail->>'refused' LIKE 'DELETE of holdfast.event%')), '>', 1, '... the refusal on record');
my (undef, undef, $thrown) = owner("SELECT * FROM holdfast.recover_row('public.trap', '1', 'try')");
like($thrown, qr/JQ004: DELETE of table "holdfast\.event_\d+" is refused/, 'recovering it by hand is refused, too');
owner('DROP TABLE public.trap; SELECT holdfast.unwatch_all()');

# Restored, partitions are made by the dump: that leaves no record.  CREATE EXTENSION wants the schema to be a
# superuser's, so that the owner is one again for that time.
owner(q(SELECT holdfast.set_evidence_mode('observe', 'done')));
super("SELECT holdfast.permit_ddl('as it was'); ALTER TABLE holdfast.job DROP COLUMN extra; ALTER TABLE holdfast.ledger SET (fillfactor = 35)");
my $before = super(q(SELECT count(*) FROM holdfast.finding));
$node->safe_psql('postgres', 'CREATE DATABASE restored');
$node->safe_psql('postgres', 'ALTER ROLE evidence_owner SUPERUSER');
for my $how ([ 'pg_restore' ], [ 'pg_restore', '-j2' ])
{
	$node->safe_psql('postgres', 'DROP DATABASE restored');
	$node->safe_psql('postgres', 'CREATE DATABASE restored');
	$node->command_ok([ 'pg_dump', '-Fc', '-d', $node->connstr('attacked'), '-f', $node->basedir . '/attacked.dump' ], 'dumped');
	$node->command_ok([ @$how, '--exit-on-error', '--username=evidence_owner', '-d', $node->connstr('restored'), $node->basedir . '/attacked.dump' ], "restored: @$how");
	is($node->safe_psql('restored', 'SELECT count(*) FROM holdfast.finding'), $before, 'a restore leaves no record');
	is($node->safe_psql('restored', q(SELECT count(*) FROM holdfast.verify())), '0', 'and verify() reports nothing');
}
# Data alone, with triggers disabled meanwhile: they are ALWAYS afterwards, and every row is there.
$node->safe_psql('postgres', 'CREATE DATABASE data_only');
$node->safe_psql('data_only', 'CREATE EXTENSION holdfast');
$node->command_ok([ 'pg_dump', '-Fc', '-d', $node->connstr('attacked'), '-f', $node->basedir . '/attacked.dump' ], 'dumped');
$node->safe_psql('data_only', "SELECT holdfast.make_partition(d::date) FROM generate_series(now() - interval '3 days', now() + interval '9 days', '1 day') d");
$node->command_ok([ 'pg_restore', '--exit-on-error', '--data-only', '--disable-triggers', '--schema=holdfast', '-d', $node->connstr('data_only'), $node->basedir . '/attacked.dump' ],
	'restored: data only, triggers disabled');
is($node->safe_psql('data_only', q(SELECT count(*) FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid WHERE c.relnamespace = 'holdfast'::regnamespace AND NOT t.tgisinternal AND t.tgenabled <> 'A')), '0',
	'every trigger is ALWAYS again');
is($node->safe_psql('data_only', 'SELECT count(*) FROM holdfast.event_all'), super('SELECT count(*) FROM holdfast.event_all'), 'every event is there');
is($node->safe_psql('data_only', q(SELECT count(*) FROM holdfast.verify())), '0', 'verify() reports nothing');

$node->safe_psql('postgres', 'ALTER ROLE evidence_owner NOSUPERUSER');

# The evidence goes: the server's log tells of it.
my $log = -s $node->logfile;
my (undef, undef, $gone) = owner('DROP EXTENSION holdfast CASCADE');
is($gone !~ /ERROR/, 1, 'DROP EXTENSION works for the owner');
like(slurp_file($node->logfile, $log), qr/holdfast: evidence is dropped by DROP EXTENSION of "holdfast", by role "evidence_owner"/, 'and is in the server log');
(undef, undef, $stderr) = owner('CREATE TABLE public.after (a integer); DROP TABLE public.after');
is($stderr, '', 'afterwards DDL goes on as if nothing had been');
unlike(slurp_file($node->logfile), qr/terminated by signal/, 'no process crashed');

$node->stop;
done_testing();
