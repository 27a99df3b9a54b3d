-- What the web page needs: chats, invitations that can be named, accounts that can be deleted.

ALTER TABLE account ADD COLUMN deleted_at REAL;

-- The same rows with an id, which may be shown, unlike anything that is made from the token.
CREATE TABLE invitation_with_id (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    token_sha256 BLOB NOT NULL UNIQUE,
    created_by   INTEGER NOT NULL REFERENCES account (id),
    created      REAL NOT NULL,
    expires      REAL NOT NULL,
    used_by      INTEGER REFERENCES account (id)
) STRICT;
INSERT INTO invitation_with_id (token_sha256, created_by, created, expires, used_by)
    SELECT token_sha256, created_by, created, expires, used_by FROM invitation ORDER BY created;
DROP TABLE invitation;
ALTER TABLE invitation_with_id RENAME TO invitation;

-- The long columns come last, so that a list reads past none of them.
CREATE TABLE chat (
    id       TEXT PRIMARY KEY,
    account  INTEGER NOT NULL REFERENCES account (id),
    title    TEXT NOT NULL,
    model    TEXT NOT NULL,
    version  INTEGER NOT NULL,
    created  REAL NOT NULL,
    updated  REAL NOT NULL,
    messages INTEGER NOT NULL,
    bytes    INTEGER NOT NULL,
    document TEXT NOT NULL,
    search   TEXT NOT NULL
) STRICT;
CREATE INDEX chat_latest ON chat (account, updated DESC, id DESC);
CREATE INDEX chat_bytes ON chat (account, bytes);
