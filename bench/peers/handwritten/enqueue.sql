INSERT INTO job (payload) SELECT payload(n)::jsonb FROM generate_series(1::bigint, :qty) n;
