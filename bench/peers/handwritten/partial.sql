UPDATE job SET status = 'running', attempts = attempts + 1, locked_until = now() + '90 s' WHERE ctid = (SELECT ctid FROM job WHERE queue = 1 AND status = 'pending' AND run_at <= now() ORDER BY priority, run_at, id LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING id, attempts, payload \gset
DELETE FROM job WHERE id = :id;
