-- +goose Up
-- Deleted devices whose telemetry is to be deleted.
CREATE TABLE erasure (
    device TEXT COLLATE "binary" NOT NULL PRIMARY KEY,
    since  BIGINT NOT NULL
);
