SELECT count(*) AS jobs, count(*) FILTER (WHERE outcome = 'created') AS created FROM holdfast.enqueue_batch('bench', (SELECT jobs FROM staged WHERE batch = (SELECT nextval('next_batch'))));
