-- The catalogue of the Database Backup System, version 1. The set-up runs this; a person may run it by hand:
--   psql --single-transaction --file docs/catalogue.sql "$CATALOG_URL"

CREATE TABLE database_backups (
    id              SERIAL PRIMARY KEY,
    filename        TEXT NOT NULL UNIQUE,
    s3_key          TEXT NOT NULL,
    file_size       BIGINT,                              -- bytes of the stored file
    backup_type     TEXT NOT NULL DEFAULT 'full',
    status          TEXT NOT NULL DEFAULT 'in_progress'
                    CHECK (status IN ('in_progress', 'completed', 'failed', 'expired', 'deleted', 'missing', 'unproved')),
    created_by      TEXT NOT NULL DEFAULT 'system',
    metadata        JSONB NOT NULL DEFAULT '{}',
    created_at      TIMESTAMPTZ NOT NULL DEFAULT now(),
    completed_at    TIMESTAMPTZ,
    plan            TEXT NOT NULL,
    run_id          TEXT NOT NULL,
    plain_size      BIGINT,                              -- bytes of the SQL text
    table_count     INTEGER,
    row_count       BIGINT,
    manifest_sha256 TEXT,                                -- of the manifest's file, as hexadecimal digits
    verified_at     TIMESTAMPTZ,
    suspicious      TEXT NOT NULL DEFAULT '',            -- what shrank against the last good backup
    error           TEXT,
    CHECK (status <> 'completed' OR (completed_at IS NOT NULL AND manifest_sha256 IS NOT NULL AND coalesce(file_size, 0) > 0))
);
CREATE INDEX database_backups_of_plan ON database_backups (plan, status, created_at DESC);

CREATE TABLE backup_events (
    id               BIGSERIAL PRIMARY KEY,
    at               TIMESTAMPTZ NOT NULL DEFAULT now(),
    action           TEXT NOT NULL,                      -- backup, retention, ...
    outcome          TEXT NOT NULL,                      -- completed, failed, ...
    plan             TEXT NOT NULL,
    backup_id        INTEGER,
    filename         TEXT,
    actor            TEXT NOT NULL,
    run_id           TEXT NOT NULL,
    duration_seconds DOUBLE PRECISION,
    bytes            BIGINT,
    error            TEXT,
    details          JSONB NOT NULL DEFAULT '{}'
);
CREATE INDEX backup_events_by_time ON backup_events (at);

CREATE OR REPLACE FUNCTION backup_events_are_append_only() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'backup_events is append-only'; END $$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON backup_events
    FOR EACH STATEMENT EXECUTE FUNCTION backup_events_are_append_only();

COMMENT ON TABLE database_backups IS 'Database Backup System, catalogue version 1';
