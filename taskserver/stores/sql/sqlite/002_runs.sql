CREATE TABLE dag (
    dag_id       TEXT PRIMARY KEY,
    owner        TEXT NOT NULL,
    config_id    TEXT NOT NULL UNIQUE,
    display_name TEXT NOT NULL,
    retries      INTEGER NOT NULL,
    tasks        TEXT NOT NULL, -- JSON: [task_id, result, mapped] each
    created_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL
);

CREATE TABLE run (
    log                 INTEGER PRIMARY KEY,
    id                  TEXT NOT NULL UNIQUE,
    owner               TEXT NOT NULL,
    dag_id              TEXT NOT NULL,
    run_id              TEXT NOT NULL,
    state               TEXT NOT NULL,
    tasks               TEXT NOT NULL, -- the dag's, when the run was triggered
    conf                BLOB NOT NULL,
    retries             INTEGER NOT NULL,
    queued_at           INTEGER NOT NULL,
    run_after           INTEGER NOT NULL,
    display_name        TEXT NOT NULL,
    triggered_by        TEXT NOT NULL,
    metadata            BLOB,
    tag                 TEXT,
    note                TEXT,
    partition_key       TEXT,
    logical_date        INTEGER,
    data_interval_start INTEGER,
    data_interval_end   INTEGER,
    started_at          INTEGER,
    finished_at         INTEGER,
    error               TEXT NOT NULL DEFAULT '',
    last                INTEGER NOT NULL DEFAULT 0,
    attempt             INTEGER NOT NULL DEFAULT 0,
    claim               TEXT,
    lease_us            INTEGER,
    lease_expires_at    INTEGER,
    cancel_requested    INTEGER NOT NULL DEFAULT 0,
    version             INTEGER NOT NULL DEFAULT 0,
    UNIQUE (dag_id, run_id)
);
CREATE UNIQUE INDEX run_logical_date ON run (dag_id, logical_date) WHERE logical_date IS NOT NULL;
CREATE INDEX run_queue ON run (run_after, log) WHERE state = 'queued';
CREATE INDEX run_tag ON run (tag, log) WHERE tag IS NOT NULL;
CREATE INDEX run_dag ON run (dag_id, log);
CREATE INDEX run_claim ON run (claim) WHERE lease_expires_at IS NOT NULL;
CREATE INDEX run_lease ON run (lease_expires_at) WHERE lease_expires_at IS NOT NULL;

-- What the server itself must not forget, such as the secret that signs its tokens.
CREATE TABLE secret (
    name  TEXT PRIMARY KEY,
    value BLOB NOT NULL
) WITHOUT ROWID;
