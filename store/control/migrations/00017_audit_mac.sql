-- +goose Up
-- The code of each record by a key that is not in the database, empty in those from before; and
-- in each seal the first record that has one, 0 in those from before.
ALTER TABLE audit ADD COLUMN mac TEXT NOT NULL DEFAULT '';
ALTER TABLE audit_seal ADD COLUMN signed BIGINT NOT NULL DEFAULT 0;
