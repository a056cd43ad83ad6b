-- +goose Up
CREATE TABLE telemetry_device (
    id   int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE
);
COMMENT ON TABLE telemetry_device IS 'Device names by the small number that telemetry rows carry.';

CREATE TABLE metric (
    id   int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text COLLATE "C" NOT NULL,
    kind smallint NOT NULL,
    UNIQUE (name, kind)
);
COMMENT ON TABLE metric IS 'Key names with the kind of their values: 0 number, 1 boolean, 2 JSON.';

-- digest is the SHA-256 of metric_ids: a btree takes no array of more than about 650 numbers.
CREATE TABLE metric_set (
    id         int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    metric_ids int[] NOT NULL,
    digest     bytea NOT NULL UNIQUE
);
COMMENT ON TABLE metric_set IS 'The keys of a telemetry row: first those of vals, in order, then the JSON keys, whose values are in extra by name.';

-- +goose StatementBegin
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb') THEN
        CREATE TABLE telemetry_default (
            time timestamptz NOT NULL, device_id int NOT NULL, set_id int NOT NULL,
            vals float8[] NOT NULL, extra jsonb);
        PERFORM create_hypertable('telemetry_default', 'time',
            chunk_time_interval => INTERVAL '7 days', create_default_indexes => false);
    ELSE
        CREATE TABLE telemetry_default (
            time timestamptz NOT NULL, device_id int NOT NULL, set_id int NOT NULL,
            vals float8[] NOT NULL, extra jsonb) PARTITION BY RANGE (time);
    END IF;
END $$;
-- +goose StatementEnd
CREATE UNIQUE INDEX telemetry_default_key ON telemetry_default (device_id, time DESC, set_id);
COMMENT ON TABLE telemetry_default IS 'One row per reading. A negative set_id marks a loose row: vals is empty, extra holds its numbers in n, booleans in b and JSON values in j.';

CREATE TABLE ingest_cursor (
    name        text COLLATE "C" PRIMARY KEY,
    incarnation text NOT NULL,
    seq         bigint NOT NULL
);
COMMENT ON TABLE ingest_cursor IS 'How far each reader of the log has come.';

CREATE TABLE latest (
    device_id int PRIMARY KEY,
    time      timestamptz NOT NULL,
    vals      jsonb NOT NULL
) WITH (fillfactor = 70);
COMMENT ON TABLE latest IS 'The newest value of each key of each device, for a warm start.';

CREATE TABLE rejected (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    device  text COLLATE "C" NOT NULL,
    arrival timestamptz NOT NULL,
    topic   text NOT NULL,
    code    text NOT NULL,
    reason  text NOT NULL,
    payload bytea NOT NULL,
    size    bigint NOT NULL,
    digest  bytea NOT NULL
);
CREATE UNIQUE INDEX rejected_device ON rejected (device, arrival DESC, digest);
CREATE INDEX rejected_arrival ON rejected (arrival DESC, id DESC);
COMMENT ON TABLE rejected IS 'The newest messages that were refused for good, with the first 4 KiB of each.';

CREATE VIEW telemetry_points (time, device, key, value, text) AS
SELECT t.time, d.name, m.name, u.value, NULL::text
FROM telemetry_default t
JOIN telemetry_device d ON d.id = t.device_id
JOIN metric_set s ON s.id = t.set_id
CROSS JOIN LATERAL unnest(t.vals, s.metric_ids) AS u(value, metric_id)
JOIN metric m ON m.id = u.metric_id
WHERE u.value IS NOT NULL
UNION ALL
SELECT t.time, d.name, e.key, NULL::float8,
    CASE jsonb_typeof(e.value) WHEN 'string' THEN e.value #>> '{}' ELSE e.value::text END
FROM telemetry_default t
JOIN telemetry_device d ON d.id = t.device_id
CROSS JOIN LATERAL jsonb_each(CASE WHEN t.set_id < 0 THEN t.extra -> 'j' ELSE t.extra END) AS e
UNION ALL
SELECT t.time, d.name, e.key, (e.value #>> '{}')::float8, NULL::text
FROM telemetry_default t
JOIN telemetry_device d ON d.id = t.device_id
CROSS JOIN LATERAL (SELECT * FROM jsonb_each(t.extra -> 'n') UNION ALL SELECT * FROM jsonb_each(t.extra -> 'b')) AS e
WHERE t.set_id < 0 AND e.value <> 'null'::jsonb;
COMMENT ON VIEW telemetry_points IS 'Telemetry with one row per value: value is a number, or 0 and 1 for a boolean; text is a string itself or another JSON value as its text. Holes are left out.';
