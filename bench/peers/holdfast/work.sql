SELECT array_agg(job_id) AS ids, array_agg(lease_id) AS leases, array_agg(idempotency_key) AS keys, array_agg(payload) AS payloads FROM holdfast.claim('bench', 'worker', :qty) \gset
SELECT count(*) FROM holdfast.complete_batch(:ids, :leases) WHERE outcome = 'completed';
