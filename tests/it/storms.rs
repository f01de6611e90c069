//! Storms: random kills, stops, restores, deletes, purges and stream edits, on both retentions.
//!
//! The oracle is outside the program: what the stream acknowledged was written down, what the stream holds in the end is
//! read raw. All that it holds is stored, nothing is stored twice, and what was acknowledged and is neither stored nor forgotten
//! by the broker itself is among the gaps in the ledger, or at the stream's end and was said to be gone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use catchment::{Event, Receipt, Recorder};
use serde_json::{Value, json};

use crate::support::chance::Chance;
use crate::support::collector::{Collector, output, run, signal, stderr};
use crate::support::load::patient;
use crate::support::server::{Server, needs};
use crate::support::{copy_folder, eventually, oracle};

/// Events have one of so many subjects.
const SUBJECTS: u64 = 8;

struct Storm {
    chance: Chance,
    folder: tempfile::TempDir,
    server: Server,
    collector: Option<Collector>,
    interest: bool,
    edits: bool,
    published: u64,
    acknowledged: BTreeSet<String>,
    /// Under which sequence.
    sequences: BTreeMap<String, u64>,
    /// Acknowledged, then forgotten by the broker: it was restored from an older copy, or somebody deleted the stream.
    forgotten: BTreeSet<String>,
    /// What was acknowledged when the server's store was copied.
    at_copy: Option<BTreeSet<String>>,
    has_database_copy: bool,
    done: Vec<&'static str>,
    /// How many collectors were started, each with a log of its own.
    starts: usize,
}

