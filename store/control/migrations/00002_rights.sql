-- +goose Up
CREATE TABLE profile (
    name         TEXT COLLATE "binary" NOT NULL PRIMARY KEY,
    publish      JSONB NOT NULL,
    subscribe    JSONB NOT NULL,
    level        TEXT NOT NULL,
    message_rate BIGINT NOT NULL,
    byte_rate    BIGINT NOT NULL
);

-- The profile "default" has no row. An empty parent is none.
ALTER TABLE device ADD COLUMN profile TEXT COLLATE "binary" NOT NULL DEFAULT 'default';
ALTER TABLE device ADD COLUMN parent TEXT COLLATE "binary" NOT NULL DEFAULT '';
CREATE INDEX device_profile ON device (profile) WHERE profile <> 'default';
CREATE INDEX device_parent ON device (parent) WHERE parent <> '';

CREATE TABLE service_account (
    id        TEXT COLLATE "binary" NOT NULL PRIMARY KEY,
    name      TEXT NOT NULL,
    hash      TEXT NOT NULL,
    publish   JSONB NOT NULL,
    subscribe JSONB NOT NULL,
    disabled  BOOLEAN NOT NULL,
    created   BIGINT NOT NULL,
    expires   BIGINT NOT NULL
);
