//! Migrations as a user of the command meets them.

use std::path::{Path, PathBuf};
use std::process::Command;

use catchment::config::{Migrations, RouteConfig};
use catchment::record::CommitMode;
use catchment::{DirectRecorder, DirectRecorderConfig};
use rusqlite::Connection;

use crate::support::collector::{Collector, catchment, output, stderr};
use crate::support::fixture::Fixture;
use crate::support::refusal::refused;
use crate::support::{eventually, oracle};

const LINES: &str = "CREATE TABLE lines(id INTEGER PRIMARY KEY, text TEXT NOT NULL) STRICT;\n";

const ROUTE: &str = "[[route]]\nsubject = \"events.line\"\nsql = \"INSERT INTO lines(text) VALUES (:text)\"\n";

/// A fixture with a settings file and a folder of migrations.
fn fixture() -> Fixture {
    let fixture = Fixture::new();
    std::fs::create_dir(folder(&fixture)).expect("a folder");
    let config = format!("[database]\nmigrations = {:?}\n{ROUTE}", folder(&fixture).display());
    std::fs::write(fixture.folder.path().join("chat.toml"), config).expect("writes");
    fixture
}

fn folder(fixture: &Fixture) -> PathBuf {
    fixture.folder.path().join("migrations")
}

fn write(fixture: &Fixture, name: &str, sql: &str) {
    std::fs::write(folder(fixture).join(name), sql).expect("writes");
}

fn run(fixture: &Fixture) -> Command {
    let mut command = fixture.run();
    command.arg("--config").arg(fixture.folder.path().join("chat.toml"));
    command
}

/// Collects what is there; what it logged.
#[track_caller]
fn drain(fixture: &Fixture) -> String {
    let done = output(run(fixture).arg("--drain"));
    assert!(done.status.success(), "{}", stderr(&done));
    stderr(&done)
}

fn text(database: &Path, sql: &str) -> String {
    oracle::open(database).query_row(sql, [], |row| row.get(0)).expect("one text")
}

fn tables(database: &Path) -> String {
    let sql = "SELECT coalesce(group_concat(name), '') FROM (SELECT name FROM sqlite_schema WHERE type = 'table'
               AND name NOT LIKE 'catchment%' AND name NOT LIKE 'sqlite%' ORDER BY name)";
    text(database, sql)
}

#[test]
fn migrations_run_once_and_routes_use_their_tables() {
    let fixture = fixture();
    write(&fixture, "001_lines.sql", LINES);
    fixture.server.raw().publish("events.line", None, "{\"text\": \"one\"}");
    let log = drain(&fixture);
    assert!(log.contains("applied migration 001_lines.sql"), "{log}");
    fixture.server.raw().publish("events.line", None, "{\"text\": \"two\"}");
    let log = drain(&fixture);
    assert!(!log.contains("applied"), "{log}");
    write(&fixture, "002_seen.sql", "ALTER TABLE lines ADD COLUMN seen INTEGER DEFAULT 0;\n");
    let log = drain(&fixture);
    assert!(log.contains("applied migration 002_seen.sql") && !log.contains("001_lines"), "{log}");
    assert_eq!(text(&fixture.database(), "SELECT group_concat(text || seen) FROM lines"), "one0,two0");
}

#[test]
fn a_failed_migration_ends_the_start_with_one_line() {
    let fixture = fixture();
    refused(&mut run(&fixture), 2, &["chat.toml:2: database.migrations: ", "has no .sql file"]);
    write(&fixture, "001_lines.sql", LINES);
    write(&fixture, "002_bad.sql", "-- users\nCREATE TABLE users(name TEXT;\n");
    refused(
        &mut run(&fixture),
        2,
        &["migrations/002_bad.sql:2: near \";\": syntax error", "no new migration was applied"],
    );
    assert!(!fixture.database().exists(), "the start has left nothing");
    write(&fixture, "002_bad.sql", "DELETE FROM catchment_ledger;\n");
    refused(&mut run(&fixture), 2, &["002_bad.sql:1: catchment_ledger", "catchment's own"]);
    std::fs::remove_file(folder(&fixture).join("002_bad.sql")).expect("removes");
    drain(&fixture);
    write(&fixture, "001_lines.sql", &LINES.replace('\n', "\r\n"));
    drain(&fixture);
    write(&fixture, "001_lines.sql", &LINES.replace("NOT NULL", ""));
    refused(&mut run(&fixture), 2, &["001_lines.sql: was changed after it was applied at 20", "restore it unchanged"]);
    let mut elsewhere = run(&fixture);
    elsewhere.env("CATCHMENT_DATABASE__MIGRATIONS", "/nowhere");
    refused(&mut elsewhere, 2, &["CATCHMENT_DATABASE__MIGRATIONS: /nowhere cannot be read", "current directory"]);
}

