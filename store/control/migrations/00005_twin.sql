-- +goose Up
-- The newest version that was given out, which outlives the twin that has it.
CREATE TABLE twin_version (
    last BIGINT NOT NULL
);
INSERT INTO twin_version (last) VALUES (0);

-- Desired documents above the device: fleet, profile:NAME, group:NAME.
CREATE TABLE twin_level (
    name     TEXT COLLATE "binary" NOT NULL PRIMARY KEY,
    document TEXT NOT NULL,
    version  BIGINT NOT NULL,
    at       TEXT NOT NULL -- of each top-level member in order: microseconds, with commas between
);

-- Documents are canonical JSON, numbers as they were written; they can be cast to JSONB.
-- A device without a row has converged.
CREATE TABLE twin (
    device           TEXT COLLATE "binary" NOT NULL PRIMARY KEY REFERENCES device (id),
    version          BIGINT NOT NULL, -- of effective
    effective        TEXT NOT NULL,   -- the merge of the levels
    desired          TEXT NOT NULL,   -- the device's own level; empty when there never was one
    desired_version  BIGINT NOT NULL,
    desired_at       TEXT NOT NULL,
    reported         TEXT NOT NULL,   -- empty when it never reported
    reported_version BIGINT NOT NULL,
    reported_at      TEXT NOT NULL,
    converged        BOOLEAN NOT NULL,
    diverged         TEXT NOT NULL,   -- at most 64 paths, each with a new line before and after it
    diverged_count   BIGINT NOT NULL
);
CREATE INDEX twin_diverged ON twin (device) WHERE NOT converged;
