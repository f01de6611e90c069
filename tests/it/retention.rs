//! `[retention]`: what a running collector deletes, and that nothing is lost when it is killed.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use catchment::rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use crate::support::chance::Chance;
use crate::support::collector::{Collector, output, printed, stderr};
use crate::support::fixture::Fixture;
use crate::support::{eventually, oracle};

/// The fixture's collector with these settings.
fn collector(fixture: &Fixture, settings: &str) -> Collector {
    let mut run = fixture.run();
    run.current_dir(fixture.folder.path());
    run.arg("-c").arg(fixture.file("keep.toml", settings));
    run.env("CATCHMENT_UPKEEP__RETAIN_EVERY", "1s").env("CATCHMENT_OBSERVE__UNREADY_AFTER", "1s");
    Collector::start(run, &fixture.path("collector.log"))
}

fn command(fixture: &Fixture, arguments: &[&str]) -> Command {
    let mut command = fixture.command(arguments);
    command.arg("--database").arg(fixture.database());
    command
}

fn status(fixture: &Fixture) -> Value {
    let done = output(&mut command(fixture, &["status", "--json"]));
    serde_json::from_slice(&done.stdout).expect("JSON")
}

fn job(status: &Value, name: &str) -> Value {
    let jobs = status["upkeep"].as_array().expect("a list");
    jobs.iter().find(|job| job["name"] == name).unwrap_or_else(|| panic!("no job {name}: {status}")).clone()
}

/// A connection that writes.
fn writing(path: &Path) -> Connection {
    let connection = Connection::open(path).expect("opens");
    connection.busy_timeout(Duration::from_secs(60)).expect("sets");
    connection
}

#[test]
fn a_collector_deletes_archives_and_counts_while_it_collects() {
    let fixture = Fixture::new();
    let rule = |rows| format!("[retention]\nevents = {{ rows = {rows}, archive = \"old.ndjson\" }}\n");
    let running = collector(&fixture, &rule(1_000_000));
    running.said("collecting stream");
    let payloads = fixture.publish("x", 2_000);
    fixture.has(2_000);
    // A reload takes over another rule.
    fixture.file("keep.toml", rule(100));
    let reloaded = printed(command(&fixture, &["reload"]).arg("-c").arg(fixture.path("keep.toml")));
    assert!(reloaded.contains("changed retention.events"), "{reloaded}");
    fixture.has(100);
    assert_eq!(oracle::payloads(&fixture.database()), payloads[1_900..]);
    let archive = std::fs::read_to_string(fixture.path("old.ndjson")).expect("reads");
    let archived: Vec<String> = archive
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["payload"].as_str().expect("text").to_owned())
        .collect();
    assert_eq!(archived, payloads[..1_900]);
    let now = eventually("a round to be counted", || {
        Some(status(&fixture)).filter(|now| job(now, "retention")["runs"].as_u64() > Some(0))
    });
    assert_eq!(
        (&now["retention"]["rows"]["events"], &now["retention"]["archived_rows"]),
        (&1_900.into(), &1_900.into())
    );
    assert_eq!((&now["state"], &job(&now, "retention")["failures"]), (&"well".into(), &0.into()));
    running.said("retention deleted 1,900 rows that are in an archive");
    let later = fixture.publish("y", 50);
    eventually("the table to be short again", || {
        (oracle::payloads(&fixture.database())[50..] == later && oracle::count(&fixture.database()) == 100)
            .then_some(())
    });
    // A deleted event is not collected again.
    assert!(running.stop().success());
    fixture.drain();
    assert_eq!(oracle::count(&fixture.database()), 100);
    oracle::sound(&fixture.database());
}

#[test]
fn a_rule_that_does_not_fit_stops_the_start_with_its_line() {
    let fixture = Fixture::new();
    let settings = "[retention]\nevents = { rows = 5 }\nmesages = { rows = 7 }\n";
    let file = fixture.file("keep.toml", settings);
    let done = output(fixture.run().arg("-c").arg(&file));
    let said = stderr(&done);
    assert_eq!(done.status.code(), Some(2), "{said}");
    assert!(said.contains("retention.mesages: the database has no table mesages"), "{said}");
    assert!(said.contains("keep.toml:3"), "{said}");
    assert!(!fixture.database().exists(), "nothing is left");
    fixture.file("keep.toml", "[retention]\ncatchment_ledger = { rows = 5 }\n");
    let said = stderr(&output(fixture.run().arg("-c").arg(&file)));
    assert!(said.contains("retention.catchment_ledger: is no table whose rows may be deleted"), "{said}");
    // SQLite by itself takes a misspelt name in double quotes for a text, and the rule would delete every row.
    fixture.file("keep.toml", "[retention]\nevents = { rows = 0, where = \"\\\"subjekt\\\" <> 'a'\" }\n");
    let said = stderr(&output(fixture.run().arg("-c").arg(&file)));
    assert!(said.contains("no such column: \"subjekt\""), "{said}");
}

