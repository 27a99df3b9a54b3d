-- Times are Unix seconds (REAL) of this database's clock. Hashes are lower-case hexadecimal sha256, except those of secrets (BLOB).

CREATE TABLE account (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    name          TEXT NOT NULL UNIQUE COLLATE NOCASE,
    password_hash TEXT,
    owner         INTEGER NOT NULL CHECK (owner IN (0, 1)),
    created       REAL NOT NULL
) STRICT;
CREATE UNIQUE INDEX account_one_owner ON account (owner) WHERE owner = 1;

CREATE TABLE invitation (
    token_sha256 BLOB PRIMARY KEY,
    created_by   INTEGER NOT NULL REFERENCES account (id),
    created      REAL NOT NULL,
    expires      REAL NOT NULL,
    used_by      INTEGER REFERENCES account (id)
) STRICT;

CREATE TABLE session (
    token_sha256 BLOB PRIMARY KEY,
    account      INTEGER NOT NULL REFERENCES account (id),
    created      REAL NOT NULL,
    expires      REAL NOT NULL
) STRICT;

CREATE TABLE api_key (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    account       INTEGER NOT NULL REFERENCES account (id),
    name          TEXT NOT NULL,
    prefix        TEXT NOT NULL,
    secret_sha256 BLOB NOT NULL UNIQUE,
    created       REAL NOT NULL,
    last_used     REAL,
    revoked       REAL
) STRICT;
CREATE INDEX api_key_prefix ON api_key (prefix);

CREATE TABLE model (
    key              INTEGER PRIMARY KEY AUTOINCREMENT,
    id               TEXT NOT NULL,
    account          INTEGER NOT NULL REFERENCES account (id),
    name             TEXT NOT NULL,
    description      TEXT NOT NULL,
    base_model       TEXT NOT NULL,
    parent           TEXT NOT NULL,
    rank             INTEGER NOT NULL,
    alpha            REAL NOT NULL,
    dropout          REAL NOT NULL,
    temperature      REAL,
    top_p            REAL,
    top_k            INTEGER,
    max_tokens       INTEGER,
    learning_rate    REAL,
    seed             INTEGER NOT NULL,
    revision         INTEGER NOT NULL,
    blob_sha256      TEXT NOT NULL,
    blob_bytes       INTEGER NOT NULL,
    optimizer_sha256 TEXT,
    reference_sha256 TEXT NOT NULL,
    created          REAL NOT NULL,
    last_modified    REAL,
    default_model    INTEGER NOT NULL DEFAULT 0 CHECK (default_model IN (0, 1)),
    deleted_at       REAL
) STRICT;
CREATE UNIQUE INDEX model_live_id ON model (account, id) WHERE deleted_at IS NULL;
CREATE UNIQUE INDEX model_live_name ON model (account, name) WHERE deleted_at IS NULL;
CREATE UNIQUE INDEX model_one_default ON model (account) WHERE default_model = 1 AND deleted_at IS NULL;

-- seq of the queue is the id: ids rise in order of arrival.
CREATE TABLE train (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    model           INTEGER NOT NULL REFERENCES model (key),
    idempotency_key TEXT,
    request_sha256  TEXT NOT NULL,
    request         TEXT,
    if_revision     INTEGER,
    state           TEXT NOT NULL CHECK (state IN ('queued', 'running', 'done', 'failed', 'cancelled')),
    base_revision   INTEGER,
    new_revision    INTEGER,
    fence           INTEGER NOT NULL DEFAULT 0,
    attempts        INTEGER NOT NULL DEFAULT 0,
    lease_owner     TEXT,
    lease_until     REAL,
    answer          TEXT,
    error           TEXT,
    created         REAL NOT NULL,
    ended           REAL
) STRICT;
CREATE UNIQUE INDEX train_one_running ON train (model) WHERE state = 'running';
CREATE INDEX train_queue ON train (model, id) WHERE state IN ('queued', 'running');
-- A failed or cancelled training changed nothing, so its key may be used again.
CREATE UNIQUE INDEX train_idempotency ON train (model, idempotency_key)
    WHERE idempotency_key IS NOT NULL AND state IN ('queued', 'running', 'done');

-- Weights and optimizer of old revisions may have been let go (NULL); the row with its metrics stays.
CREATE TABLE revision (
    model            INTEGER NOT NULL REFERENCES model (key),
    revision         INTEGER NOT NULL,
    train            INTEGER UNIQUE REFERENCES train (id),
    restored_from    INTEGER,
    blob_sha256      TEXT,
    blob_bytes       INTEGER NOT NULL,
    optimizer_sha256 TEXT,
    metrics          TEXT,
    created          REAL NOT NULL,
    PRIMARY KEY (model, revision)
) STRICT;
CREATE INDEX revision_blob ON revision (blob_sha256);
CREATE INDEX revision_optimizer ON revision (optimizer_sha256);

CREATE TABLE sample (
    response_id   TEXT PRIMARY KEY,
    account       INTEGER NOT NULL REFERENCES account (id),
    model         INTEGER,
    base_model    TEXT NOT NULL,
    revision      INTEGER,
    blob_sha256   TEXT,
    prompt_sha256 TEXT NOT NULL,
    tokens        BLOB NOT NULL,
    logprobs      BLOB NOT NULL,
    finish        TEXT NOT NULL,
    text          TEXT NOT NULL,
    expires       REAL NOT NULL
) STRICT;
CREATE INDEX sample_expires ON sample (expires);

-- One row a day and purpose, not one a request: the table grows with use in kind, not with use in number.
CREATE TABLE usage (
    account        INTEGER NOT NULL REFERENCES account (id),
    day            TEXT NOT NULL,
    api_key        INTEGER NOT NULL,
    model          TEXT NOT NULL,
    kind           TEXT NOT NULL,
    requests       INTEGER NOT NULL,
    input_tokens   INTEGER NOT NULL,
    output_tokens  INTEGER NOT NULL,
    trained_tokens INTEGER NOT NULL,
    duration       REAL NOT NULL,
    PRIMARY KEY (account, day, api_key, model, kind)
) STRICT, WITHOUT ROWID;