#[test]
fn a_relative_path_counts_from_the_current_directory() {
    let fixture = fixture();
    write(&fixture, "001_lines.sql", LINES);
    let conf = fixture.folder.path().join("conf");
    std::fs::create_dir(&conf).expect("a folder");
    let config = format!("[database]\npath = \"b.db\"\nmigrations = \"migrations\"\n{ROUTE}");
    std::fs::write(conf.join("chat.toml"), config).expect("writes");
    let mut command = catchment();
    command.args(["run", "--drain", "--config", "conf/chat.toml", "--server", &fixture.server.url()]);
    let done = output(command.current_dir(fixture.folder.path()));
    assert!(done.status.success(), "{}", stderr(&done));
    assert_eq!(tables(&fixture.folder.path().join("b.db")), "events,lines");
}

#[test]
fn a_start_that_is_killed_amid_its_migrations_has_applied_none() {
    let fixture = fixture();
    write(&fixture, "001_lines.sql", LINES);
    let endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n)
                   INSERT INTO lines(text) SELECT 'number ' || x FROM n;";
    write(&fixture, "002_fill.sql", endless);
    let collector = Collector::start(run(&fixture), &fixture.folder.path().join("collector.log"));
    // It has begun once what does not fit into memory goes to the log.
    let log = fixture.folder.path().join("a.db-wal");
    eventually("rows that are not committed", || {
        (std::fs::metadata(&log).is_ok_and(|file| file.len() > 8 << 20)).then_some(())
    });
    collector.kill();
    assert_eq!(tables(&fixture.database()), "events");
    write(&fixture, "002_fill.sql", "INSERT INTO lines(text) VALUES ('one');");
    drain(&fixture);
    assert_eq!(text(&fixture.database(), "SELECT group_concat(text) FROM lines"), "one");
    oracle::sound(&fixture.database());
}

#[test]
fn a_database_of_the_first_version_is_collected_on() {
    let fixture = Fixture::new();
    fixture.publish("before", 3);
    let stream = fixture.ask("$JS.API.STREAM.INFO.EVENTS", &serde_json::json!({}));
    let created = stream["created"].as_str().expect("a time");
    let last = fixture.ask("$JS.API.STREAM.MSG.GET.EVENTS", &serde_json::json!({ "seq": 2 }));
    let at = last["message"]["time"].as_str().expect("a time");
    let connection = Connection::open(fixture.database()).expect("a database");
    connection.execute_batch(include_str!("support/version-1.sql")).expect("SQL");
    // It has stored two of the three.
    let sql = "INSERT INTO catchment_ledger
               VALUES ('EVENTS', 1, ?1, 2, CAST(strftime('%s', ?2) AS INTEGER) * 1000000000 + substr(?3, 1, 9))";
    let fraction = at.split_once('.').map_or("0", |(_, rest)| rest.trim_end_matches('Z'));
    connection.execute(sql, [created, at, &format!("{fraction:0<9}")]).expect("SQL");
    connection
        .execute_batch(
            "INSERT INTO events(subject, stream, sequence, published_us, payload) VALUES
                 ('events.test', 'EVENTS', 1, 1, 'before-0'), ('events.test', 'EVENTS', 2, 2, 'before-1');
             INSERT INTO catchment_dead_letters(published_us, subject, payload, error, recorded_us)
                 VALUES (1, 'a', 'x', 'old', 1)",
        )
        .expect("SQL");
    let letters = |arguments: &[&str]| {
        let done = output(catchment().arg("dead-letters").args(arguments).arg("--database").arg(fixture.database()));
        assert!(done.status.success(), "{}", stderr(&done));
        String::from_utf8(done.stdout).expect("UTF-8")
    };
    assert!(letters(&["list"]).contains("old"), "as it is, before anything was changed");
    fixture.drain();
    assert_eq!(oracle::payloads(&fixture.database()), ["before-0", "before-1", "before-2"]);
    assert!(letters(&["list"]).contains("old"));
    assert_eq!(text(&fixture.database(), "SELECT value || '' FROM catchment_meta WHERE key = 'version'"), "4");
    oracle::sound(&fixture.database());
}

