-- Applied once, at the collector's next start. Do not change this file after that: put later changes into 002_….sql.

CREATE TABLE readings(
    id INTEGER PRIMARY KEY,
    device TEXT NOT NULL,
    metric TEXT NOT NULL,
    at REAL NOT NULL,               -- seconds since 1970
    value ANY NOT NULL,             -- as it was sent: a number, text, or true and false as 1 and 0
    unit TEXT
) STRICT;

CREATE INDEX readings_by_time ON readings(device, metric, at);

CREATE TABLE latest(
    device TEXT NOT NULL,
    metric TEXT NOT NULL,
    at REAL NOT NULL,
    value ANY NOT NULL,
    unit TEXT,
    PRIMARY KEY(device, metric)
) STRICT, WITHOUT ROWID;
