//! Compares routes with the same inserts written by hand: the cost of SQL that comes from a configuration.
//!
//! Both use payloads in memory, write the same rows with the same statements and PRAGMAs, and commit as many at a time. By hand, a
//! payload is read into a struct with derived serde. The time of the routes includes the ledger entry, and reading and binding
//! the parameters of the statements. It does not include making the batch, which the intake does. Runs alternate, and each
//! ratio is of two adjacent runs.
#![allow(clippy::cast_precision_loss, reason = "counts become figures")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use catchment::config::{Codec, DatabaseConfig, RouteConfig, Synchronous, Unmatched};
use catchment::unversioned::pipeline::{Batch, Epoch, Limits, Mark, Sink};
use catchment::unversioned::store::{Database, Editor, Routes};
use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};

const RUNS: usize = 11;
const EVENTS: usize = 200_000;
const BATCH: usize = 1_000;

const TABLES: &str = "
    CREATE TABLE lines(id INTEGER PRIMARY KEY, username TEXT NOT NULL, message TEXT NOT NULL, timestamp INTEGER) STRICT;
    CREATE TABLE users(username TEXT PRIMARY KEY, lines INTEGER, last INTEGER) STRICT;
    CREATE TABLE moves(id INTEGER PRIMARY KEY, username TEXT, x REAL, y REAL, city TEXT, on_foot INTEGER, tags TEXT) STRICT;
";
const ADD_LINE: &str = "INSERT INTO lines(username, message, timestamp) VALUES (:username, :message, :timestamp)";
const COUNT_LINE: &str = "INSERT INTO users(username, lines, last) VALUES (:username, 1, :timestamp)
                          ON CONFLICT(username) DO UPDATE SET lines = lines + 1, last = excluded.last";
const ADD_MOVE: &str =
    "INSERT INTO moves(username, x, y, city, on_foot, tags) VALUES (:username, :x, :y, :city, :on_foot, :tags)";

#[derive(Serialize, Deserialize)]
struct Line {
    username: String,
    message: String,
    timestamp: i64,
    channel: String,
    subscriber: bool,
}

#[derive(Serialize, Deserialize)]
struct Move {
    username: String,
    at: At,
    on_foot: bool,
    tags: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct At {
    x: f64,
    y: f64,
    city: Option<String>,
}

/// What is compared.
struct Case {
    name: &'static str,
    sql: &'static [&'static str],
    bind: &'static [(&'static str, &'static str)],
    codec: Codec,
    payload: fn(usize) -> Vec<u8>,
    by_hand: fn(&Connection, &[Vec<u8>]),
}

