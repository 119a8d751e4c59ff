-- What a key may do, and until when. Keys that are there may go on doing everything.
ALTER TABLE api_keys
    ADD COLUMN scopes text[] NOT NULL DEFAULT '{read,write,admin}'
        CHECK (cardinality(scopes) > 0 AND scopes <@ '{read,write,admin}'::text[]),
    ADD COLUMN expires_at timestamptz,
    ADD COLUMN last_used_at timestamptz;             -- within a minute

-- Append-only: who changed what. Written by the transaction that changes it. No secret is in it, only fingerprints.
CREATE TABLE audit_log (
    account_id  text NOT NULL,
    at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    id          bigint GENERATED ALWAYS AS IDENTITY,
    webhook_id  text,                                -- NULL where the change concerns no webhook
    actor_type  text NOT NULL,                       -- key, cli, system
    actor_id    text NOT NULL,                       -- key_…, the user of the command line, or the service
    action      text NOT NULL,                       -- webhook.updated, …
    changes     jsonb NOT NULL,                      -- {field: {"from": …, "to": …}}
    address     text,                                -- that the request came from
    PRIMARY KEY (account_id, at, id)
);
CREATE INDEX audit_log_webhook ON audit_log (webhook_id, at, id) WHERE webhook_id IS NOT NULL;
CREATE INDEX audit_log_at ON audit_log USING brin (at);

-- Answers to POSTs with an Idempotency-Key, for a day. Written by the transaction that does what was asked for.
CREATE TABLE idempotent_answers (
    account_id     text NOT NULL,
    key            text NOT NULL,
    request_hash   bytea NOT NULL CHECK (octet_length(request_hash) = 32),   -- SHA-256 of method, path and body
    sealed_answer  bytea NOT NULL,                   -- AES-256-GCM, bound to account and key: it may show a secret
    answered_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (account_id, key)
);
CREATE INDEX idempotent_answers_answered ON idempotent_answers (answered_at);

-- Bounded, so that it ends in seconds; what is left is forgotten the next time.
CREATE FUNCTION forget_old_changes(audit_retention_days integer, answers_kept interval) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    DELETE FROM audit_log WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM audit_log WHERE at < now() - make_interval(days => audit_retention_days) LIMIT 100000));
    DELETE FROM idempotent_answers WHERE (account_id, key) IN (
        SELECT account_id, key FROM idempotent_answers WHERE answered_at < now() - answers_kept
        ORDER BY answered_at LIMIT 100000 FOR UPDATE SKIP LOCKED);
END $$;
DO $$
DECLARE
    place text := (SELECT relnamespace::regnamespace FROM pg_class WHERE oid = 'audit_log'::regclass);
BEGIN
    EXECUTE format('ALTER FUNCTION forget_old_changes(integer, interval) SET search_path = %s, pg_temp', place);
END $$;
REVOKE ALL ON FUNCTION forget_old_changes(integer, interval) FROM PUBLIC;
