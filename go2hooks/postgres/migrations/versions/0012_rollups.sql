-- Statistics of attempts. What each batch of records adds is written with it, as one row; every few seconds these are gathered
-- into rollups: so a batch costs one small row, whatever number of webhooks it is about, and no dispatcher waits for another.
CREATE TABLE attempt_deltas (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    written_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    delta       text NOT NULL           -- JSON: [[webhook, minute, delivered, failed, skipped, retried, bucket, count, …], …]
);
ALTER TABLE attempt_deltas ALTER COLUMN delta SET STORAGE EXTERNAL;   -- it lives for seconds: compressing it would not pay

CREATE TABLE attempt_rollups (
    webhook_id  text NOT NULL,
    step        integer NOT NULL,       -- seconds: 60, 300, 3600, 86400
    at          timestamptz NOT NULL,   -- when the step begins; an attempt belongs where it began
    delivered   bigint NOT NULL,
    failed      bigint NOT NULL,
    skipped     bigint NOT NULL,
    retried     bigint NOT NULL,
    histogram   bytea NOT NULL,         -- of response times: bucket (uint16) and count (uint32), little-endian, and so on
    PRIMARY KEY (webhook_id, step, at)
) PARTITION BY RANGE (at);
CREATE TABLE attempt_rollups_default PARTITION OF attempt_rollups DEFAULT;

-- Partitions of yesterday to `days_ahead` days ahead are made, those past the retention dropped.
CREATE FUNCTION attempt_rollups_maintain(today date, days_ahead integer, retention_days integer) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    day date;
    first timestamptz;
    after timestamptz;
    partition text;
BEGIN
    FOR day IN SELECT today + ahead FROM generate_series(-1, days_ahead) AS ahead LOOP
        partition := 'attempt_rollups_' || to_char(day, 'YYYYMMDD');
        first := day::timestamp AT TIME ZONE 'UTC';
        after := (day + 1)::timestamp AT TIME ZONE 'UTC';
        CONTINUE WHEN to_regclass(partition) IS NOT NULL;
        EXECUTE format('CREATE TABLE %I (LIKE attempt_rollups INCLUDING ALL) WITH (fillfactor = 70)', partition);
        LOCK TABLE attempt_rollups_default IN ACCESS EXCLUSIVE MODE;
        EXECUTE format('WITH moved AS (DELETE FROM attempt_rollups_default WHERE at >= %L AND at < %L RETURNING *)
                        INSERT INTO %I SELECT * FROM moved', first, after, partition);
        EXECUTE format('ALTER TABLE attempt_rollups ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', partition, first, after);
    END LOOP;
    FOR partition IN
        SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'attempt_rollups'::regclass AND c.relname ~ '^attempt_rollups_[0-9]{8}$'
              AND to_date(right(c.relname, 8), 'YYYYMMDD') < today - retention_days
    LOOP
        EXECUTE format('DROP TABLE %I', partition);
    END LOOP;
    DELETE FROM attempt_rollups_default WHERE at < (today - retention_days)::timestamp AT TIME ZONE 'UTC';
END $$;

-- What it names is looked up where the tables are, whatever the caller's search_path says.
DO $$
DECLARE
    place text := (SELECT relnamespace::regnamespace FROM pg_class WHERE oid = 'attempt_rollups'::regclass);
BEGIN
    EXECUTE format('ALTER FUNCTION attempt_rollups_maintain(date, integer, integer) SET search_path = %s, pg_temp', place);
END $$;
REVOKE ALL ON FUNCTION attempt_rollups_maintain(date, integer, integer) FROM PUBLIC;
