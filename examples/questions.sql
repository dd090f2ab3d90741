-- The incident's questions, query by query; docs/runbook.md explains the answers.
\pset footer off
\pset null ''
SET jit = off;
\echo 'What is going on?'
SELECT what, name, state, progress, worker, time, note FROM holdfast.ps WHERE what !~ 'prospect-[0-9]{2}$';
\echo 'Two attempts of one action: what was the second one?'
SELECT subject, attempt_number_a AS a, attempt_number_b AS b, verdict, gap, changed FROM holdfast.span_pair ORDER BY started_at_b;
\echo 'And why is that the verdict?'
SELECT because FROM holdfast.attempt_pair WHERE subject = 'prospect-7ca677ed25d3' ORDER BY started_at_b;
\echo 'Was a job worked on by two at once?'
SELECT subject, worker_name_a, worker_name_b, gap, because FROM holdfast.span_pair WHERE verdict = 'lease_overlap';
\echo 'How many emails went out?  What the ledger knows of each:'
SELECT s.side_effect_state AS ledger, count(*) AS jobs
FROM (SELECT DISTINCT ON (job_id) side_effect_state FROM holdfast.attempt ORDER BY job_id, attempt_number DESC) s GROUP BY 1 ORDER BY 1;
\echo 'Why did jobs stop?'
SELECT reason, detail, count(*) AS jobs, min(because) AS because FROM holdfast.stop_reason GROUP BY reason, detail ORDER BY reason;
\echo 'Timeouts that are not what they say:'
SELECT subject, attempt_number AS try, finding, because FROM holdfast.timeout_finding ORDER BY started_at;
\echo 'Which failures keep coming back?'
SELECT action_key, exception_class, normalized_message, attempts, subjects, pairs, worker_time_lost FROM holdfast.failure_pattern ORDER BY worker_time_lost DESC, exception_class;
\echo 'What can be put back?'
SELECT subject, failures, max_attempts, stopped_by, how FROM holdfast.recoverable();
\echo 'The job of the incident, explained:'
SELECT x.* FROM (SELECT min(job_id::bigint) AS job_id FROM holdfast.attempt WHERE subject = 'prospect-7ca677ed25d3') j, holdfast.explain(j.job_id) x;
