-- Times and durations are microseconds.

-- The last number given to a log. Tasks and runs share it: a log's chunks
-- do not care whose lines they hold.
CREATE TABLE counter (
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO counter VALUES ('log', 0);

CREATE TABLE task (
    log              INTEGER PRIMARY KEY,
    id               TEXT    NOT NULL UNIQUE,
    owner            TEXT    NOT NULL,
    name             TEXT    NOT NULL,
    state            TEXT    NOT NULL,
    last             INTEGER NOT NULL DEFAULT 0, -- of a live task the newest chunk tells it
    code             INTEGER NOT NULL DEFAULT 0,
    error            TEXT    NOT NULL DEFAULT '',
    labels           TEXT    NOT NULL DEFAULT '{}',
    created_at       INTEGER NOT NULL,
    started_at       INTEGER,
    finished_at      INTEGER,
    lease_us         INTEGER,
    lease_expires_at INTEGER,
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    version          INTEGER NOT NULL DEFAULT 0, -- grows with each change of the row
    sealed           INTEGER NOT NULL DEFAULT 0,
    run              TEXT,    -- where the task stands in a run, if it belongs to one
    task_id          TEXT,
    map_index        INTEGER,
    try_number       INTEGER,
    result           BLOB     -- last: a list that leaves it out need not read its pages
);
CREATE INDEX task_owner ON task (owner, log);
CREATE INDEX task_state ON task (state, log);
CREATE INDEX task_lease ON task (lease_expires_at) WHERE lease_expires_at IS NOT NULL;
CREATE UNIQUE INDEX task_place ON task (run, task_id, map_index, try_number) WHERE run IS NOT NULL;
CREATE INDEX task_unsealed ON task (log) WHERE finished_at IS NOT NULL AND sealed = 0;

-- key = log << 32 | first: one tree keeps a log's chunks together and in order,
-- where a (log, first) index beside the rows would cost an append a second tree.
CREATE TABLE chunk (
    key     INTEGER PRIMARY KEY,
    log     INTEGER GENERATED ALWAYS AS (key >> 32) VIRTUAL,
    first   INTEGER GENERATED ALWAYS AS (key & 4294967295) VIRTUAL,
    count   INTEGER NOT NULL,
    codec   INTEGER NOT NULL, -- 0: as it is, 1: zstd (payload and side each), 2: the same with a bare payload
    payload BLOB    NOT NULL,
    side    BLOB    NOT NULL
);

CREATE TABLE api_key (
    id         TEXT PRIMARY KEY, -- the first 16 hexadecimal digits of the hash
    name       TEXT NOT NULL,
    owner      TEXT NOT NULL,
    scopes     TEXT NOT NULL,
    hash       BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    revoked_at INTEGER
);
CREATE UNIQUE INDEX api_key_name ON api_key (name) WHERE revoked_at IS NULL;
