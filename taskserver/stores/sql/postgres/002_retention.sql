-- Logs of deleted tasks and runs. Nobody reads them any more; their chunks are
-- removed in portions, afterwards.
CREATE TABLE discarded (
    log bigint PRIMARY KEY,
    run uuid -- the deleted run of that log, if tasks of it are still to be removed
);

CREATE INDEX task_ended ON task (finished_at) WHERE finished_at IS NOT NULL AND run IS NULL;
CREATE INDEX run_ended ON run (finished_at) WHERE finished_at IS NOT NULL;

-- Has a row while `taskserver copy` fills this database: a fingerprint of where from.
CREATE TABLE copying (
    source bytea NOT NULL
);
