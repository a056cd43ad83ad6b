-- +goose Up

-- Rollbacks from before rollouts said whether they bring devices an older version: they do.
UPDATE rollout SET record = '{"downgrade":true,' || substr(record, 2) WHERE record LIKE '{"of":%';
