-- The tables of the first version.
CREATE TABLE catchment_meta(
    key TEXT PRIMARY KEY,
    value ANY NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE catchment_ledger(
    stream TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    created TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    published_ns INTEGER NOT NULL,
    PRIMARY KEY(stream, epoch)
) STRICT, WITHOUT ROWID;

CREATE TABLE catchment_dead_letters(
    id INTEGER PRIMARY KEY,
    stream TEXT,
    epoch INTEGER,
    sequence INTEGER,
    published_us INTEGER NOT NULL,
    subject TEXT NOT NULL,
    headers ANY,
    payload ANY NOT NULL,
    route TEXT,
    statement TEXT,
    error TEXT NOT NULL,
    recorded_us INTEGER NOT NULL
) STRICT;

CREATE TABLE IF NOT EXISTS events(
    id INTEGER PRIMARY KEY,
    subject TEXT NOT NULL,
    stream TEXT,
    sequence INTEGER,
    published_us INTEGER NOT NULL,
    headers TEXT,
    payload ANY NOT NULL
) STRICT;

INSERT INTO catchment_meta(key, value) VALUES ('version', 1), ('identity', lower(hex(randomblob(8))));