impl Storm {
    fn begin(chance: Chance, interest: bool) -> Self {
        let (folder, server) = Server::in_new_folder();
        let mut storm = Self {
            chance,
            folder,
            server,
            collector: None,
            interest,
            edits: needs((2, 10), "a lasting time of creation"),
            published: 0,
            acknowledged: BTreeSet::new(),
            sequences: BTreeMap::new(),
            forgotten: BTreeSet::new(),
            at_copy: None,
            has_database_copy: false,
            done: Vec::new(),
            starts: 0,
        };
        storm.make_stream(-1);
        storm.start_collector();
        storm
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn config(&self, most_a_subject: i64) -> Value {
        let retention = if self.interest { "interest" } else { "limits" };
        json!({
            "name": "EVENTS", "subjects": ["events.>"], "storage": "file", "retention": retention,
            "max_msgs_per_subject": most_a_subject,
        })
    }

    fn make_stream(&self, most_a_subject: i64) {
        let answer = self.server.ask("$JS.API.STREAM.CREATE.EVENTS", &self.config(most_a_subject));
        assert!(answer["error"].is_null(), "{answer}");
    }

    fn start_collector(&mut self) {
        self.starts += 1;
        let log = self.path(&format!("log-{}", self.starts));
        let collector = Collector::start(run(&self.server.url(), &self.path("a.db")), &log);
        collector.said("collecting stream EVENTS");
        self.collector = Some(collector);
    }

    fn stop_collector(&mut self) {
        if let Some(collector) = self.collector.take() {
            let status = collector.stop();
            assert!(status.success(), "{status}: {:?}\n{}", self.done, self.logs());
        }
    }

    /// What all collectors said.
    fn logs(&self) -> String {
        let log = |number| std::fs::read_to_string(self.path(&format!("log-{number}"))).unwrap_or_default();
        (1..=self.starts).map(log).collect()
    }

    /// How many times collectors were well again.
    fn recoveries(&self) -> usize {
        self.logs().matches("well again").count()
    }

    /// Publishes a few hundred events while something happens, and writes down what was acknowledged.
    fn step(&mut self) {
        let count = self.chance.up_to(300);
        let first = self.published;
        self.published += count;
        let recorder = patient(self.server.config());
        let publisher = std::thread::spawn(move || {
            let receipts: Vec<_> = (first..first + count)
                .map(|number| {
                    let payload = format!("event-{number}");
                    let event = Event::new(format!("events.s{}", number % SUBJECTS), payload.as_str());
                    (payload, recorder.record(event).expect("takes it"))
                })
                .collect();
            // What is not confirmed may be in the stream or not.
            let _ = recorder.close(Duration::from_secs(60));
            let kept = |(payload, receipt): (String, Receipt)| {
                let kept = receipt.wait(Duration::ZERO).ok()?;
                Some((payload, kept.sequence().expect("in a stream")))
            };
            receipts.into_iter().filter_map(kept).collect::<Vec<_>>()
        });
        std::thread::sleep(self.chance.time(Duration::from_millis(60)));
        // A copy or a removal of the stream must not happen while it is uncertain what belongs to it.
        let quiet = self.chance.up_to(3) == 1;
        if !quiet {
            self.trouble_under_load();
        }
        for (payload, sequence) in publisher.join().expect("publishes") {
            self.acknowledged.insert(payload.clone());
            self.sequences.insert(payload, sequence);
        }
        if quiet {
            self.trouble_at_rest();
        }
    }

    fn trouble_under_load(&mut self) {
        match self.chance.up_to(8) {
            1 => {
                self.done.push("kill collector");
                self.collector.take().expect("it runs").kill();
                self.start_collector();
            }
            2 => {
                self.done.push("stop collector");
                self.stop_collector();
                self.start_collector();
            }
            3 => {
                self.done.push("pause collector");
                let pid = self.collector.as_ref().expect("it runs").pid();
                signal(pid, "STOP");
                std::thread::sleep(self.chance.time(Duration::from_millis(500)));
                signal(pid, "CONT");
            }
            4 => {
                self.done.push("kill server");
                self.server.kill();
                self.server.restart();
            }
            5 => {
                self.done.push("delete");
                let last = self.server.last_sequence("EVENTS");
                for _ in 0..self.chance.up_to(30) {
                    let sequence = last.saturating_sub(self.chance.up_to(100));
                    // It may be gone, or never have been there.
                    self.server.ask("$JS.API.STREAM.MSG.DELETE.EVENTS", &json!({ "seq": sequence.max(1) }));
                }
            }
            6 => {
                self.done.push("purge");
                let last = self.server.last_sequence("EVENTS");
                let sequence = last.saturating_sub(self.chance.up_to(50));
                self.server.ask("$JS.API.STREAM.PURGE.EVENTS", &json!({ "seq": sequence.max(1) }));
            }
            7 => {
                self.done.push("purge subject");
                let filter = format!("events.s{}", self.chance.up_to(SUBJECTS) - 1);
                self.server.ask("$JS.API.STREAM.PURGE.EVENTS", &json!({ "filter": filter }));
            }
            // A 2.9 server gives an edited stream another time of creation when it restarts; with its last message gone as well,
            // it is another stream.
            _ if !self.edits => {}
            _ => {
                self.done.push("edit");
                let most = if self.chance.up_to(2) == 1 { 10 } else { -1 };
                let answer = self.server.ask("$JS.API.STREAM.UPDATE.EVENTS", &self.config(most));
                assert!(answer["error"].is_null(), "{answer}");
            }
        }
    }

    fn trouble_at_rest(&mut self) {
        let (store, copy) = (self.path("streams"), self.path("older"));
        match self.chance.up_to(9) {
            1..=4 if self.at_copy.is_some() => {
                self.done.push("restore store");
                let recoveries = self.recoveries();
                self.server.stop();
                std::fs::remove_dir_all(&store).expect("removes");
                std::fs::rename(&copy, &store).expect("moves");
                self.server.restart();
                let before = self.at_copy.take().expect("a copy");
                self.forgotten.extend(self.acknowledged.difference(&before).cloned());
                // Where nothing is left of what a stream had when it went back, nobody can tell that it did: neither a
                // collector that looks too late, nor one with a database from before.
                self.has_database_copy = false;
                eventually("the collector to look", || (self.recoveries() > recoveries).then_some(()));
            }
            1..=4 => {
                self.done.push("copy store");
                self.server.stop();
                copy_folder(&store, &copy);
                self.server.restart();
                self.at_copy = Some(self.acknowledged.clone());
            }
            5..=8 if self.has_database_copy => {
                self.done.push("restore database");
                self.stop_collector();
                for suffix in ["-wal", "-shm"] {
                    let _ = std::fs::remove_file(format!("{}{suffix}", self.path("a.db").display()));
                }
                std::fs::rename(self.path("older.db"), self.path("a.db")).expect("moves");
                self.has_database_copy = false;
                self.start_collector();
            }
            5..=8 => {
                self.done.push("copy database");
                // The copy's ledger has the epoch of the stream that it is from.
                let payload = format!("copy-{}", self.published);
                self.server.raw().publish("events.copy", None, payload.as_str());
                eventually("the last event", || {
                    (oracle::payloads(&self.path("a.db")).last() == Some(&payload)).then_some(())
                });
                let older = self.path("older.db");
                let _ = std::fs::remove_file(&older);
                oracle::open(&self.path("a.db")).execute("VACUUM INTO ?", [older.to_str()]).expect("copies");
                self.has_database_copy = true;
            }
            _ => {
                self.done.push("make stream anew");
                let recoveries = self.recoveries();
                self.server.delete_stream("EVENTS");
                self.make_stream(-1);
                // With interest retention a stream drops what comes before it has a consumer.
                eventually("the collector to look", || (self.recoveries() > recoveries).then_some(()));
                self.forgotten.extend(self.acknowledged.iter().cloned());
                self.at_copy = None;
                let _ = std::fs::remove_dir_all(&copy);
            }
        }
    }

    /// What the stream holds.
    fn stream(&self) -> BTreeSet<String> {
        let state = self.server.ask("$JS.API.STREAM.INFO.EVENTS", &Value::Null)["state"].clone();
        let (first, last) =
            (state["first_seq"].as_u64().expect("a number"), state["last_seq"].as_u64().expect("a number"));
        let client = self.server.client();
        let get = |sequence: u64| {
            let body = json!({ "seq": sequence }).to_string();
            let reply = client.request_timeout("$JS.API.STREAM.MSG.GET.EVENTS", body, Duration::from_secs(10));
            let answer: Value = serde_json::from_slice(&reply.expect("answers").data).expect("JSON");
            let data = answer["message"]["data"].as_str()?;
            let payload = data_encoding::BASE64.decode(data.as_bytes()).expect("base64");
            Some(String::from_utf8(payload).expect("text"))
        };
        (first.max(1)..=last).filter_map(get).collect()
    }

    fn end(mut self) {
        self.stop_collector();
        let held = self.stream();
        let drained = output(run(&self.server.url(), &self.path("a.db")).arg("--drain"));
        let log = self.logs() + &stderr(&drained);
        let told = format!("{:?}\n{log}", self.done);
        assert!(drained.status.success(), "{told}");
        let mut rows: BTreeMap<String, usize> = BTreeMap::new();
        for payload in oracle::payloads(&self.path("a.db")) {
            *rows.entry(payload).or_default() += 1;
        }
        let missing: Vec<_> = held.iter().filter(|payload| !rows.contains_key(*payload)).collect();
        assert!(missing.is_empty(), "in the stream and not stored: {missing:?} of {}\n{told}", held.len());
        let twice: Vec<_> = rows.iter().filter(|(_, count)| **count > 1).collect();
        assert!(twice.is_empty(), "stored twice: {twice:?}\n{told}");
        let lost: Vec<_> =
            self.acknowledged.difference(&self.forgotten).filter(|payload| !rows.contains_key(*payload)).collect();
        let gaps = gaps(&self.path("a.db"));
        let is_remembered = |sequence: u64| gaps.iter().any(|(first, last)| (*first..=*last).contains(&sequence));
        let others: Vec<_> = lost.iter().filter(|payload| !is_remembered(self.sequences[**payload])).collect();
        let last_words = stderr(&drained);
        let numbers = last_words.split("up to ").skip(1).filter_map(|text| text.split_once(" events that were never"));
        let said: u64 = numbers.filter_map(|(number, _)| number.parse::<u64>().ok()).sum();
        let others: Vec<_> = others.into_iter().map(|payload| (payload, self.sequences[*payload])).collect();
        assert!(
            others.len() as u64 <= said,
            "{} lost, {said} said to be gone: {others:?}\n{gaps:?}\n{told}",
            others.len()
        );
        oracle_is_sound(&self.path("a.db"));
        println!(
            "{} acknowledged, {} stored, {} gone, {} of them at the stream's end, {} forgotten by the broker",
            self.acknowledged.len(),
            rows.len(),
            lost.len(),
            others.len(),
            self.forgotten.len()
        );
    }
}

/// What the ledger knows to be missing, of all epochs of the stream.
fn gaps(database: &Path) -> Vec<(u64, u64)> {
    let connection = oracle::open(database);
    let mut statement = connection.prepare("SELECT first, last FROM catchment_gaps").expect("SQL");
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("runs");
    rows.collect::<Result<_, _>>().expect("numbers")
}

fn oracle_is_sound(database: &Path) {
    let sound: String =
        oracle::open(database).query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("checks");
    assert_eq!(sound, "ok");
}

fn storm(chance: Chance, interest: bool, steps: usize) {
    let mut storm = Storm::begin(chance, interest);
    (0..steps).for_each(|_| storm.step());
    storm.end();
}

#[test]
fn a_storm_with_limits_retention_reports_every_loss() {
    storm(Chance::new(), false, 12);
}

#[test]
fn a_storm_with_interest_retention_reports_every_loss() {
    storm(Chance::new(), true, 12);
}

#[test]
#[ignore = "long; make soak runs it"]
fn soak_storms_over_both_retentions() {
    let first = Chance::seed();
    for seed in first..first + 10 {
        storm(Chance::of(seed), false, 40);
        storm(Chance::of(seed), true, 40);
    }
}
