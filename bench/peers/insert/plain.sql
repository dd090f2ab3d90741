INSERT INTO plain (key, payload) SELECT key, payload FROM staged WHERE batch = (SELECT nextval('next_batch'));
