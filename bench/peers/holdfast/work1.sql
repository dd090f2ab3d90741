SELECT job_id, lease_id, attempt_number, idempotency_key, payload FROM holdfast.claim('bench', 'worker') \gset
SELECT holdfast.complete(:job_id, :lease_id);
