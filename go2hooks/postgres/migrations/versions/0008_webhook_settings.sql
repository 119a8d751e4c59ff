-- What a webhook may be told beyond where its events go. NULL is "not set", and costs a row nothing.

ALTER TABLE webhooks
    ADD COLUMN description     text,
    ADD COLUMN metadata        jsonb,               -- the customer's own, string to string; nobody reads it
    ADD COLUMN headers         jsonb,               -- [[name, value], …] in their order; the value is null where it is secret
    ADD COLUMN sealed_headers  bytea,               -- AES-256-GCM over JSON {name: value}: the secret values; bound to id
    ADD COLUMN rate_limit      double precision CHECK (rate_limit > 0),       -- requests per second
    ADD COLUMN max_concurrency integer CHECK (max_concurrency > 0),
    ADD COLUMN filter          jsonb;               -- a pattern of core/filters.py

CREATE OR REPLACE FUNCTION webhooks_mark_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' OR (OLD.url, OLD.events, OLD.is_active, OLD.sealed_secret, OLD.sealed_previous_secret,
                            OLD.previous_secret_expires_at, OLD.deleted_at, OLD.client_certificate,
                            OLD.headers, OLD.sealed_headers, OLD.rate_limit, OLD.max_concurrency, OLD.filter)
           IS DISTINCT FROM (NEW.url, NEW.events, NEW.is_active, NEW.sealed_secret, NEW.sealed_previous_secret,
                             NEW.previous_secret_expires_at, NEW.deleted_at, NEW.client_certificate,
                             NEW.headers, NEW.sealed_headers, NEW.rate_limit, NEW.max_concurrency, NEW.filter) THEN
        NEW.changed_at := clock_timestamp();
        PERFORM pg_notify('go2hooks_webhooks', NEW.id);
    END IF;
    RETURN NEW;
END $$;
