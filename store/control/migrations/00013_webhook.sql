-- +goose Up
CREATE TABLE webhook (
    id          TEXT COLLATE "binary" NOT NULL PRIMARY KEY,
    url         TEXT NOT NULL,
    description TEXT NOT NULL,
    types       JSONB NOT NULL, -- array of strings
    query       TEXT NOT NULL,
    secrets     JSONB NOT NULL, -- array of {sealed, created, ends}, the newest first
    disabled    BOOLEAN NOT NULL,
    reason      TEXT NOT NULL,
    owner       TEXT NOT NULL,
    version     BIGINT NOT NULL,
    created     BIGINT NOT NULL,
    updated     BIGINT NOT NULL
);