/// Tables that the routes and queries below fit, and what a second migration does to them.
const BEFORE: &str = "CREATE TABLE names(name TEXT PRIMARY KEY, age INTEGER);
    CREATE TABLE lines(text TEXT, name TEXT);
    CREATE VIEW last AS SELECT text FROM lines;
    CREATE TRIGGER seen AFTER INSERT ON lines BEGIN UPDATE names SET age = 0 WHERE name = new.name; END;";

#[test]
fn a_migration_that_breaks_a_route_or_query_is_not_applied() {
    let route = |sql: &str| format!("[[route]]\nsubject = \"events.line\"\nsql = \"{sql}\"\n");
    let insert = route("INSERT INTO lines(text, name) VALUES (:text, :name)");
    let query = |sql: &str| format!("[[query]]\nsubject = \"ask.last\"\nsql = \"{sql}\"\n");
    let variants = [
        ("ALTER TABLE lines DROP COLUMN name", &insert, "002_breaking.sql:1: error in trigger seen"),
        (
            "DROP TRIGGER seen; ALTER TABLE lines DROP COLUMN name",
            &insert,
            "statement 1: table lines has no column named name",
        ),
        ("ALTER TABLE lines RENAME TO rows", &insert, "route events.line, statement 1: no such table: lines"),
        ("DROP TABLE events", &insert, "route events: no such table: events"),
        (
            "CREATE TRIGGER t AFTER INSERT ON lines BEGIN DELETE FROM catchment_ledger; END",
            &insert,
            "it writes catchment_ledger",
        ),
        // What the statement itself does not name: a trigger's table, a parent's key, what a view stands on.
        ("DROP TABLE names", &insert, "route events.line, statement 1: no such table: main.names"),
        (
            "CREATE TABLE keys(name TEXT); DROP TABLE lines; CREATE TABLE lines(text TEXT, name TEXT REFERENCES keys(name))",
            &insert,
            "002_breaking.sql: after it, foreign keys cannot be checked: foreign key mismatch",
        ),
        (
            "DROP TABLE lines; CREATE TABLE lines(text TEXT, name TEXT REFERENCES keys(name))",
            &insert,
            "route events.line, statement 1: no such table: main.keys",
        ),
        ("DROP VIEW last", &query("SELECT text FROM last"), "query ask.last: no such table: last"),
        ("ALTER TABLE names DROP COLUMN age", &query("SELECT age FROM names"), "query ask.last: no such column: age"),
    ];
    let fixture = fixture();
    write(&fixture, "001_before.sql", BEFORE);
    let settings = fixture.folder.path().join("chat.toml");
    let database = format!("[database]\npath = {:?}\nmigrations = {:?}\n", fixture.database(), folder(&fixture));
    let schema = "SELECT group_concat(name || sql, ';') || (SELECT max(number) FROM catchment_migrations)
                  FROM sqlite_schema";
    let mut before = None;
    for (breaking, statements, said) in variants {
        std::fs::write(&settings, format!("{database}{statements}")).expect("writes");
        drain(&fixture);
        let before = before.get_or_insert_with(|| text(&fixture.database(), schema));
        write(&fixture, "002_breaking.sql", &format!("{breaking};\n"));
        // Table events is no statement of the configuration.
        let status = if said.starts_with("route events: ") { 1 } else { 2 };
        refused(&mut run(&fixture), status, &[said]);
        assert_eq!(&text(&fixture.database(), schema), before, "{breaking}");
        let command = |arguments: &[&str]| {
            let done =
                output(catchment().args(arguments).arg("--config").arg(&settings).current_dir(fixture.folder.path()));
            (done.status.code(), String::from_utf8_lossy(&done.stdout).into_owned() + &stderr(&done))
        };
        let (status, found) = command(&["check", "--offline"]);
        assert!(status == Some(2) && found.contains(said), "{breaking}: {found}");
        std::fs::remove_file(folder(&fixture).join("002_breaking.sql")).expect("removes");
    }
}

