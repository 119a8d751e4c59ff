-- A delivery in detail, and sent again on request.

-- What is shown of each attempt. Empty in nearly all rows: a success has neither of the first two.
ALTER TABLE attempts
    ADD COLUMN location text,                  -- the answer's, when it was no success
    ADD COLUMN retry_after text,
    ADD COLUMN remote_address text;            -- whom the request went to

-- One delivery is found by its id alone. A hash costs the writers half of what a tree would. It is of an expression that only
-- that look-up has, so that the planner never takes it for the others, which go along the primary key.
CREATE INDEX attempts_delivery ON attempts USING hash ((delivery_id || ''));

-- Redeliveries under way: who asked first has the attempt. A row counts until its attempt is recorded, or it is old.
CREATE TABLE redeliveries (
    webhook_id   text NOT NULL,
    delivery_id  text NOT NULL,
    attempt      smallint NOT NULL,
    asked_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (webhook_id, delivery_id)
);

CREATE OR REPLACE FUNCTION attempts_maintain(today date, days_ahead integer, retention_days integer, OUT created integer, OUT dropped integer)
LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    partition text;
BEGIN
    SELECT count(*) FILTER (WHERE attempts_create_partition(today + ahead)) INTO created
    FROM generate_series(-1, days_ahead) AS ahead;
    dropped := 0;
    FOR partition IN
        SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'attempts'::regclass AND c.relname ~ '^attempts_[0-9]{8}$'
              AND to_date(right(c.relname, 8), 'YYYYMMDD') < today - retention_days
    LOOP
        EXECUTE format('DROP TABLE %I', partition);
        dropped := dropped + 1;
    END LOOP;
    DELETE FROM webhooks WHERE deleted_at < now() - make_interval(days => retention_days);
    DELETE FROM redeliveries WHERE asked_at < now() - interval '1 day';
END $$;

-- Replaced, it has lost its settings: what it names is looked up where the tables are, whatever the caller's search_path says.
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION attempts_maintain(date, integer, integer) SET search_path = %s, pg_temp',
                   (SELECT relnamespace::regnamespace FROM pg_class WHERE oid = 'attempts'::regclass));
END $$;
