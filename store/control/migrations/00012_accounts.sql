-- +goose Up
CREATE TABLE account (
    id         TEXT COLLATE "binary" NOT NULL PRIMARY KEY,
    email      TEXT COLLATE "binary" NOT NULL,
    name       TEXT NOT NULL,
    role       TEXT NOT NULL,
    password   TEXT NOT NULL, -- PHC string, empty for none
    totp       TEXT NOT NULL, -- sealed, empty for none
    totp_step  BIGINT NOT NULL,
    recovery   JSONB NOT NULL, -- hashes
    confirmed  BOOLEAN NOT NULL,
    disabled   BOOLEAN NOT NULL,
    created    BIGINT NOT NULL,
    last_login BIGINT NOT NULL
);
CREATE UNIQUE INDEX account_email ON account (email);

CREATE TABLE account_identity (
    issuer  TEXT COLLATE "binary" NOT NULL,
    subject TEXT COLLATE "binary" NOT NULL,
    account TEXT COLLATE "binary" NOT NULL REFERENCES account (id),
    created BIGINT NOT NULL,
    PRIMARY KEY (issuer, subject)
);
CREATE INDEX account_identity_account ON account_identity (account);

-- The other halves of one-time links.
CREATE TABLE account_token (
    hash    TEXT COLLATE "binary" NOT NULL PRIMARY KEY,
    kind    TEXT NOT NULL,
    account TEXT COLLATE "binary" NOT NULL REFERENCES account (id),
    email   TEXT NOT NULL,
    created BIGINT NOT NULL,
    expires BIGINT NOT NULL
);
CREATE INDEX account_token_account ON account_token (account);

-- An empty account is nobody's: of a key, or the session of the set-up link.
ALTER TABLE session ADD COLUMN account TEXT COLLATE "binary" NOT NULL DEFAULT '';
ALTER TABLE session ADD COLUMN agent TEXT NOT NULL DEFAULT '';
ALTER TABLE session ADD COLUMN address TEXT NOT NULL DEFAULT '';
ALTER TABLE session ADD COLUMN seen BIGINT NOT NULL DEFAULT 0;
CREATE INDEX session_account ON session (account) WHERE account <> '';

ALTER TABLE api_key ADD COLUMN selector TEXT NOT NULL DEFAULT '';
ALTER TABLE api_key ADD COLUMN owner TEXT COLLATE "binary" NOT NULL DEFAULT '';
ALTER TABLE api_key ADD COLUMN last_used BIGINT NOT NULL DEFAULT 0;
