-- +goose Up

-- What the device was known to have done late after the change; null in rows from before it was kept, whose chain
-- is without it.
ALTER TABLE rollout_log ADD COLUMN late TEXT;