fn main() {
    let cases = [
        Case {
            name: "JSON, one insert",
            sql: &[ADD_LINE],
            bind: &[],
            codec: Codec::Json,
            payload: |n| serde_json::to_vec(&line(n)).expect("JSON"),
            by_hand: |connection, payloads| {
                let mut add_line = connection.prepare_cached(ADD_LINE).expect("SQL");
                for payload in payloads {
                    let line: Line = serde_json::from_slice(payload).expect("a line");
                    add_line.execute(params![line.username, line.message, line.timestamp]).expect("stored");
                }
            },
        },
        Case {
            name: "JSON, insert, upsert",
            sql: &[ADD_LINE, COUNT_LINE],
            bind: &[],
            codec: Codec::Json,
            payload: |n| serde_json::to_vec(&line(n)).expect("JSON"),
            by_hand: |connection, payloads| {
                let mut add_line = connection.prepare_cached(ADD_LINE).expect("SQL");
                let mut count_line = connection.prepare_cached(COUNT_LINE).expect("SQL");
                for payload in payloads {
                    let line: Line = serde_json::from_slice(payload).expect("a line");
                    add_line.execute(params![line.username, line.message, line.timestamp]).expect("stored");
                    count_line.execute(params![line.username, line.timestamp]).expect("counted");
                }
            },
        },
        Case {
            name: "JSON, nested",
            sql: &[ADD_MOVE],
            bind: &[("x", "/at/x"), ("y", "/at/y"), ("city", "/at/city")],
            codec: Codec::Json,
            payload: |n| serde_json::to_vec(&movement(n)).expect("JSON"),
            by_hand: |connection, payloads| {
                let mut add_move = connection.prepare_cached(ADD_MOVE).expect("SQL");
                for payload in payloads {
                    let Move { username, at, on_foot, tags } = serde_json::from_slice(payload).expect("a move");
                    let tags = serde_json::to_string(&tags).expect("JSON");
                    add_move.execute(params![username, at.x, at.y, at.city, on_foot, tags]).expect("stored");
                }
            },
        },
        Case {
            name: "MessagePack, one insert",
            sql: &[ADD_LINE],
            bind: &[],
            codec: Codec::Messagepack,
            payload: |n| rmp_serde::to_vec_named(&line(n)).expect("MessagePack"),
            by_hand: |connection, payloads| {
                let mut add_line = connection.prepare_cached(ADD_LINE).expect("SQL");
                for payload in payloads {
                    let line: Line = rmp_serde::from_slice(payload).expect("a line");
                    add_line.execute(params![line.username, line.message, line.timestamp]).expect("stored");
                }
            },
        },
    ];
    println!(
        "routes against inserts by hand, {RUNS} pairs each, transactions of {BATCH}; medians (lowest to highest)\n"
    );
    println!("{:24} {:>34} {:>34} {:>24}", "", "route, events/s", "by hand, events/s", "time, route / by hand");
    for case in cases {
        let payloads: Vec<Vec<u8>> = (0..EVENTS).map(case.payload).collect();
        let (mut routed, mut by_hand, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for run in 0..=RUNS {
            // The order alternates from pair to pair.
            let (with, without) = if run % 2 == 0 {
                let with = case.route(&payloads);
                (with, case.by_hand(&payloads))
            } else {
                let without = case.by_hand(&payloads);
                (case.route(&payloads), without)
            };
            // The first pair warms up.
            if run > 0 {
                routed.push(EVENTS as f64 / with.as_secs_f64());
                by_hand.push(EVENTS as f64 / without.as_secs_f64());
                ratios.push(with.as_secs_f64() / without.as_secs_f64());
            }
        }
        let (routed, by_hand, ratios) = (spread(routed, 0), spread(by_hand, 0), spread(ratios, 3));
        println!("{:24} {routed:>34} {by_hand:>34} {ratios:>24}", case.name);
    }
}

fn spread(mut values: Vec<f64>, digits: usize) -> String {
    values.sort_by(f64::total_cmp);
    let (median, least, most) = (values[values.len() / 2], values[0], values[values.len() - 1]);
    format!("{median:.digits$} ({least:.digits$} to {most:.digits$})")
}

fn line(n: usize) -> Line {
    Line {
        username: format!("somebody_{}", n % 500),
        message: "a line that somebody said in a channel of a game".into(),
        timestamp: 1_790_000_000_000 + i64::try_from(n).expect("small"),
        channel: "general".into(),
        subscriber: n.is_multiple_of(3),
    }
}

fn movement(n: usize) -> Move {
    let city = (!n.is_multiple_of(4)).then(|| "Bremen".to_owned());
    let at = At { x: n as f64 / 7.0, y: n as f64 / 11.0, city };
    Move {
        username: format!("somebody_{}", n % 500),
        at,
        on_foot: n.is_multiple_of(2),
        tags: vec!["new".into(), "slow".into()],
    }
}

impl Case {
    /// A database with the tables.
    fn database(folder: &Path) -> DatabaseConfig {
        let path = folder.join("a.db");
        Editor::open(&path).and_then(|editor| editor.run(TABLES)).expect("tables");
        let mut config = DatabaseConfig::default();
        config.path = path;
        config.synchronous = Synchronous::Normal;
        config
    }

    fn routes(&self) -> Routes {
        let mut route = RouteConfig::new("bench.>", self.sql.iter().copied());
        let bind = self.bind.iter().map(|(name, pointer)| (name.to_string(), pointer.to_string()));
        route.bind = bind.collect();
        route.codec = Some(self.codec);
        Routes::new(&[route], Unmatched::Store).expect("a route")
    }

    fn route(&self, payloads: &[Vec<u8>]) -> Duration {
        let folder = folder();
        let database = Self::database(folder.path());
        let mut writer = Database::open(&database, &self.routes()).expect("opens").writers().remove(0);
        let epoch = Arc::new(Epoch::new("BENCH", 1, ""));
        let mut batch = Batch::new(Limits { events: BATCH, bytes: 1 << 20 });
        let (mut mark, mut taken) = (Mark::START, Duration::ZERO);
        for payloads in payloads.chunks(BATCH) {
            batch.clear();
            batch.begin(Arc::clone(&epoch), mark);
            for payload in payloads {
                mark = Mark { sequence: mark.sequence + 1, published_ns: 1 };
                batch.push(mark, "bench.route", [], payload);
            }
            let began = Instant::now();
            writer.prepare(&batch);
            let committed = writer.commit(&batch).expect("commits");
            taken += began.elapsed();
            assert_eq!(committed.dead_letters, 0);
        }
        taken
    }

    fn by_hand(&self, payloads: &[Vec<u8>]) -> Duration {
        let folder = folder();
        let database = Self::database(folder.path());
        // Creates catchment's own tables and switches to WAL.
        drop(Database::open(&database, &Routes::default()).expect("opens"));
        let connection = Connection::open(&database.path).expect("opens");
        connection.pragma_update(None, "synchronous", "NORMAL").expect("sets");
        connection.pragma_update(None, "wal_autocheckpoint", 4_000).expect("sets");
        connection.pragma_update(None, "foreign_keys", true).expect("sets");
        let began = Instant::now();
        for payloads in payloads.chunks(BATCH) {
            connection.execute_batch("BEGIN IMMEDIATE").expect("begins");
            (self.by_hand)(&connection, payloads);
            connection.execute_batch("COMMIT").expect("commits");
        }
        began.elapsed()
    }
}

/// A folder on the disk of the target directory.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder")
}
