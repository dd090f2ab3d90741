INSERT INTO keyed (key, payload) SELECT key, payload FROM staged WHERE batch = (SELECT nextval('next_batch')) ON CONFLICT DO NOTHING;
