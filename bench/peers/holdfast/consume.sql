SELECT count(*) AS n, array_agg(job_id) AS ids, array_agg(lease_id) AS leases, array_agg(payload) AS payloads FROM holdfast.claim('bench', 'worker', 10) \gset
\if :n
SELECT count(*) FROM holdfast.complete_batch(:ids, :leases);
\else
\sleep 5 ms
\endif
