-- +goose Up

-- Work that was done on an offline ticket while the database could not be reached. The release before writes no such row.
ALTER TABLE concurrent_processing ADD COLUMN offline boolean NOT NULL DEFAULT false;

-- +goose Down
ALTER TABLE concurrent_processing DROP COLUMN offline;
