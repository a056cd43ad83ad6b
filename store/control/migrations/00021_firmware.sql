-- +goose Up

-- The catalogue of firmware. Who decides something about it holds the one row of
-- firmware_policy until the decision is kept, so that decisions come one after the other.
CREATE TABLE firmware_policy (
    id        BIGINT NOT NULL PRIMARY KEY,
    threshold BIGINT NOT NULL, -- 0 until it was set
    revision  BIGINT NOT NULL
);
INSERT INTO firmware_policy (id, threshold, revision) VALUES (1, 0, 1);

CREATE TABLE firmware_key (
    id         TEXT COLLATE "binary" NOT NULL PRIMARY KEY,
    name       TEXT NOT NULL,
    pem        TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created    BIGINT NOT NULL,
    revoked    BIGINT NOT NULL, -- 0 for not, like the other times
    revoked_by TEXT NOT NULL,
    reason     TEXT NOT NULL,
    revision   BIGINT NOT NULL
);

CREATE TABLE firmware_artifact (
    sha256     TEXT COLLATE "binary" NOT NULL PRIMARY KEY,
    number     BIGINT NOT NULL UNIQUE,
    sha1       TEXT NOT NULL,
    md5        TEXT NOT NULL,
    size       BIGINT NOT NULL,
    filename   TEXT NOT NULL,
    image      TEXT NOT NULL, -- JSON
    created_by TEXT NOT NULL,
    created    BIGINT NOT NULL
);
INSERT INTO counter (name, value) VALUES ('artifact', 0);

CREATE TABLE firmware_release (
    id           TEXT COLLATE "binary" NOT NULL PRIMARY KEY,
    number       BIGINT NOT NULL UNIQUE,
    product      TEXT COLLATE "binary" NOT NULL,
    version      TEXT COLLATE "binary" NOT NULL,
    channel      TEXT NOT NULL,
    state        TEXT COLLATE "binary" NOT NULL,
    manifest     TEXT NOT NULL, -- to the byte what is signed
    signatures   TEXT NOT NULL, -- JSON
    notes        TEXT NOT NULL,
    reason       TEXT NOT NULL,
    created_by   TEXT NOT NULL,
    published_by TEXT NOT NULL,
    ended_by     TEXT NOT NULL,
    created      BIGINT NOT NULL,
    published    BIGINT NOT NULL,
    ended        BIGINT NOT NULL,
    revision     BIGINT NOT NULL
);
CREATE INDEX firmware_release_version ON firmware_release (product, version);
INSERT INTO counter (name, value) VALUES ('release', 0);

-- The images that releases name, whether they are there or not.
CREATE TABLE firmware_file (
    sha256  TEXT COLLATE "binary" NOT NULL,
    release TEXT COLLATE "binary" NOT NULL,
    PRIMARY KEY (sha256, release)
);
CREATE INDEX firmware_file_release ON firmware_file (release);

-- Whether a release may go is asked by it.
CREATE INDEX rollout_release ON rollout (release);
CREATE INDEX rollout_rollback ON rollout (rollback);