#[test]
fn a_check_names_the_index_that_a_rule_needs_and_an_older_database() {
    let fixture = Fixture::new();
    // As an earlier version made it.
    writing(&fixture.database()).execute_batch("CREATE TABLE calls(at INTEGER, x)").expect("SQL");
    printed(&mut command(&fixture, &["adopt"]));
    let rules = "[retention]\ncalls = { column = \"at\", keep = \"1d\" }\n";
    let file = fixture.file("keep.toml", rules);
    let check = || {
        let done = output(command(&fixture, &["check", "--offline"]).arg("-c").arg(&file));
        String::from_utf8(done.stdout).expect("UTF-8")
    };
    let found = check();
    let statement = "CREATE INDEX \"calls_by_at\" ON \"calls\"(\"at\");";
    assert!(found.contains(statement) && found.contains("catchment compact"), "{found}");
    writing(&fixture.database()).execute_batch(statement).expect("SQL");
    let compacted = printed(command(&fixture, &["compact"]).arg("-c").arg(&file));
    assert!(compacted.contains("from now on it gives free pages back"), "{compacted}");
    let found = check();
    assert!(found.contains("the rules of 1 table fit") && !found.contains("compact"), "{found}");
}

#[test]
fn the_rules_of_a_table_name_one_archive_in_one_way() {
    for ending in ["ndjson", "db"] {
        let (fixture, _) = filled(20, &format!("old.{ending}"));
        let retain = |other: &str| {
            let rules =
                format!("[{{ rows = 15, archive = 'old.{ending}' }}, {{ keep = '100y', archive = '{other}' }}]");
            let file = fixture.file("two.toml", format!("[retention]\nevents = {rules}\n"));
            output(command(&fixture, &["retain"]).arg("-c").arg(&file))
        };
        let refused = |other: &str| {
            let done = retain(other);
            let said = stderr(&done);
            assert_eq!((done.status.code(), said.lines().count()), (Some(2), 1), "{said}");
            let words = format!("is the same file as old.{ending} of another rule; give it the same path in all rules");
            assert!(said.contains("retention.events.archive") && said.contains(&words), "{said}");
        };
        refused(&format!("./old.{ending}"));
        assert!(!fixture.path(&format!("old.{ending}")).exists(), "nothing was archived");
        let done = retain(&format!("old.{ending}"));
        assert!(done.status.success(), "{}", stderr(&done));
        let [link, hard] = ["link", "hard"].map(|name| format!("{name}.{ending}"));
        std::os::unix::fs::symlink(fixture.path(&format!("old.{ending}")), fixture.path(&link)).expect("links");
        std::fs::hard_link(fixture.path(&format!("old.{ending}")), fixture.path(&hard)).expect("links");
        refused(&link);
        refused(&hard);
    }
}

#[test]
fn a_rule_that_fails_is_trouble_and_events_are_stored() {
    let fixture = Fixture::new();
    std::fs::create_dir(fixture.path("old")).expect("makes");
    let settings =
        "[retention]\nevents = { rows = 10, archive = \"old/events.ndjson\" }\ndead_letters = { rows = 5 }\n";
    let running = collector(&fixture, settings);
    running.said("collecting stream");
    std::fs::remove_dir(fixture.path("old")).expect("removes");
    fixture.publish("x", 30);
    let troubled =
        eventually("the trouble", || Some(status(&fixture)).filter(|now| job(now, "retention")["error"].is_string()));
    let error = job(&troubled, "retention")["error"].as_str().expect("text").to_owned();
    assert!(error.contains("retention.events.archive: opening it failed") && error.contains("No such file"), "{error}");
    assert_eq!((&troubled["ready"], &troubled["state"]), (&true.into(), &"degraded".into()), "{troubled}");
    fixture.has(30);
    let health = output(&mut command(&fixture, &["health"]));
    assert!(health.status.success(), "{}", stderr(&health));
    assert!(running.stop().success());
}

#[test]
fn a_damaged_database_is_found_and_the_collector_is_not_ready() {
    let fixture = Fixture::new();
    let table = "CREATE TABLE big(x); WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 30000)
        INSERT INTO big SELECT hex(randomblob(500)) FROM n;";
    fixture.drain();
    let connection = writing(&fixture.database());
    connection.execute_batch(table).expect("SQL");
    drop(connection);
    let mut run = fixture.run();
    run.env("CATCHMENT_UPKEEP__CHECK_EVERY", "1s").env("CATCHMENT_OBSERVE__UNREADY_AFTER", "1s");
    let running = Collector::start(run, &fixture.path("collector.log"));
    running.said("collecting stream");
    eventually("a check", || (job(&status(&fixture), "quick_check")["runs"].as_u64() > Some(0)).then_some(()));
    damage(&fixture.database());
    let found = eventually("the damage to be found", || {
        Some(status(&fixture)).filter(|now| now["ready"] == false && job(now, "quick_check")["error"].is_string())
    });
    let error = job(&found, "quick_check")["error"].as_str().expect("text").to_owned();
    assert!(error.contains("it is damaged") && error.contains("restore a copy"), "{error}");
    assert_eq!(output(&mut command(&fixture, &["health"])).status.code(), Some(1));
    fixture.publish("x", 3);
    fixture.has(3);
}

