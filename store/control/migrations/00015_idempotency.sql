-- +goose Up
-- Requests with an Idempotency-Key that were done, and what they were answered.
CREATE TABLE idempotency (
    principal TEXT NOT NULL,
    name      TEXT NOT NULL, -- of method, path and key
    print     TEXT NOT NULL, -- of all else
    at        BIGINT NOT NULL,
    answer    TEXT NOT NULL, -- sealed, in base64; empty when none is kept
    PRIMARY KEY (principal, name)
);
CREATE INDEX idempotency_at ON idempotency (at);
