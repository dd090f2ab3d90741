\set n random(1, 1000000000000000)
SELECT pgq.insert_event('bench', 'send_email', '{"to": "000000000001@example.com", "text": "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}', 'prospect-' || :n, NULL, NULL, NULL);
