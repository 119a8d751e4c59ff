-- Consecutive failures are counted in the order in which attempts began, whatever is recorded first.
ALTER TABLE webhooks ADD COLUMN failure_starts bigint[] NOT NULL DEFAULT '{}';   -- of those that count, earliest first; epoch milliseconds
UPDATE webhooks SET failure_starts = array_fill((extract(epoch FROM coalesce(failing_since, now())) * 1000)::bigint, ARRAY[consecutive_failures])
WHERE consecutive_failures > 0;
