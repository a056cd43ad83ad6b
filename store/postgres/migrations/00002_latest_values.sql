-- +goose Up
-- Of kinds, times and arrivals there is one entry when all are equal.
CREATE VIEW latest_values (time, arrival, device, key, value, json, place) AS
SELECT timestamptz 'epoch' + (CASE jsonb_array_length(l.vals -> 'times') WHEN 1 THEN l.vals -> 'times' -> 0
           ELSE l.vals -> 'times' -> (k.place - 1)::int END)::bigint * interval '1 microsecond',
       timestamptz 'epoch' + (CASE jsonb_array_length(l.vals -> 'arrivals') WHEN 1 THEN l.vals -> 'arrivals' -> 0
           ELSE l.vals -> 'arrivals' -> (k.place - 1)::int END)::bigint * interval '1 microsecond',
       d.name, k.name,
       CASE WHEN kind.of <> 2 THEN (l.vals -> 'numbers' ->> slot.at)::float8 END,
       CASE WHEN kind.of = 2 THEN l.vals -> 'texts' -> slot.at END,
       k.place
FROM latest l
JOIN telemetry_device d ON d.id = l.device_id
CROSS JOIN LATERAL jsonb_array_elements_text(
    CASE jsonb_typeof(l.vals -> 'keys') WHEN 'array' THEN l.vals -> 'keys' END) WITH ORDINALITY AS k(name, place)
CROSS JOIN LATERAL (SELECT (CASE jsonb_array_length(l.vals -> 'kinds') WHEN 1 THEN l.vals -> 'kinds' -> 0
    ELSE l.vals -> 'kinds' -> (k.place - 1)::int END)::int) AS kind(of)
CROSS JOIN LATERAL (SELECT CASE jsonb_array_length(l.vals -> 'kinds') WHEN 1 THEN (k.place - 1)::int
    ELSE (SELECT count(*)::int FROM jsonb_array_elements(l.vals -> 'kinds') WITH ORDINALITY AS o(kind, place)
        WHERE o.place < k.place AND (o.kind::int = 2) = (kind.of = 2)) END) AS slot(at);
COMMENT ON VIEW latest_values IS 'The newest value of each key of each device: value is a number, or 0 and 1 for a boolean; json is anything else.';
