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

-- Documents are canonical JSON, numbers as they were written, which JSONB would not keep;
-- they can be cast to JSONB. A device without a row has converged.
CREATE TABLE twin (
    device           TEXT COLLATE "binary" NOT NULL PRIMARY KEY REFERENCES device (id),
    version          BIGINT NOT NULL DEFAULT 0,    -- of effective
    effective        TEXT NOT NULL,                -- the merge of the levels
    desired          TEXT NOT NULL DEFAULT '{}',   -- the device's own level
    desired_version  BIGINT NOT NULL DEFAULT 0,    -- 0 while there never was one
    desired_at       TEXT NOT NULL DEFAULT '',
    reported         TEXT NOT NULL DEFAULT '{}',
    reported_version BIGINT NOT NULL DEFAULT 0,    -- 0 while it never reported
    reported_at      TEXT NOT NULL DEFAULT '',
    converged        BOOLEAN NOT NULL,
    diverged         TEXT NOT NULL,                -- the first 64 paths that differ, as a JSON array
    diverged_count   BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX twin_diverged ON twin (device) WHERE NOT converged;
