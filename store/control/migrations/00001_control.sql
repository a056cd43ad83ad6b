-- +goose Up
CREATE TABLE device (
    id      TEXT COLLATE "binary" NOT NULL PRIMARY KEY,
    name    TEXT NOT NULL,
    created BIGINT NOT NULL
);

CREATE TABLE credential (
    id      TEXT COLLATE "binary" NOT NULL PRIMARY KEY,
    device  TEXT COLLATE "binary" NOT NULL REFERENCES device (id),
    kind    TEXT NOT NULL,
    hash    TEXT NOT NULL,
    created BIGINT NOT NULL
);
CREATE INDEX credential_device ON credential (device);

CREATE TABLE presence (
    device    TEXT COLLATE "binary" NOT NULL PRIMARY KEY REFERENCES device (id),
    state     TEXT NOT NULL,
    since     BIGINT NOT NULL,
    last_seen BIGINT NOT NULL,
    reason    TEXT NOT NULL
);

CREATE TABLE api_key (
    id      TEXT COLLATE "binary" NOT NULL PRIMARY KEY,
    name    TEXT NOT NULL,
    hash    TEXT NOT NULL,
    scopes  JSONB NOT NULL,
    created BIGINT NOT NULL,
    expires BIGINT NOT NULL
);

CREATE TABLE session (
    id      TEXT COLLATE "binary" NOT NULL PRIMARY KEY,
    hash    TEXT NOT NULL,
    role    TEXT NOT NULL,
    api_key TEXT NOT NULL,
    created BIGINT NOT NULL,
    expires BIGINT NOT NULL
);

CREATE TABLE setting (
    name  TEXT COLLATE "binary" NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);