/// The page's program, as it stands there.
fn program() -> Result<(), Box<dyn std::error::Error>> {
    use catchment::config::{Config, Migrations};
    use catchment::testing::TestDatabase;

    let mut config = Config::default();
    config.database.migrations = Some(Migrations::scripts([
        ("001_lines.sql", include_str!("migrations/001_lines.sql")),
        ("002_seen.sql", include_str!("migrations/002_seen.sql")),
    ]));
    TestDatabase::new(&config)?; // in a test: all of them can be applied
    Ok(())
}

#[test]
fn migrations_can_be_part_of_a_program() {
    program().expect("applies them");
    let compiled: Vec<&str> = include_str!("migrations.rs").lines().map(str::trim).collect();
    let page: Vec<&str> = include_str!("../../docs/migrations.md").lines().collect();
    let from = page.iter().position(|line| *line == "```rust").expect("Rust") + 1;
    let shown: Vec<&str> = page[from..].iter().take_while(|line| **line != "```").map(|line| line.trim()).collect();
    assert!(compiled.windows(shown.len()).any(|window| window == shown), "the page shows another program");
}

#[test]
fn a_program_and_a_folder_have_the_same_migrations() {
    let fixture = fixture();
    for (name, text) in [
        ("001_lines.sql", include_str!("migrations/001_lines.sql")),
        ("002_seen.sql", include_str!("migrations/002_seen.sql")),
    ] {
        write(&fixture, name, text);
    }
    let mut config = DirectRecorderConfig::default();
    config.database.path = fixture.database();
    config.database.migrations = Some(Migrations::scripts([
        ("001_lines.sql", include_str!("migrations/001_lines.sql")),
        ("002_seen.sql", "ALTER TABLE lines ADD COLUMN sen INTEGER;\nOOPS;"),
    ]));
    let wrong = DirectRecorder::open(config.clone()).expect_err("wrong SQL");
    assert!(wrong.to_string().starts_with("migration 002_seen.sql:2: near \"OOPS\": syntax error"), "{wrong}");
    config.database.migrations = Some(Migrations::scripts([
        ("001_lines.sql", include_str!("migrations/001_lines.sql")),
        ("002_seen.sql", include_str!("migrations/002_seen.sql")),
    ]));
    drop(DirectRecorder::open(config).expect("opens"));
    fixture.server.raw().publish("events.line", None, "{\"text\": \"one\"}");
    let log = drain(&fixture);
    assert!(!log.contains("applied migration"), "{log}");
    assert_eq!(text(&fixture.database(), "SELECT text || coalesce(seen, '-') FROM lines"), "one-");
}

#[test]
fn a_recorder_applies_no_migration_that_breaks_its_routes() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut config = DirectRecorderConfig::default();
    config.database.path = folder.path().join("a.db");
    config.database.migrations = Some(folder.path().into());
    config.routes = vec![RouteConfig::new("events.line", ["INSERT INTO lines(text) VALUES (:text)"])];
    std::fs::write(folder.path().join("1_lines.sql"), LINES).expect("writes");
    drop(DirectRecorder::open(config.clone()).expect("opens"));
    std::fs::write(folder.path().join("2_rename.sql"), "ALTER TABLE lines RENAME TO rows").expect("writes");
    for commit in [CommitMode::Grouped, CommitMode::PerEvent] {
        config.commit = commit;
        let said = DirectRecorder::open(config.clone()).expect_err("it does not fit").to_string();
        assert!(
            said.contains("no such table: lines")
                && said.contains("change the statement, or the new migration 2_rename.sql, which was not applied"),
            "{said}"
        );
        assert_eq!(tables(&folder.path().join("a.db")), "events,lines");
    }
}
