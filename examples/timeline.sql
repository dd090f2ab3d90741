-- What happened to one subject:  psql -v subject=prospect-7ca677ed25d3 -f timeline.sql
\pset footer off
\pset null ''
SELECT to_char(at, 'HH24:MI:SS.MS') AS at, attempt AS try, worker, lease, what, took, decided, ledger, mark
FROM holdfast.timeline(:'subject');
