-- +goose Up
ALTER TABLE credential ADD COLUMN expires BIGINT NOT NULL DEFAULT 0; -- 0 for never
ALTER TABLE credential ADD COLUMN label TEXT NOT NULL DEFAULT '';
ALTER TABLE credential ADD COLUMN last_used BIGINT NOT NULL DEFAULT 0;
ALTER TABLE credential ADD COLUMN ca TEXT COLLATE "binary" NOT NULL DEFAULT ''; -- id of the authority a key came by
ALTER TABLE credential ADD COLUMN revoked BIGINT NOT NULL DEFAULT 0;
CREATE INDEX credential_ca ON credential (ca) WHERE ca <> '';

CREATE TABLE certificate_authority (
    id          TEXT COLLATE "binary" NOT NULL PRIMARY KEY,
    name        TEXT NOT NULL,
    certificate TEXT NOT NULL, -- DER in base64
    profile     TEXT COLLATE "binary" NOT NULL,
    jit         BOOLEAN NOT NULL,
    created     BIGINT NOT NULL
);

CREATE TABLE profile_provisioning (
    profile  TEXT COLLATE "binary" NOT NULL PRIMARY KEY,
    strategy TEXT NOT NULL,
    key      TEXT COLLATE "binary" NOT NULL UNIQUE,
    hash     TEXT NOT NULL,
    created  BIGINT NOT NULL
);

CREATE TABLE claim_code (
    device  TEXT COLLATE "binary" NOT NULL PRIMARY KEY REFERENCES device (id),
    hash    TEXT NOT NULL,
    created BIGINT NOT NULL,
    expires BIGINT NOT NULL
);

CREATE TABLE adoption_key (
    id      TEXT COLLATE "binary" NOT NULL PRIMARY KEY,
    name    TEXT NOT NULL,
    hash    TEXT NOT NULL,
    created BIGINT NOT NULL,
    expires BIGINT NOT NULL -- 0 for never
);

-- Clients that are not to be let into the adoption inbox again.
CREATE TABLE adoption_block (
    hash    TEXT COLLATE "binary" NOT NULL PRIMARY KEY,
    label   TEXT NOT NULL,
    created BIGINT NOT NULL
);
