-- +goose Up

-- What each version of a plan said, and from when on: a period is closed by what held when it ended, whoever closes it and
-- whenever. A version holds until the next one's valid_from. Rows are never changed.
CREATE TABLE plan_versions (
    plan_name  text NOT NULL REFERENCES user_plan_limits (name),
    version    bigint NOT NULL,
    valid_from timestamptz NOT NULL,
    -- The plan's whole row, so that a new column needs nothing here.
    definition jsonb NOT NULL,
    PRIMARY KEY (plan_name, version)
);

-- +goose StatementBegin
-- A trigger, so that the release before this one writes versions too. A version holds from a second after it was written: by
-- then its transaction has committed, so that whoever closes a period that ends after valid_from sees the version, and whoever
-- closes one that ended before does not take it, seen or not.
CREATE FUNCTION keep_plan_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO plan_versions (plan_name, version, valid_from, definition)
    VALUES (NEW.name, NEW.version, NEW.updated_at + interval '1 second', to_jsonb(NEW))
    ON CONFLICT (plan_name, version) DO NOTHING;
    RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER user_plan_limits_version AFTER INSERT OR UPDATE ON user_plan_limits FOR EACH ROW EXECUTE FUNCTION keep_plan_version();

INSERT INTO plan_versions (plan_name, version, valid_from, definition) SELECT name, version, updated_at, to_jsonb(p) FROM user_plan_limits AS p;

-- What late work beyond the credits of a closed period costs; NULL where it was closed without writing it down.
ALTER TABLE usage_periods ADD COLUMN overage_price_micros bigint CHECK (overage_price_micros >= 0);

-- Whose lots and period pay. NULL means the user.
ALTER TABLE usage_tracking ADD COLUMN payer_id uuid;
ALTER TABLE concurrent_processing ADD COLUMN payer_id uuid;

-- +goose Down
ALTER TABLE concurrent_processing DROP COLUMN payer_id;
ALTER TABLE usage_tracking DROP COLUMN payer_id;
ALTER TABLE usage_periods DROP COLUMN overage_price_micros;
DROP TRIGGER user_plan_limits_version ON user_plan_limits;
DROP FUNCTION keep_plan_version();
DROP TABLE plan_versions;
