-- Accounts, API keys, webhooks and the record of every attempt.

CREATE TABLE accounts (
    id          text PRIMARY KEY CHECK (id <> '' AND length(id) <= 128),
    created_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE api_keys (
    id            text PRIMARY KEY,                      -- key_…: names the key without showing it
    account_id    text NOT NULL REFERENCES accounts (id),
    key_hash      bytea NOT NULL UNIQUE CHECK (octet_length(key_hash) = 32),   -- SHA-256 of the key: the key itself is shown once
    name          text NOT NULL DEFAULT '',
    created_at    timestamptz NOT NULL DEFAULT now(),
    revoked_at    timestamptz
);
CREATE INDEX api_keys_account ON api_keys (account_id);

CREATE TABLE webhooks (
    id                          text PRIMARY KEY,
    account_id                  text NOT NULL REFERENCES accounts (id),
    name                        text NOT NULL,
    url                         text NOT NULL,
    events                      text[] NOT NULL CHECK (cardinality(events) > 0),
    is_active                   boolean NOT NULL DEFAULT true,
    sealed_secret               bytea NOT NULL,          -- AES-256-GCM, bound to id
    sealed_previous_secret      bytea,
    previous_secret_expires_at  timestamptz,
    consecutive_failures        integer NOT NULL DEFAULT 0 CHECK (consecutive_failures >= 0),
    failing_since               timestamptz,             -- first failure of the present streak
    disabled_at                 timestamptz,
    disabled_reason             text,
    created_at                  timestamptz NOT NULL DEFAULT now(),
    updated_at                  timestamptz NOT NULL DEFAULT now(),  -- what the customer sees: last change of the configuration
    deleted_at                  timestamptz,             -- kept as a tombstone until the attempts' retention has passed
    changed_at                  timestamptz NOT NULL DEFAULT clock_timestamp()  -- what live copies reconcile by; set by trigger
);
CREATE INDEX webhooks_account ON webhooks (account_id, created_at, id) WHERE deleted_at IS NULL;
CREATE INDEX webhooks_changed ON webhooks (changed_at);
CREATE INDEX webhooks_disabled ON webhooks (disabled_at) WHERE disabled_at IS NOT NULL AND deleted_at IS NULL;

-- A change that a router or dispatcher acts on. Failure counts are none: they move with every failing batch.
CREATE FUNCTION webhooks_mark_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' OR (OLD.url, OLD.events, OLD.is_active, OLD.sealed_secret, OLD.sealed_previous_secret,
                            OLD.previous_secret_expires_at, OLD.deleted_at)
           IS DISTINCT FROM (NEW.url, NEW.events, NEW.is_active, NEW.sealed_secret, NEW.sealed_previous_secret,
                             NEW.previous_secret_expires_at, NEW.deleted_at) THEN
        NEW.changed_at := clock_timestamp();
        PERFORM pg_notify('go2hooks_webhooks', NEW.id);
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER webhooks_changed BEFORE INSERT OR UPDATE ON webhooks
    FOR EACH ROW EXECUTE FUNCTION webhooks_mark_changed();

-- Append-only. One row per attempt, with the delivery's state after it; the row with the highest attempt is the delivery's status.
-- Dated by the event's acceptance, which every replay arrives at again: so the key is the same for the same attempt.
CREATE TABLE attempts (
    webhook_id       text NOT NULL,
    created_at       timestamptz NOT NULL,     -- when Kafka accepted the event
    delivery_id      text NOT NULL,
    attempt          smallint NOT NULL,        -- from 1; 0 records a delivery that waits for its first attempt
    account_id       text NOT NULL,
    event_id         text NOT NULL,
    event            text NOT NULL,
    kind             text NOT NULL,            -- event, test, replay
    state            text NOT NULL,            -- pending, delivered, retrying, failed, skipped
    status_code      smallint,
    duration_ms      real,
    error_code       text,
    error_message    text,
    next_attempt_at  timestamptz,
    attempted_at     timestamptz NOT NULL,     -- when the attempt began (or was skipped or deferred)
    response_excerpt text,
    kafka_topic      text,                     -- where the delivery's message lies: the log is the payload store
    kafka_partition  integer,
    kafka_offset     bigint,
    PRIMARY KEY (webhook_id, created_at, delivery_id, attempt)
) PARTITION BY RANGE (created_at);
-- Rows that no day claims (a broker with a wrong clock) are kept, not lost.
CREATE TABLE attempts_default PARTITION OF attempts DEFAULT;
-- What customers search for is rarely what went well, nor a click. Both in the order of the primary key, so that a page of
-- the history is read off the index; both small, since what is common is in neither.
CREATE INDEX attempts_not_delivered ON attempts (webhook_id, state, created_at, delivery_id, attempt) WHERE state <> 'delivered';
CREATE INDEX attempts_not_click ON attempts (webhook_id, event, created_at, delivery_id, attempt) WHERE event <> 'click';

-- Partitions of one day each, named attempts_YYYYMMDD, in UTC.
CREATE FUNCTION attempts_create_partition(day date) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    partition text := 'attempts_' || to_char(day, 'YYYYMMDD');
BEGIN
    IF to_regclass(partition) IS NOT NULL THEN
        RETURN false;
    END IF;
    EXECUTE format('CREATE TABLE %I PARTITION OF attempts FOR VALUES FROM (%L) TO (%L)', partition,
                   day::text || ' 00:00:00+00', (day + 1)::text || ' 00:00:00+00');
    RETURN true;
END $$;
