\i test/setup.sql
-- Indexes that a user has added to holdfast's tables are kept as the executor would keep them.
SELECT plan(7);
SET LOCAL holdfast.clock = '2030-01-01 00:00:00+00';
SELECT holdfast.create_queue('mail') \g /dev/null

CREATE INDEX job_payload ON holdfast.job USING gin (payload);
CREATE INDEX job_brin ON holdfast.job USING brin (job_id);
CREATE INDEX job_lower ON holdfast.job (lower(subject)) WHERE status = 'pending';
CREATE INDEX event_brin ON holdfast.event_20300101 USING brin (at);
CREATE INDEX ledger_state ON holdfast.ledger (state);

SELECT holdfast.enqueue('mail', 'act', 'S' || n, jsonb_build_object('n', n)) FROM generate_series(1, 20) n \g /dev/null
SELECT lives_ok($$ SELECT holdfast.complete(job_id, lease_id) FROM holdfast.claim('mail', 'w', 5) $$, 'claimed and completed with foreign indexes');
SELECT lives_ok($$ SELECT f.decision FROM holdfast.claim('mail', 'w', 5) c, holdfast.fail(c.job_id, c.lease_id, 'ValidationError') f $$,
	'claimed and failed');

SET LOCAL enable_seqscan = off;
SELECT is((SELECT count(*)::int FROM holdfast.job WHERE payload @> '{"n": 20}'), 1, 'a GIN index finds a job');
SELECT is((SELECT count(*)::int FROM holdfast.job WHERE lower(subject) = 's20' AND status = 'pending'), 1,
	'a partial expression index finds a pending job');
SELECT is((SELECT count(*)::int FROM holdfast.job WHERE lower(subject) = 's1' AND status = 'pending'), 0, 'and not one that is gone');
SELECT is((SELECT count(*)::int FROM holdfast.ledger WHERE state = 'committed'), 5, 'an index on a changing column is kept, if not HOT');
CREATE INDEX job_unique ON holdfast.job ((payload -> 'n')) WHERE job_id < 0;
SELECT lives_ok($$ SELECT holdfast.enqueue('mail', 'act', 'more', '{"n": 99}') $$, 'an index made in between is noticed');

SELECT * FROM finish();
ROLLBACK;
