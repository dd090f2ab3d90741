\set n random(1, 1000000000000000)
BEGIN;
SELECT job_id, outcome FROM holdfast.enqueue('bench', 'send_email', 'prospect-' || :n, '{"to": "000000000001@example.com", "text": "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}');
\sleep 20 ms
COMMIT;
