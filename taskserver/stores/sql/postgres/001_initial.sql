-- Times and durations are microseconds. Text is compared by its bytes ("C"), as SQLite does it.

-- Numbers of logs, which tasks and runs share. A number is never given twice;
-- they may become visible in another order than that in which they were given,
-- so nothing may be read by "log > the last one seen".
CREATE SEQUENCE log_number;

CREATE TABLE task (
    log              bigint PRIMARY KEY,
    id               text COLLATE "C" NOT NULL UNIQUE,
    owner            text COLLATE "C" NOT NULL,
    name             text COLLATE "C" NOT NULL,
    state            text COLLATE "C" NOT NULL,
    last             bigint  NOT NULL,
    code             bigint  NOT NULL,
    error            text    NOT NULL,
    labels           text[] COLLATE "C" NOT NULL, -- each label as JSON, [name, value]: compared as a whole
    created_at       bigint  NOT NULL,
    started_at       bigint,
    finished_at      bigint,
    lease_us         bigint,
    lease_expires_at bigint,
    cancel_requested boolean NOT NULL,
    version          bigint  NOT NULL,
    sealed           boolean NOT NULL DEFAULT false,
    run              uuid,    -- where the task stands in a run, if it belongs to one
    task_id          text COLLATE "C",
    map_index        bigint,
    try_number       bigint,
    result           bytea
) WITH (fillfactor = 60); -- room for the next version of a row on its page: an append then touches no index
CREATE INDEX task_owner ON task (owner, log);
CREATE INDEX task_state ON task (state, log);
-- Not on lease_expires_at, which every append of a producer with a lease changes.
CREATE INDEX task_leased ON task (log) WHERE finished_at IS NULL AND lease_us IS NOT NULL;
CREATE UNIQUE INDEX task_place ON task (run, task_id, map_index, try_number) WHERE run IS NOT NULL;
CREATE INDEX task_unsealed ON task (log) WHERE finished_at IS NOT NULL AND NOT sealed;

CREATE TABLE chunk (
    log     bigint   NOT NULL,
    first   bigint   NOT NULL,
    count   integer  NOT NULL,
    codec   smallint NOT NULL, -- 0: as it is, 1: zstd (payload and side each)
    payload bytea    NOT NULL,
    side    bytea    NOT NULL,
    PRIMARY KEY (log, first)
);
-- PostgreSQL need not try to compress what will be sealed with zstd.
ALTER TABLE chunk ALTER COLUMN payload SET STORAGE EXTERNAL;
ALTER TABLE chunk ALTER COLUMN side SET STORAGE EXTERNAL;

CREATE TABLE api_key (
    id         text COLLATE "C" PRIMARY KEY, -- the first 16 hexadecimal digits of the hash
    name       text COLLATE "C" NOT NULL,
    owner      text COLLATE "C" NOT NULL,
    scopes     text NOT NULL,
    hash       bytea NOT NULL,
    created_at bigint NOT NULL,
    expires_at bigint,
    revoked_at bigint,
    revocation bigint -- numbers the revocations in the order in which they were committed
);
CREATE UNIQUE INDEX api_key_name ON api_key (name) WHERE revoked_at IS NULL;
CREATE INDEX api_key_revocation ON api_key (revocation) WHERE revocation IS NOT NULL;

CREATE TABLE dag (
    dag_id       text COLLATE "C" PRIMARY KEY,
    owner        text COLLATE "C" NOT NULL,
    config_id    uuid NOT NULL UNIQUE,
    display_name text NOT NULL,
    retries      bigint NOT NULL,
    tasks        text NOT NULL, -- JSON: [task_id, result, mapped] each
    created_at   bigint NOT NULL,
    updated_at   bigint NOT NULL
);

CREATE TABLE run (
    log                 bigint PRIMARY KEY,
    id                  uuid NOT NULL UNIQUE,
    owner               text COLLATE "C" NOT NULL,
    dag_id              text COLLATE "C" NOT NULL,
    run_id              text COLLATE "C" NOT NULL,
    state               text COLLATE "C" NOT NULL,
    tasks               text NOT NULL, -- the dag's, when the run was triggered
    conf                bytea NOT NULL,
    retries             bigint NOT NULL,
    queued_at           bigint NOT NULL,
    run_after           bigint NOT NULL,
    display_name        text NOT NULL,
    triggered_by        text NOT NULL,
    metadata            bytea,
    tag                 text COLLATE "C",
    note                text,
    partition_key       text,
    logical_date        bigint,
    data_interval_start bigint,
    data_interval_end   bigint,
    started_at          bigint,
    finished_at         bigint,
    error               text NOT NULL,
    last                bigint NOT NULL,
    attempt             bigint NOT NULL,
    claim               text COLLATE "C",
    lease_us            bigint,
    lease_expires_at    bigint,
    cancel_requested    boolean NOT NULL,
    version             bigint NOT NULL,
    UNIQUE (dag_id, run_id)
) WITH (fillfactor = 60);
CREATE UNIQUE INDEX run_logical_date ON run (dag_id, logical_date) WHERE logical_date IS NOT NULL;
CREATE INDEX run_queue ON run (run_after, log) WHERE state = 'queued';
CREATE INDEX run_tag ON run (tag, log) WHERE tag IS NOT NULL;
CREATE INDEX run_dag ON run (dag_id, log);
CREATE INDEX run_leased ON run (claim) WHERE finished_at IS NULL AND lease_us IS NOT NULL;

-- What the server itself must not forget, such as the secret that signs its tokens.
CREATE TABLE secret (
    name  text COLLATE "C" PRIMARY KEY,
    value bytea NOT NULL
);