/// Overwrites a page in the middle of the file. Another process does it: closing the file would drop the locks of SQLite's connections.
fn damage(database: &Path) {
    let page = std::fs::metadata(database).expect("reads").len() / 4_096 / 2;
    let done = Command::new("dd")
        .args(["if=/dev/zero", "bs=4096", "count=1", "conv=notrunc", &format!("seek={page}")])
        .arg(format!("of={}", database.display()))
        .output()
        .expect("dd runs");
    assert!(done.status.success(), "{}", stderr(&done));
}

/// A database with so many events, and a rule that keeps few of them.
fn filled(rows: u32, archive: &str) -> (Fixture, String) {
    let fixture = Fixture::new();
    fixture.drain();
    let insert = format!(
        "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
         INSERT INTO events(subject, published_us, payload) SELECT 'a', i, printf('%d-%0100d', i, i) FROM n;"
    );
    writing(&fixture.database()).execute_batch(&insert).expect("SQL");
    let file = fixture.file("keep.toml", format!("[retention]\nevents = {{ rows = 10, archive = \"{archive}\" }}\n"));
    (fixture, file)
}

/// Kills `catchment retain` at twenty random moments. Then each row is in the archive once.
fn survives_kills(archive: &str, archived: impl Fn(&Path) -> BTreeMap<i64, u64>) {
    /// The kills, and the rows for which there is enough work between them.
    const KILLS: u32 = 20;
    const ROWS: u32 = 60_000;
    let mut chance = Chance::new();
    let (fixture, file) = filled(ROWS, archive);
    let kept = || -> Vec<i64> {
        let texts = oracle::texts(&fixture.database(), "SELECT CAST(id AS TEXT) FROM events");
        texts.iter().map(|id| id.parse().expect("a number")).collect()
    };
    let start = || {
        let mut command = command(&fixture, &["retain"]);
        command.arg("-c").arg(&file).spawn().expect("starts")
    };
    let mut hits = 0;
    while hits < KILLS {
        let before = kept().len();
        assert!(before > 1_000, "{hits} of {KILLS} kills before the rows were gone");
        let mut child = start();
        // After the first rows of this run, and at any moment of the next ones.
        eventually("a row to be deleted", || (kept().len() < before).then_some(()));
        std::thread::sleep(chance.time(Duration::from_millis(30)));
        child.kill().expect("kills");
        hits += u32::from(!child.wait().expect("ends").success());
        let archived = archived(&fixture.path(archive));
        let lost = (1..=i64::from(ROWS)).filter(|id| !archived.contains_key(id)).collect::<Vec<_>>();
        let kept: std::collections::BTreeSet<i64> = kept().into_iter().collect();
        let lost: Vec<&i64> = lost.iter().filter(|id| !kept.contains(id)).take(5).collect();
        assert!(lost.is_empty(), "neither in the database nor in the archive: {lost:?}");
    }
    let done = output(command(&fixture, &["retain"]).arg("-c").arg(&file));
    assert!(done.status.success(), "{}", stderr(&done));
    assert_eq!(kept().len(), 10);
    let archived = archived(&fixture.path(archive));
    assert_eq!(archived.len(), ROWS as usize - 10);
    let twice: Vec<_> = archived.iter().filter(|(_, count)| **count > 1).take(5).collect();
    assert!(twice.is_empty(), "in the archive twice: {twice:?}");
    oracle::sound(&fixture.database());
}

#[test]
fn a_kill_loses_and_doubles_no_row_of_an_archive_of_lines() {
    survives_kills("old.ndjson", |archive| {
        let text = std::fs::read_to_string(archive).unwrap_or_default();
        let mut found = BTreeMap::new();
        // The last line may be unfinished.
        for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            let row: Value = serde_json::from_str(line).expect("JSON");
            *found.entry(row["id"].as_i64().expect("a number")).or_default() += 1;
        }
        found
    });
}

#[test]
fn a_kill_loses_and_doubles_no_row_of_an_archive_in_a_database() {
    survives_kills("old.db", |archive| {
        // The process that was killed may have left a journal: this connection may have to write.
        let Ok(connection) = Connection::open_with_flags(archive, OpenFlags::SQLITE_OPEN_READ_WRITE) else {
            return BTreeMap::new();
        };
        let Ok(mut statement) = connection.prepare("SELECT id, count(*) FROM events GROUP BY id") else {
            return BTreeMap::new();
        };
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("runs");
        rows.collect::<Result<_, _>>().expect("rows")
    });
}

