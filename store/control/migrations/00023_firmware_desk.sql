-- +goose Up

ALTER TABLE rollout ADD COLUMN product TEXT COLLATE "binary" NOT NULL DEFAULT '';
ALTER TABLE rollout ADD COLUMN security BIGINT NOT NULL DEFAULT 0;

-- The log's rows are chained in the order of commits; what is sealed an audit record vouches for.
ALTER TABLE rollout ADD COLUMN chain TEXT NOT NULL DEFAULT '';
ALTER TABLE rollout ADD COLUMN sealed BIGINT NOT NULL DEFAULT 0;
CREATE INDEX rollout_unsealed ON rollout (id) WHERE log > sealed;

-- A device is in flight once at most, whoever offers.
DROP INDEX rollout_device_flight;
CREATE UNIQUE INDEX rollout_device_flight ON rollout_device (device) WHERE state IN ('offered', 'downloading', 'downloaded', 'installing', 'rebooting');

-- What a device was offered last is asked at each of its polls, what waits for it when it
-- comes, what it confirmed before an offer.
CREATE INDEX rollout_device_action ON rollout_device (device, action) WHERE action > 0;
CREATE INDEX rollout_device_queued ON rollout_device (device) WHERE state = 'queued';
CREATE INDEX rollout_device_confirmed ON rollout_device (device) WHERE state = 'confirmed';

-- Who failed of late is offered nothing for a while.
CREATE INDEX rollout_log_failed ON rollout_log (at) WHERE after IN ('failed', 'rolled_back', 'timed_out') OR after = 'queued' AND event IN ('failed', 'silence');

-- The newest action whose end a device knows.
CREATE TABLE firmware_closed (
    device TEXT COLLATE "binary" NOT NULL PRIMARY KEY,
    action BIGINT NOT NULL
);
