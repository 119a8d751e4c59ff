-- What is to be told about webhooks: written with the attempt that gave cause for it, sent to Kafka by whichever dispatcher
-- looks first, and then deleted.
CREATE TABLE webhook_notices (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id       text NOT NULL DEFAULT 'evt_' || replace(gen_random_uuid()::text, '-', ''),
    account_id     text NOT NULL,
    event          text NOT NULL,                                  -- webhook.disabled, webhook.failing
    data           json NOT NULL,                                  -- the event's data
    happened_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    claimed_until  timestamptz NOT NULL DEFAULT '-infinity'        -- a dispatcher is about to send it; another may after that
);
