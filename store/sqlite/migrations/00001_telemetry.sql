-- +goose Up
CREATE TABLE device (
  id   INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE
);

-- kind: 0 number, 1 boolean, 2 JSON.
CREATE TABLE metric (
  id   INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  kind INTEGER NOT NULL,
  UNIQUE (name, kind)
);

-- keys is the canonical list of metric ids, a JSON array.
CREATE TABLE metric_set (
  id   INTEGER PRIMARY KEY,
  keys TEXT NOT NULL UNIQUE
);

-- slot is the place of the key's value in vals (numbers, booleans) or extra (JSON).
CREATE TABLE metric_set_key (
  set_id    INTEGER NOT NULL REFERENCES metric_set (id),
  pos       INTEGER NOT NULL,
  metric_id INTEGER NOT NULL REFERENCES metric (id),
  slot      INTEGER NOT NULL,
  PRIMARY KEY (set_id, pos)
) WITHOUT ROWID;

-- time is microseconds since 1970 UTC. vals is 8 bytes a value: a big-endian IEEE
-- float, 7FF8000000000001 for a hole. extra is a JSON array of the JSON values; for
-- a loose layout (set_id < 0) {"keys":[[name,kind,slot],...],"values":[...]}.
CREATE TABLE telemetry_default (
  time      INTEGER NOT NULL,
  device_id INTEGER NOT NULL,
  set_id    INTEGER NOT NULL,
  vals      BLOB NOT NULL,
  extra     TEXT
);

CREATE UNIQUE INDEX telemetry_default_key ON telemetry_default (device_id, time, set_id);

CREATE TABLE ingest_cursor (
  name        TEXT PRIMARY KEY,
  incarnation TEXT NOT NULL,
  seq         INTEGER NOT NULL
) WITHOUT ROWID;

-- vals is the package's own encoding of the newest value of each key.
CREATE TABLE latest (
  device_id INTEGER PRIMARY KEY,
  vals      BLOB NOT NULL
);

-- digest tells messages of one device and arrival apart, so that a replay adds none.
CREATE TABLE rejected (
  id      INTEGER PRIMARY KEY,
  device  TEXT NOT NULL,
  arrival INTEGER NOT NULL,
  digest  INTEGER NOT NULL,
  topic   TEXT NOT NULL,
  code    TEXT NOT NULL,
  reason  TEXT NOT NULL,
  payload BLOB NOT NULL,
  size    INTEGER NOT NULL
);

CREATE UNIQUE INDEX rejected_device ON rejected (device, arrival, digest);

CREATE INDEX rejected_arrival ON rejected (arrival);

-- One row, written when a commit must reach the disk.
CREATE TABLE durability (
  id    INTEGER PRIMARY KEY CHECK (id = 1),
  syncs INTEGER NOT NULL
);

INSERT INTO durability (id, syncs) VALUES (1, 0);

-- What the first 12 bits of a float, in hex, say about the other 52: the value is
-- (hidden + those 52 bits) * scale. Each scale is a power of two, so that the
-- product is exact.
CREATE TABLE float_scale (
  prefix TEXT PRIMARY KEY,
  hidden INTEGER NOT NULL,
  scale  REAL NOT NULL
) WITHOUT ROWID;

WITH RECURSIVE
  up (e, s) AS (SELECT 1075, 1.0 UNION ALL SELECT e + 1, s * 2.0 FROM up WHERE e < 2046),
  down (e, s) AS (SELECT 1074, 0.5 UNION ALL SELECT e - 1, s * 0.5 FROM down WHERE e > 1),
  positive (e, hidden, s) AS (
    SELECT 0, 0, s FROM down WHERE e = 1
    UNION ALL SELECT e, 1 << 52, s FROM down
    UNION ALL SELECT e, 1 << 52, s FROM up
    UNION ALL SELECT 2047, 1 << 52, 9e999)
INSERT INTO float_scale (prefix, hidden, scale)
SELECT printf('%03X', e), hidden, s FROM positive
UNION ALL SELECT printf('%03X', e + 2048), hidden, -s FROM positive;

CREATE VIEW telemetry_values (us, device, key, kind, bits, json, path) AS
SELECT t.time, d.name, m.name, m.kind,
       hex(substr(t.vals, 8 * k.slot + 1, 8)), t.extra, '$[' || k.slot || ']'
FROM telemetry_default t
JOIN device d ON d.id = t.device_id
JOIN metric_set_key k ON k.set_id = t.set_id
JOIN metric m ON m.id = k.metric_id
UNION ALL
SELECT t.time, d.name, e.value ->> '$[0]', e.value ->> '$[1]',
       hex(substr(t.vals, 8 * (e.value ->> '$[2]') + 1, 8)), t.extra, '$.values[' || (e.value ->> '$[2]') || ']'
FROM telemetry_default t
JOIN device d ON d.id = t.device_id
JOIN json_each(t.extra, '$.keys') e
WHERE t.set_id < 0;

CREATE VIEW telemetry_points (time, device, key, value, text) AS
SELECT strftime('%Y-%m-%dT%H:%M:%S', (v.us - (v.us % 1000000 + 1000000) % 1000000) / 1000000, 'unixepoch')
         || printf('.%06dZ', (v.us % 1000000 + 1000000) % 1000000),
       v.device, v.key,
       (f.hidden
         + ((instr('0123456789ABCDEF', substr(v.bits,  4, 1)) - 1) << 48)
         + ((instr('0123456789ABCDEF', substr(v.bits,  5, 1)) - 1) << 44)
         + ((instr('0123456789ABCDEF', substr(v.bits,  6, 1)) - 1) << 40)
         + ((instr('0123456789ABCDEF', substr(v.bits,  7, 1)) - 1) << 36)
         + ((instr('0123456789ABCDEF', substr(v.bits,  8, 1)) - 1) << 32)
         + ((instr('0123456789ABCDEF', substr(v.bits,  9, 1)) - 1) << 28)
         + ((instr('0123456789ABCDEF', substr(v.bits, 10, 1)) - 1) << 24)
         + ((instr('0123456789ABCDEF', substr(v.bits, 11, 1)) - 1) << 20)
         + ((instr('0123456789ABCDEF', substr(v.bits, 12, 1)) - 1) << 16)
         + ((instr('0123456789ABCDEF', substr(v.bits, 13, 1)) - 1) << 12)
         + ((instr('0123456789ABCDEF', substr(v.bits, 14, 1)) - 1) << 8)
         + ((instr('0123456789ABCDEF', substr(v.bits, 15, 1)) - 1) << 4)
         +  (instr('0123456789ABCDEF', substr(v.bits, 16, 1)) - 1)) * f.scale,
       CASE v.kind WHEN 2 THEN
         CASE json_type(v.json, v.path) WHEN 'text' THEN v.json ->> v.path ELSE v.json -> v.path END
       END
FROM telemetry_values v
LEFT JOIN float_scale f ON v.kind <> 2 AND f.prefix = substr(v.bits, 1, 3)
WHERE v.kind = 2 OR v.bits <> '7FF8000000000001';
