-- +goose Up

-- What people did to a rollout, and what they decided.
ALTER TABLE rollout ADD COLUMN record TEXT NOT NULL DEFAULT '{}';

-- Lists of one state are in the order of devices.
DROP INDEX rollout_device_state;
CREATE INDEX rollout_device_state ON rollout_device (rollout, state, device);
