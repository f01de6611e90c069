-- Applied once, at the collector's next start. Do not change this file after that: put later changes into 002_….sql.

CREATE TABLE messages(
    id INTEGER PRIMARY KEY,         -- in the order of the stream
    username TEXT NOT NULL CHECK (username <> ''),
    message TEXT NOT NULL,
    timestamp ANY NOT NULL          -- as the bot sent it: seconds since 1970 or text; if it cannot be read, the time of the stream
) STRICT;

-- For the last message of a user.
CREATE INDEX messages_of_user ON messages(username);

CREATE TABLE users(
    username TEXT PRIMARY KEY NOT NULL CHECK (username <> ''),
    lines INTEGER NOT NULL DEFAULT 0,
    joins INTEGER NOT NULL DEFAULT 0,
    present INTEGER NOT NULL DEFAULT false,
    first_seen INTEGER NOT NULL,    -- seconds since 1970
    last_seen INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
