-- +goose Up
CREATE TABLE command (
    id         BIGINT NOT NULL PRIMARY KEY,
    device     TEXT COLLATE "binary" NOT NULL REFERENCES device (id),
    method     TEXT NOT NULL,
    params     TEXT NOT NULL, -- JSON; empty for that of its job
    created    BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    expires    BIGINT NOT NULL,
    state      TEXT NOT NULL,
    attempts   BIGINT NOT NULL DEFAULT 0,
    progress   BIGINT NOT NULL DEFAULT 0,
    result     TEXT NOT NULL DEFAULT '', -- JSON or empty, like those below
    error      TEXT NOT NULL DEFAULT '',
    sent       BIGINT NOT NULL DEFAULT 0,
    delivered  BIGINT NOT NULL DEFAULT 0,
    accepted   BIGINT NOT NULL DEFAULT 0,
    reported   BIGINT NOT NULL DEFAULT 0,
    finished   BIGINT NOT NULL DEFAULT 0, -- 0 while it is open
    late         BIGINT NOT NULL DEFAULT 0,
    late_status  TEXT NOT NULL DEFAULT '',
    late_result  TEXT NOT NULL DEFAULT '',
    late_error   TEXT NOT NULL DEFAULT '',
    job        BIGINT NOT NULL, -- 0 for none
    target     BIGINT NOT NULL, -- its number in the job
    idem_key   TEXT COLLATE "binary" NOT NULL, -- a hash, empty for none
    idem_hash  TEXT NOT NULL
);
CREATE INDEX command_device ON command (device, id);
CREATE INDEX command_open ON command (id) WHERE finished = 0;
CREATE INDEX command_finished ON command (finished) WHERE finished > 0;
CREATE INDEX command_job ON command (job, target) WHERE job > 0;
CREATE UNIQUE INDEX command_key ON command (device, idem_key) WHERE idem_key <> '';

CREATE TABLE job (
    id            BIGINT NOT NULL PRIMARY KEY,
    query         TEXT NOT NULL,
    kind          TEXT NOT NULL,
    method        TEXT NOT NULL,
    params        TEXT NOT NULL,
    ttl           BIGINT NOT NULL, -- seconds
    patch         TEXT NOT NULL,
    ends          TEXT NOT NULL,   -- JSON, of each wave the number after its last target
    rate          BIGINT NOT NULL, -- targets a minute
    max_in_flight BIGINT NOT NULL,
    abort_percent BIGINT NOT NULL,
    abort_min     BIGINT NOT NULL,
    created       BIGINT NOT NULL,
    created_by    TEXT NOT NULL,
    total         BIGINT NOT NULL,
    idem_key      TEXT COLLATE "binary" NOT NULL,
    idem_hash     TEXT NOT NULL,
    phase         TEXT NOT NULL,
    reason        TEXT NOT NULL DEFAULT '',
    wave          BIGINT NOT NULL,
    next          BIGINT NOT NULL DEFAULT 0, -- the first target that was not started
    succeeded     BIGINT NOT NULL DEFAULT 0,
    failed        BIGINT NOT NULL DEFAULT 0,
    expired       BIGINT NOT NULL DEFAULT 0,
    cancelled     BIGINT NOT NULL DEFAULT 0,
    last_start    BIGINT NOT NULL DEFAULT 0,
    ended         BIGINT NOT NULL DEFAULT 0,
    settled       BOOLEAN NOT NULL DEFAULT FALSE
);
CREATE INDEX job_unsettled ON job (id) WHERE NOT settled;
CREATE INDEX job_ended ON job (ended) WHERE settled;
CREATE INDEX job_key ON job (idem_key) WHERE idem_key <> '';

-- Devices that are deleted stay in the jobs that they were in.
CREATE TABLE job_target (
    job     BIGINT NOT NULL REFERENCES job (id),
    number  BIGINT NOT NULL,
    device  TEXT COLLATE "binary" NOT NULL,
    state   TEXT NOT NULL DEFAULT '', -- empty until it is final
    command BIGINT NOT NULL DEFAULT 0,
    error   TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (job, number)
);
CREATE INDEX job_target_state ON job_target (job, state, number) WHERE state <> '';

CREATE TABLE command_counter (
    name  TEXT COLLATE "binary" NOT NULL PRIMARY KEY,
    next  BIGINT NOT NULL,
    token TEXT NOT NULL
);
INSERT INTO command_counter (name, next, token) VALUES ('commands', 1, '');