#[test]
fn a_compaction_that_is_killed_changes_nothing() {
    const KILLS: u32 = 20;
    let mut chance = Chance::new();
    let fixture = Fixture::new();
    fixture.drain();
    let fill = "CREATE TABLE t(id INTEGER PRIMARY KEY, x);
        WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 60000)
        INSERT INTO t SELECT i, hex(randomblob(250)) FROM n; DELETE FROM t WHERE id % 3 = 0;";
    let connection = writing(&fixture.database());
    connection.execute_batch(fill).expect("SQL");
    let contents = "SELECT count(*) || ' ' || sum(id) || ' ' || substr(max(x), 1, 9) FROM t";
    let before: String = connection.query_row(contents, [], |row| row.get(0)).expect("reads");
    drop(connection);
    let size = std::fs::metadata(fixture.database()).expect("reads").len();
    let mut kills = 0;
    for _ in 0..KILLS {
        let mut child = command(&fixture, &["compact"]).stdout(std::process::Stdio::null()).spawn().expect("starts");
        std::thread::sleep(chance.time(Duration::from_millis(700)));
        child.kill().expect("kills");
        kills += u32::from(!child.wait().expect("ends").success());
        let connection = writing(&fixture.database());
        let now: String = connection.query_row(contents, [], |row| row.get(0)).expect("reads");
        assert_eq!(now, before);
        let sound: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("checks");
        assert_eq!(sound, "ok");
    }
    assert!(kills > 0, "each compaction was faster than its kill");
    let done = printed(&mut command(&fixture, &["compact", "--json"]));
    let done: Value = serde_json::from_str(&done).expect("JSON");
    assert!(done["bytes_after"].as_u64() < Some(size), "{done}");
    assert_eq!(oracle::texts(&fixture.database(), contents), [before]);
}

#[test]
fn retain_and_compact_refuse_a_database_that_a_collector_uses() {
    let fixture = Fixture::new();
    let running = collector(&fixture, "[retention]\nevents = { rows = 10 }\n");
    running.said("collecting stream");
    for name in ["retain", "compact"] {
        let done = output(command(&fixture, &[name]).arg("-c").arg(fixture.path("keep.toml")));
        let said = stderr(&done);
        let refused = format!("process {} uses it already", running.pid());
        assert!(done.status.code() == Some(1) && said.contains(&refused), "{name}: {said}");
    }
    let forecast =
        printed(command(&fixture, &["retain", "--dry-run", "--json"]).arg("-c").arg(fixture.path("keep.toml")));
    let forecast: Value = serde_json::from_str(&forecast).expect("JSON");
    assert_eq!(forecast, serde_json::json!({ "table": "events", "where": null, "rows": 0 }));
    let none = fixture.file("none.toml", "");
    let said = stderr(&output(command(&fixture, &["retain"]).arg("-c").arg(none)));
    assert!(said.contains("retention: has no table, so nothing is ever deleted"), "{said}");
}

/// Runs a collector for a minute at 20,000 events a second; the p99 of its commits in seconds, and its status.
fn p99_at_full_pace(rules: &str) -> (f64, Value) {
    const EVENTS: u64 = 1_200_000;
    let fixture = Fixture::new();
    let running = collector(&fixture, rules);
    running.said("collecting stream");
    let (count, url) = (EVENTS.to_string(), fixture.server.url());
    let arguments = ["publish", "--server", &url, "events.load", "--count", &count, "--rate", "20000"];
    let mut publisher = fixture.command(&arguments).spawn().expect("starts");
    assert!(publisher.wait().expect("ends").success());
    let now = status(&fixture);
    assert!(now["totals"]["committed"].as_u64() > Some(EVENTS * 9 / 10), "too slow: {now}");
    (now["commit_seconds"]["p99"].as_f64().expect("commits"), now)
}

/// Takes two minutes, and needs a quiet machine and a release build:
/// `cargo test --release --test it -- --ignored --nocapture retention_under_load`.
#[test]
#[ignore = "measures; needs a quiet machine"]
fn retention_under_load_keeps_commits_short() {
    let (without, _) = p99_at_full_pace("");
    let (with, status) = p99_at_full_pace("[retention]\nevents = { rows = 100000 }\n");
    println!("p99 of commits: {:.1} ms without retention, {:.1} ms with it", without * 1e3, with * 1e3);
    println!("retention: {}", status["retention"]);
    assert!(status["retention"]["rows"]["events"].as_u64() > Some(900_000), "{status}");
    assert!(with - without < 0.050, "{without} s without, {with} s with");
}
