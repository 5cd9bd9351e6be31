-- A file of schema version 1 as sqlite3's dump gives it; PRAGMA lines come from its header.
PRAGMA application_id = 1129726552;
PRAGMA user_version = 1;
BEGIN TRANSACTION;
CREATE TABLE document_history (
    seq INTEGER PRIMARY KEY,
    tablet INTEGER NOT NULL,
    id BLOB NOT NULL,
    from_ts INTEGER NOT NULL,
    to_ts INTEGER NOT NULL,
    json BLOB NOT NULL,
    UNIQUE (tablet, id, from_ts)
);
INSERT INTO "document_history" VALUES(1,1,X'61616161616161616161616161616161',1,3,X'7B226E223A317D');
INSERT INTO "document_history" VALUES(2,1,X'62626262626262626262626262626262',2,4,X'7B226E223A327D');
CREATE TABLE documents (
    slot INTEGER PRIMARY KEY AUTOINCREMENT,
    tablet INTEGER NOT NULL,
    id BLOB NOT NULL,
    ts INTEGER NOT NULL,
    json BLOB NOT NULL,
    UNIQUE (tablet, id)
);
INSERT INTO "documents" VALUES(1,1,X'61616161616161616161616161616161',3,X'7B226E223A337D');
CREATE TABLE index_entries (
    index_id INTEGER NOT NULL,
    key BLOB NOT NULL,
    slot INTEGER NOT NULL,
    ts INTEGER NOT NULL,
    PRIMARY KEY (index_id, key)
) WITHOUT ROWID;
INSERT INTO "index_entries" VALUES(7,X'6133',1,3);
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
INSERT INTO "index_history" VALUES(1,7,X'6131',1,3,1,X'61616161616161616161616161616161');
INSERT INTO "index_history" VALUES(2,7,X'6231',2,4,1,X'62626262626262626262626262626262');
CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value BLOB NOT NULL
) WITHOUT ROWID;
INSERT INTO "meta" VALUES('last_ts',X'34');
INSERT INTO "meta" VALUES('name',X'78');
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
INSERT INTO "mutation_results" VALUES(1,'s',1,3,10,2,X'72');
CREATE INDEX mutation_results_by_age ON mutation_results (created);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('documents',2);
COMMIT;
