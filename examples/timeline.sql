-- What happened to one subject, by plain SQL:  psql -v subject=prospect-7ca677ed25d3 -f timeline.sql
\pset footer off
\pset null ''
SELECT to_char(extract(epoch FROM at - first_value(at) OVER job), 'FM9990.000') AS seconds,
       attempt_number AS try,
       mode,
       regexp_replace(kind, '^action_', '') AS event,
       coalesce(detail->>'decision', detail->>'outcome', worker_result) AS outcome,
       worker_name AS worker,
       left(lease_id::text, 8) AS lease,
       exception_class || coalesce(' (' || timeout_kind || ' ' || timeout_limit_ms || ' ms)', '') AS failure,
       elapsed_ms AS elapsed,
       delay_ms AS delay,
       to_char(extract(epoch FROM next_not_before - first_value(at) OVER job), 'FM9990.000') AS not_before,
       side_effect_state AS ledger
FROM holdfast.event
WHERE subject = :'subject'
WINDOW job AS (PARTITION BY job_id ORDER BY attempt_number, at, event_id)
ORDER BY job_id, attempt_number, at, event_id;
