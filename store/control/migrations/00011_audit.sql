-- +goose Up
-- Who changed what, in the order of commits.
CREATE TABLE audit (
    seq        BIGINT NOT NULL PRIMARY KEY,
    at         BIGINT NOT NULL,
    actor_kind TEXT NOT NULL,
    actor      TEXT COLLATE "binary" NOT NULL,
    actor_name TEXT NOT NULL,
    address    TEXT NOT NULL,
    request    TEXT NOT NULL,
    action     TEXT NOT NULL,
    object     TEXT COLLATE "binary" NOT NULL,
    before     TEXT NOT NULL, -- JSON as it was hashed: JSONB would spell it anew
    after      TEXT NOT NULL
);
CREATE INDEX audit_object ON audit (object, seq);
CREATE INDEX audit_actor ON audit (actor, seq);

-- The hash of each run of records, over the one before it: at most one a second.
CREATE TABLE audit_seal (
    last  BIGINT NOT NULL PRIMARY KEY, -- the run's last record
    first BIGINT NOT NULL,
    at    BIGINT NOT NULL,
    hash  TEXT NOT NULL
);

-- What happened, for third parties.
CREATE TABLE feed (
    seq    BIGINT NOT NULL PRIMARY KEY,
    at     BIGINT NOT NULL,
    type   TEXT NOT NULL,
    device TEXT COLLATE "binary" NOT NULL,
    data   TEXT NOT NULL
);

-- The last numbers that were given. A transaction changes its row last, right before
-- it commits, so that numbers are in the order of commits and without a gap.
CREATE TABLE counter (
    name  TEXT NOT NULL PRIMARY KEY,
    value BIGINT NOT NULL
);
INSERT INTO counter (name, value) VALUES ('audit', 0), ('feed', 0), ('seal', 0);
