-- +goose Up

-- What people at a device want, where they are asked before it installs.
CREATE TABLE firmware_consent (
    device    TEXT COLLATE "binary" NOT NULL PRIMARY KEY,
    action    BIGINT NOT NULL,
    auto      BOOLEAN NOT NULL,
    initiator TEXT NOT NULL,
    remark    TEXT NOT NULL,
    since     BIGINT NOT NULL
);
