//! Compares the direct recorder with the simplest loop that does the same: the cost of the recorder itself.
//!
//! Both make each event's payload, read the clock, write the same row with the same statement and PRAGMAs, and end with the last
//! commit. The simple loop is one thread with one connection; grouped, it commits as many rows at a time as the recorder may.
//! Runs alternate, and each ratio is of two adjacent runs. Give a word to run only the cases whose names contain it.
#![allow(clippy::cast_precision_loss, reason = "counts become figures")]

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use catchment::config::{DatabaseConfig, Synchronous};
use catchment::record::CommitMode;
use catchment::{DirectRecorder, DirectRecorderConfig, Event, Recorder};
use rusqlite::{Connection, params};

const RUNS: usize = 11;
const BATCH: usize = 1_000;
const INSERT: &str =
    "INSERT INTO events(subject, stream, sequence, published_us, headers, payload) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";

/// What is compared.
struct Case {
    name: &'static str,
    commit: CommitMode,
    synchronous: Synchronous,
    events: u64,
}

fn main() {
    let cases = [
        Case { name: "per event, full", commit: CommitMode::PerEvent, synchronous: Synchronous::Full, events: 3_000 },
        Case {
            name: "per event, normal",
            commit: CommitMode::PerEvent,
            synchronous: Synchronous::Normal,
            events: 20_000,
        },
        Case { name: "grouped, full", commit: CommitMode::Grouped, synchronous: Synchronous::Full, events: 400_000 },
    ];
    println!(
        "direct recorder against a simple loop, {RUNS} pairs each, groups of up to {BATCH}; medians (lowest to highest)\n"
    );
    println!("{:20} {:>34} {:>34} {:>24}", "", "recorder, events/s", "simple loop, rows/s", "time, recorder / loop");
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let is_wanted = |case: &Case| wanted.is_empty() || wanted.iter().any(|word| case.name.contains(word));
    for case in cases.into_iter().filter(is_wanted) {
        let (mut recorder, mut bare, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for run in 0..=RUNS {
            // The order alternates from pair to pair.
            let (with, without) = if run % 2 == 0 {
                let with = case.recorder();
                (with, case.bare())
            } else {
                let without = case.bare();
                (case.recorder(), without)
            };
            // The first pair warms up.
            if run > 0 {
                recorder.push(case.events as f64 / with.as_secs_f64());
                bare.push(case.events as f64 / without.as_secs_f64());
                ratios.push(with.as_secs_f64() / without.as_secs_f64());
            }
        }
        let (recorder, bare, ratios) = (spread(recorder, 0), spread(bare, 0), spread(ratios, 3));
        println!("{:20} {recorder:>34} {bare:>34} {ratios:>24}", case.name);
    }
}

fn spread(mut values: Vec<f64>, digits: usize) -> String {
    values.sort_by(f64::total_cmp);
    let (median, least, most) = (values[values.len() / 2], values[0], values[values.len() - 1]);
    format!("{median:.digits$} ({least:.digits$} to {most:.digits$})")
}

fn payload(number: u64) -> String {
    format!("{{\"n\":{number},\"text\":\"a line that somebody said in a channel of a game\"}}")
}

impl Case {
    fn database(&self, folder: &Path) -> DatabaseConfig {
        let mut config = DatabaseConfig::default();
        config.path = folder.join("a.db");
        config.synchronous = self.synchronous;
        config
    }

    fn recorder(&self) -> Duration {
        let folder = folder();
        let mut config = DirectRecorderConfig::default();
        config.database = self.database(folder.path());
        config.batch.max_events = BATCH;
        config.commit = self.commit;
        let recorder = DirectRecorder::open(config).expect("opens");
        let began = Instant::now();
        for number in 0..self.events {
            recorder.record(Event::new("events.bench", payload(number))).expect("taken");
        }
        recorder.flush(Duration::from_secs(60)).expect("committed");
        began.elapsed()
    }

    fn bare(&self) -> Duration {
        let folder = folder();
        let database = self.database(folder.path());
        // Creates the tables.
        drop(
            catchment::unversioned::store::Database::open(&database, &catchment::unversioned::store::Routes::default())
                .expect("opens"),
        );
        let connection = Connection::open(&database.path).expect("opens");
        let synchronous = if self.synchronous == Synchronous::Full { "FULL" } else { "NORMAL" };
        connection.pragma_update(None, "synchronous", synchronous).expect("sets");
        connection.pragma_update(None, "wal_autocheckpoint", 4_000).expect("sets");
        connection.pragma_update(None, "foreign_keys", true).expect("sets");
        let group = if self.commit == CommitMode::Grouped { BATCH as u64 } else { 1 };
        let began = Instant::now();
        for first in (0..self.events).step_by(BATCH.min(usize::try_from(group).expect("small"))) {
            if group > 1 {
                connection.execute_batch("BEGIN IMMEDIATE").expect("begins");
            }
            let mut insert = connection.prepare_cached(INSERT).expect("SQL");
            for number in first..(first + group).min(self.events) {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
                let now_us = i64::try_from(now.as_micros()).expect("before 290,000");
                let values = params!["events.bench", None::<&str>, None::<i64>, now_us, None::<&str>, payload(number)];
                insert.execute(values).expect("stored");
            }
            if group > 1 {
                connection.execute_batch("COMMIT").expect("commits");
            }
        }
        began.elapsed()
    }
}

/// A folder on the disk of the target directory.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder")
}
