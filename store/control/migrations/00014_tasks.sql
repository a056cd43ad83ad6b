-- +goose Up
CREATE TABLE task (
    id          TEXT COLLATE "binary" NOT NULL PRIMARY KEY, -- ids sort by age
    kind        TEXT COLLATE "binary" NOT NULL,
    state       TEXT COLLATE "binary" NOT NULL,
    owner_kind  TEXT COLLATE "binary" NOT NULL,
    owner       TEXT COLLATE "binary" NOT NULL,
    owner_name  TEXT COLLATE "binary" NOT NULL,
    input       TEXT NOT NULL, -- JSON
    created     BIGINT NOT NULL,
    started     BIGINT NOT NULL, -- 0 for not yet, like the other times
    ended       BIGINT NOT NULL,
    expires     BIGINT NOT NULL,
    note        TEXT NOT NULL,
    attempts    BIGINT NOT NULL,
    cancelled   BOOLEAN NOT NULL,
    code        TEXT NOT NULL,
    error       TEXT NOT NULL,
    result_type TEXT NOT NULL, -- empty for no result
    result_size BIGINT NOT NULL,
    -- The last step that was kept, with what it did: see tasks.Step.
    checkpoint  TEXT NOT NULL DEFAULT '', -- JSON, empty for none
    size        BIGINT NOT NULL DEFAULT 0,
    done        BIGINT NOT NULL DEFAULT 0,
    total       BIGINT NOT NULL DEFAULT 0
);
