-- +goose Up
-- How it was proved that whoever registered an authority has its key, and when. Those
-- that were registered before this was asked go on letting devices in.
ALTER TABLE certificate_authority ADD COLUMN proof TEXT NOT NULL DEFAULT 'none';
ALTER TABLE certificate_authority ADD COLUMN code TEXT COLLATE "binary" NOT NULL DEFAULT '';
ALTER TABLE certificate_authority ADD COLUMN verified BIGINT NOT NULL DEFAULT 0; -- 0 for not yet
UPDATE certificate_authority SET verified = created;
