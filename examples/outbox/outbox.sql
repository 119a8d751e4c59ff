-- Events that were decided on, and are not in Kafka yet.
CREATE TABLE outbox (
    position   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, -- an account's events are sent in this order
    account_id text  NOT NULL,
    event_id   text  NOT NULL UNIQUE, -- made with the row: whatever is sent twice has the same id
    event      bytea NOT NULL,        -- the Kafka message's value, so that what cannot be encoded never gets here
    written_at timestamptz NOT NULL DEFAULT now(), -- how long it waits: for your monitoring, not for the order
    refused    text                   -- why Kafka will never take it; for a person to look at, and in nobody's way
);
CREATE INDEX outbox_waiting ON outbox (position) INCLUDE (account_id) WHERE refused IS NULL;
