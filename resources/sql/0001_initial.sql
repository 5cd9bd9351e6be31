-- Rows are keyed by internal identities: tablet and index numbers, 16-byte document ids (docs/internals.md section 2).
-- Current rows and history are apart, so that a read of the present never steps over the past (A1).

-- A table of its own row numbers, not WITHOUT ROWID: documents above a quarter page would spill to overflow pages there
-- (measured with 1.5 kB documents: three times slower to read, half as fast to write).
-- Slots are never used twice: an entry of a dropped index may outlive its document, and must not point at another.
CREATE TABLE documents (
    slot INTEGER PRIMARY KEY AUTOINCREMENT,
    tablet INTEGER NOT NULL,
    id BLOB NOT NULL,
    ts INTEGER NOT NULL,
    json BLOB NOT NULL,
    UNIQUE (tablet, id)
);

-- An entry points at its document by slot: one lookup a row (measured: half the time of a join by tablet and id). An update
-- that leaves the keys as they are does not touch this table. ts is the commit that added the entry.
CREATE TABLE index_entries (
    index_id INTEGER NOT NULL,
    key BLOB NOT NULL,
    slot INTEGER NOT NULL,
    ts INTEGER NOT NULL,
    PRIMARY KEY (index_id, key)
) WITHOUT ROWID;

-- Superseded versions, valid in [from_ts, to_ts). seq ascends with to_ts, because rows are appended in commit order: pruning
-- takes the front of the table and needs no index on to_ts.
CREATE TABLE document_history (
    seq INTEGER PRIMARY KEY,
    tablet INTEGER NOT NULL,
    id BLOB NOT NULL,
    from_ts INTEGER NOT NULL,
    to_ts INTEGER NOT NULL,
    json BLOB NOT NULL,
    UNIQUE (tablet, id, from_ts)
);

CREATE TABLE index_history (
    seq INTEGER PRIMARY KEY,
    index_id INTEGER NOT NULL,
    key BLOB NOT NULL,
    from_ts INTEGER NOT NULL,
    to_ts INTEGER NOT NULL,
    tablet INTEGER NOT NULL,
    id BLOB NOT NULL,
    UNIQUE (index_id, key, from_ts)
);

-- The exactly-once ledger (A9). created is wall-clock milliseconds, bytes what the row counts against the ledger's bound.
CREATE TABLE mutation_results (
    seq INTEGER PRIMARY KEY,
    session TEXT NOT NULL,
    request INTEGER NOT NULL,
    ts INTEGER NOT NULL,
    created INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    result BLOB NOT NULL,
    UNIQUE (session, request)
);
CREATE INDEX mutation_results_by_age ON mutation_results (created);

CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value BLOB NOT NULL
) WITHOUT ROWID;
INSERT INTO meta (key, value) VALUES ('last_ts', X'30');
