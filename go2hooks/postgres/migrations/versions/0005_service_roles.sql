-- A dispatcher's role owns no table, yet makes and drops partitions: by functions that run with their owner's rights.

-- Whether it was not there. Rows of that day that came before their partition (a test event sent while no dispatcher has
-- run yet) move from the default partition into it, where retention finds them.
CREATE OR REPLACE FUNCTION attempts_create_partition(day date) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    partition text := 'attempts_' || to_char(day, 'YYYYMMDD');
    first text := to_char(day, 'YYYY-MM-DD') || ' 00:00:00+00';
    after text := to_char(day + 1, 'YYYY-MM-DD') || ' 00:00:00+00';
BEGIN
    IF to_regclass(partition) IS NOT NULL THEN
        RETURN false;
    END IF;
    BEGIN
        EXECUTE format('CREATE TABLE %I PARTITION OF attempts FOR VALUES FROM (%L) TO (%L)', partition, first, after);
    EXCEPTION WHEN check_violation THEN
        LOCK TABLE attempts_default IN ACCESS EXCLUSIVE MODE;
        EXECUTE format('CREATE TABLE %I (LIKE attempts INCLUDING ALL)', partition);
        EXECUTE format('WITH moved AS (DELETE FROM attempts_default WHERE created_at >= %L AND created_at < %L RETURNING *)
                        INSERT INTO %I SELECT * FROM moved', first, after, partition);
        EXECUTE format('ALTER TABLE attempts ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', partition, first, after);
    END;
    RETURN true;
END $$;

-- Partitions of yesterday to `days_ahead` days ahead are made, those past the retention dropped, old tombstones forgotten.
CREATE FUNCTION attempts_maintain(today date, days_ahead integer, retention_days integer, OUT created integer, OUT dropped integer)
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
END $$;

-- What they name is looked up where the tables are, whatever the caller's search_path says.
DO $$
DECLARE
    place text := (SELECT relnamespace::regnamespace FROM pg_class WHERE oid = 'attempts'::regclass);
BEGIN
    EXECUTE format('ALTER FUNCTION attempts_create_partition(date) SET search_path = %s, pg_temp', place);
    EXECUTE format('ALTER FUNCTION attempts_maintain(date, integer, integer) SET search_path = %s, pg_temp', place);
END $$;
REVOKE ALL ON FUNCTION attempts_create_partition(date), attempts_maintain(date, integer, integer) FROM PUBLIC;
