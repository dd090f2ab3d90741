\if :job_id
SELECT job_id, lease_id, attempt_number, idempotency_key, payload FROM holdfast.complete_and_claim('bench', 'worker', ARRAY[:job_id]::bigint[], ARRAY[:lease_id]::uuid[]) WHERE kind = 'claimed' \gset
\else
SELECT job_id, lease_id, attempt_number, idempotency_key, payload FROM holdfast.claim('bench', 'worker') \gset
\endif
