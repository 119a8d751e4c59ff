-- Client certificates (mTLS). The webhook's row, of which every router and dispatcher holds a copy, has the digest alone.

CREATE TABLE client_certificates (
    webhook_id   text PRIMARY KEY REFERENCES webhooks (id) ON DELETE CASCADE,
    digest       bytea NOT NULL CHECK (octet_length(digest) = 32),   -- SHA-256 over the chain
    chain        text NOT NULL,                          -- PEM, the webhook's own certificate first
    sealed_key   bytea NOT NULL,                         -- AES-256-GCM, bound to webhook_id and to being a client's key
    not_after    timestamptz NOT NULL,
    uploaded_at  timestamptz NOT NULL DEFAULT now()
);

-- The rule about the URL holds whichever of the two changes first.
ALTER TABLE webhooks
    ADD COLUMN client_certificate bytea,
    ADD CONSTRAINT webhooks_client_certificate_needs_https CHECK (client_certificate IS NULL OR url ~* '^https://');

CREATE OR REPLACE FUNCTION webhooks_mark_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' OR (OLD.url, OLD.events, OLD.is_active, OLD.sealed_secret, OLD.sealed_previous_secret,
                            OLD.previous_secret_expires_at, OLD.deleted_at, OLD.client_certificate)
           IS DISTINCT FROM (NEW.url, NEW.events, NEW.is_active, NEW.sealed_secret, NEW.sealed_previous_secret,
                             NEW.previous_secret_expires_at, NEW.deleted_at, NEW.client_certificate) THEN
        NEW.changed_at := clock_timestamp();
        PERFORM pg_notify('go2hooks_webhooks', NEW.id);
    END IF;
    RETURN NEW;
END $$;
