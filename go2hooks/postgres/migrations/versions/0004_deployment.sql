-- Which deployment this database is: made once, carried by its deliveries, and written on its topics in Kafka.
CREATE TABLE deployment (
    id text PRIMARY KEY,
    is_only boolean NOT NULL DEFAULT true UNIQUE CHECK (is_only)   -- one row
);
INSERT INTO deployment (id) VALUES ('dep_' || left(replace(gen_random_uuid()::text, '-', ''), 12));
