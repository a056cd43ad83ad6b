-- +goose Up

-- When a device is tried again is another thing than when it is looked at again.
ALTER TABLE rollout_device ADD COLUMN retry BIGINT NOT NULL DEFAULT 0;
UPDATE rollout_device SET retry = due WHERE state = 'queued' AND failures > 0 AND due < 9223372036854775807;

-- When the soak of a device was over that sleeps, and is waited for.
ALTER TABLE rollout_device ADD COLUMN soaked BIGINT NOT NULL DEFAULT 0;

-- What a device did after its attempt was over, or taken back.
ALTER TABLE rollout_device ADD COLUMN late TEXT COLLATE "binary" NOT NULL DEFAULT '';
