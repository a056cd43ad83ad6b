-- +goose Up

-- Rollouts. What a transaction must know at once is in one row, which it locks: the counts of
-- the phases, the free slots, the rate, the lease.
CREATE TABLE rollout (
    id         TEXT COLLATE "binary" NOT NULL PRIMARY KEY,
    number     BIGINT NOT NULL UNIQUE,
    name       TEXT NOT NULL,
    release    TEXT COLLATE "binary" NOT NULL,
    rollback   TEXT COLLATE "binary" NOT NULL,
    query      TEXT NOT NULL,
    membership TEXT NOT NULL,
    seed       TEXT NOT NULL,
    plan       TEXT NOT NULL,
    status     TEXT NOT NULL,
    reason     TEXT NOT NULL,
    start_at   BIGINT NOT NULL,
    phase      BIGINT NOT NULL,
    phase_at   BIGINT NOT NULL,
    passed     BIGINT NOT NULL,
    waiting    BOOLEAN NOT NULL,
    counts     TEXT NOT NULL,
    upto       TEXT NOT NULL,
    tokens     TEXT NOT NULL,
    unended    BIGINT NOT NULL, -- devices that have not ended
    owner      TEXT NOT NULL,
    epoch      BIGINT NOT NULL,
    expires    BIGINT NOT NULL,
    version    BIGINT NOT NULL,
    log        BIGINT NOT NULL  -- rows of rollout_log
);
CREATE INDEX rollout_open ON rollout (number) WHERE status NOT IN ('completed', 'aborted') OR unended > 0;
INSERT INTO counter (name, value) VALUES ('rollout', 0);

-- A rank is shifted by 2^63, so that its order is that of a signed number.
CREATE TABLE rollout_device (
    rollout  TEXT COLLATE "binary" NOT NULL,
    device   TEXT COLLATE "binary" NOT NULL,
    rank     BIGINT NOT NULL,
    phase    BIGINT NOT NULL,
    state    TEXT COLLATE "binary" NOT NULL,
    reason   TEXT NOT NULL,
    detail   TEXT NOT NULL,
    action   BIGINT NOT NULL,
    attempt  BIGINT NOT NULL,
    failures BIGINT NOT NULL,
    seq      BIGINT NOT NULL,
    failing  BOOLEAN NOT NULL,
    repeats  BIGINT NOT NULL,
    progress BIGINT NOT NULL,
    came     TEXT NOT NULL, -- version that it had when it was offered the release
    due      BIGINT NOT NULL,
    deadline BIGINT NOT NULL,
    soaking  BOOLEAN NOT NULL,
    updated  BIGINT NOT NULL,
    PRIMARY KEY (rollout, device)
);
CREATE INDEX rollout_device_due ON rollout_device (rollout, phase, due, rank) WHERE state = 'queued';
CREATE INDEX rollout_device_deadline ON rollout_device (rollout, deadline) WHERE deadline > 0;
CREATE INDEX rollout_device_flight ON rollout_device (device) WHERE state IN ('offered', 'downloading', 'downloaded', 'installing', 'rebooting');
CREATE INDEX rollout_device_state ON rollout_device (rollout, state);

-- Exactly one row for each change of a device's state, numbered in the order of commits.
CREATE TABLE rollout_log (
    rollout TEXT COLLATE "binary" NOT NULL,
    number  BIGINT NOT NULL,
    device  TEXT COLLATE "binary" NOT NULL,
    action  BIGINT NOT NULL,
    attempt BIGINT NOT NULL,
    event   TEXT NOT NULL,
    before  TEXT NOT NULL,
    after   TEXT NOT NULL,
    reason  TEXT NOT NULL,
    detail  TEXT NOT NULL,
    at      BIGINT NOT NULL,
    PRIMARY KEY (rollout, number)
);
CREATE INDEX rollout_log_device ON rollout_log (device, rollout, number);
