-- +goose Up
-- The networks that a user signed in from lately, a JSON list: tries by strangers from elsewhere do not keep him out there.
ALTER TABLE account ADD COLUMN networks TEXT NOT NULL DEFAULT '[]';
