-- Replays: sending again to one webhook what lies in the log, as a job of the replayer.

CREATE TABLE replays (
    id            text PRIMARY KEY,                      -- rpl_…
    webhook_id    text NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
    account_id    text NOT NULL,
    selection     text NOT NULL CHECK (selection IN ('failed', 'skipped', 'missed', 'all')),
    events        text[],                                -- NULL: whatever the webhook subscribes to
    from_at       timestamptz NOT NULL,                  -- events that Kafka accepted at this time or later …
    to_at         timestamptz NOT NULL,                  -- … and before this time
    status        text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'running', 'done', 'stopped', 'failed')),
    error         text,                                  -- why it failed
    matched       bigint NOT NULL DEFAULT 0,
    sent          bigint NOT NULL DEFAULT 0,             -- of these, acknowledged by Kafka
    expired       bigint NOT NULL DEFAULT 0,             -- of these, no longer in Kafka
    delivered     bigint NOT NULL DEFAULT 0,             -- of those sent
    failed        bigint NOT NULL DEFAULT 0,
    skipped       bigint NOT NULL DEFAULT 0,
    progress      jsonb,                                 -- where reading goes on; NULL before it has begun
    position_at   timestamptz,                           -- what was accepted before has been looked at
    unread        bigint,                                -- about so many messages or records are still to be looked at
    batch         integer NOT NULL DEFAULT 0,            -- the number of the last batch
    unsent        integer NOT NULL DEFAULT 0,            -- deliveries in that batch, while Kafka has not acknowledged them all
    all_sent      boolean NOT NULL DEFAULT false,
    holder        text,                                  -- the replayer that works on it …
    leased_until  timestamptz,                           -- … until then, unless it says so again
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at   timestamptz
);
CREATE UNIQUE INDEX replays_running ON replays (webhook_id) WHERE finished_at IS NULL;
CREATE INDEX replays_webhook ON replays (webhook_id, created_at, id);
CREATE INDEX replays_account_running ON replays (account_id) WHERE finished_at IS NULL;

-- Deliveries that a replay has sent, or is about to, and that are not decided yet: some hundred to a row. Written before they
-- are sent, with the numbers of their attempts: whoever goes on after a crash sends the same attempts again, which are recognised.
CREATE TABLE replay_batches (
    replay_id   text NOT NULL REFERENCES replays (id) ON DELETE CASCADE,
    batch       integer NOT NULL,
    deliveries  jsonb NOT NULL,                          -- [[delivery id, accepted in ms, attempt, topic, partition, offset], …]
    written_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    look_at     timestamptz NOT NULL,                    -- when to look next at what came of them
    PRIMARY KEY (replay_id, batch)
);
CREATE INDEX replay_batches_look ON replay_batches (look_at);
