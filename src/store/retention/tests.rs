use rusqlite::Connection;

use super::*;
use crate::config::{RetentionRule, RetentionRules, Unmatched};
use crate::store::cell::Cell;
use crate::store::fixture::{Fixture, texts};
use crate::unix_time::now_us;

const DAY_US: i64 = 86_400_000_000;

fn fixture(sql: &str) -> Fixture {
    Fixture::with_routes(sql, &[], Unmatched::Store).expect("opens")
}

fn config(table: &str, rules: Vec<RetentionRule>) -> RetentionConfig {
    RetentionConfig { tables: [(table.to_owned(), RetentionRules(rules))].into() }
}

fn rows(rows: u64) -> RetentionRule {
    RetentionRule { rows: Some(rows), ..RetentionRule::default() }
}

fn days(days: u64) -> RetentionRule {
    RetentionRule { keep: Some(Duration::from_secs(days * 86_400)), ..RetentionRule::default() }
}

/// Applies rules to a database, round after round.
struct Rounds {
    retention: Retention,
    figures: Arc<RetentionFigures>,
}

impl Rounds {
    fn of(fixture: &Fixture, config: &RetentionConfig) -> Self {
        let figures = Arc::new(RetentionFigures::default());
        Self { retention: fixture.open().retention(config, Arc::clone(&figures)), figures }
    }

    fn run(&mut self) -> RetentionStatus {
        self.retention.round(&Signal::default()).expect("applies");
        self.figures.now()
    }

    fn error(&mut self) -> String {
        self.retention.round(&Signal::default()).expect_err("must fail").to_string()
    }
}

/// One round.
fn applied(fixture: &Fixture, table: &str, rules: Vec<RetentionRule>) -> RetentionStatus {
    let mut rounds = Rounds::of(fixture, &config(table, rules));
    rounds.run()
}

/// Adds events of these days before now.
fn add_events(connection: &Connection, days_ago: impl IntoIterator<Item = i64>) {
    let sql = "INSERT INTO events(subject, published_us, payload) VALUES (?, ?, ?)";
    for ago in days_ago {
        let subject = if ago % 2 == 0 { "even" } else { "odd" };
        let at = now_us() - ago * DAY_US - 1_000_000;
        connection.execute(sql, rusqlite::params![subject, at, ago]).expect("inserts");
    }
}

fn numbers(fixture: &Fixture, sql: &str) -> Vec<i64> {
    texts(&fixture.connection, &format!("SELECT CAST(x AS TEXT) FROM ({sql})"))
        .iter()
        .map(|text| text.parse().expect("a number"))
        .collect()
}

#[test]
fn the_newest_rows_stay() {
    let fixture =
        fixture("CREATE TABLE t(id INTEGER PRIMARY KEY, x); CREATE TABLE k(k TEXT PRIMARY KEY, x) WITHOUT ROWID;");
    let fill = "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
        INSERT INTO t(x) SELECT i FROM n;
        INSERT INTO k SELECT printf('%05d', x), x FROM t LIMIT 100;";
    fixture.connection.execute_batch(fill).expect("SQL");
    let status = applied(&fixture, "t", vec![rows(3)]);
    assert_eq!(numbers(&fixture, "SELECT x FROM t"), [19_998, 19_999, 20_000]);
    assert_eq!((status.rows(), &status.tables["t"]), (19_997, &19_997));
    assert!(status.freed_bytes > 100_000 && status.transactions > 0, "{status:?}");
    applied(&fixture, "k", vec![rows(2)]);
    assert_eq!(numbers(&fixture, "SELECT x FROM k"), [99, 100]);
    let condition = Some("x <> 19998 -- that one stays".into());
    applied(&fixture, "T", vec![RetentionRule { condition, ..rows(1) }]);
    assert_eq!(numbers(&fixture, "SELECT x FROM t"), [19_998, 20_000]);
}

#[test]
fn events_go_by_their_age_without_an_index() {
    let fixture = fixture("");
    add_events(&fixture.connection, (0..40).rev());
    let odd = |days| RetentionRule { condition: Some("subject GLOB 'odd'".into()), ..self::days(days) };
    let mut rounds = Rounds::of(&fixture, &config("events", vec![odd(5), days(30)]));
    rounds.run();
    let left = || numbers(&fixture, "SELECT payload AS x FROM events ORDER BY id");
    let expected: Vec<i64> = (0..30).rev().filter(|ago| ago % 2 == 0 || *ago < 5).collect();
    assert_eq!(left(), expected);
    // The numbers begin again, below those that the last round passed.
    fixture.connection.execute_batch("DELETE FROM events").expect("SQL");
    add_events(&fixture.connection, [9, 8, 7, 0]);
    rounds.run();
    assert_eq!(left(), [8, 0]);
    assert_eq!(rounds.figures.now().rows(), 40 - expected.len() as u64 + 2);
}

#[test]
fn dead_letters_go_by_their_age_and_catchments_tables_never() {
    let fixture = fixture("");
    let insert = "INSERT INTO catchment_dead_letters(published_us, subject, payload, error, recorded_us) VALUES (0, 'a', '', 'e', ?)";
    for ago in [50, 40, 1] {
        fixture.connection.execute(insert, [now_us() - ago * DAY_US]).expect("inserts");
    }
    applied(&fixture, "dead_letters", vec![days(30)]);
    assert_eq!(numbers(&fixture, "SELECT id AS x FROM catchment_dead_letters"), [3]);
    for table in ["catchment_ledger", "catchment_recorders", "catchment_meta", "sqlite_schema", "Catchment_Migrations"]
    {
        let error = Rounds::of(&fixture, &config(table, vec![rows(1)])).error();
        assert!(error.contains(&format!("retention.{table}: is no table whose rows may be deleted")), "{error}");
    }
}

#[test]
fn times_of_any_kind_and_rows_without_one() {
    let fixture = fixture("CREATE TABLE s(at, x); CREATE INDEX s_at ON s(at); CREATE TABLE t(at TEXT, x);");
    let now = now_us() / 1_000_000;
    let insert = format!(
        "INSERT INTO s VALUES (NULL, 1), ({}, 2), ({}, 3), ({now}, 4);
         INSERT INTO t VALUES (datetime('now', '-40 days'), 1), ('', 2), (datetime('now', '-9 days'), 3), (NULL, 4);",
        now - 40 * 86_400,
        now - 9 * 86_400
    );
    fixture.connection.execute_batch(&insert).expect("SQL");
    let by_at = || RetentionRule { column: Some("AT".into()), ..days(30) };
    applied(&fixture, "s", vec![by_at()]);
    assert_eq!(numbers(&fixture, "SELECT x FROM s ORDER BY x"), [1, 3, 4]);
    applied(&fixture, "t", vec![by_at()]);
    assert_eq!(numbers(&fixture, "SELECT x FROM t ORDER BY x"), [2, 3, 4]);
    fixture.connection.execute_batch("UPDATE t SET at = 'soon' WHERE at <> ''").expect("SQL");
    let error = Rounds::of(&fixture, &config("t", vec![by_at()])).error();
    assert!(error.contains("retention.t.column: column at has the text \"soon\", which is no time"), "{error}");
}

#[test]
fn a_value_in_another_unit_or_none_at_all_harms_no_other_row() {
    let now = now_us() / 1_000_000;
    let old = now - 90 * 86_400;
    for (bad, stays) in [
        (format!("{}", now * 1_000), true),
        (format!("{}", old * 1_000), false),
        ("'soon'".into(), true),
        ("x'00ff'".into(), true),
        ("'2099-01-01T00:00:00+02:00'".into(), true),
    ] {
        for index in ["", "CREATE INDEX i ON t(at);"] {
            let fixture = fixture(&format!(
                "CREATE TABLE t(at, x); {index} INSERT INTO t VALUES ({old}, 1), ({bad}, 2), ({now}, 3), ({old}, 4);"
            ));
            let mut rule = days(30);
            rule.column = Some("at".into());
            let forecast = forecast(&fixture.config.path, &config("t", vec![rule.clone()]), &Signal::default());
            let would_go: u64 = forecast.expect("forecasts").iter().map(|rule| rule.rows).sum();
            applied(&fixture, "t", vec![rule]);
            let left = if stays { vec![2, 3] } else { vec![3] };
            assert_eq!(numbers(&fixture, "SELECT x FROM t ORDER BY x"), left, "{bad} {index}");
            assert_eq!(would_go, 4 - left.len() as u64);
        }
    }
}

#[test]
fn a_table_stays_below_its_size_and_the_disk_gets_pages_back() {
    let fixture = fixture("PRAGMA auto_vacuum = INCREMENTAL; VACUUM; CREATE TABLE t(x, y); CREATE INDEX t_x ON t(x);");
    let fill = "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
        INSERT INTO t SELECT i, randomblob(500) FROM n;";
    fixture.connection.execute_batch(fill).expect("SQL");
    let pages = || fixture.connection.query_row("PRAGMA page_count", [], |row| row.get::<_, u64>(0)).expect("asks");
    let before = pages();
    let most = bytesize::ByteSize::mib(1);
    let rule = RetentionRule { bytes: Some(most), ..RetentionRule::default() };
    let mut rounds = Rounds::of(&fixture, &config("t", vec![rule]));
    let status = rounds.run();
    let size = "SELECT sum(pgsize) AS x FROM dbstat WHERE name IN ('t', 't_x')";
    let size = || u64::try_from(numbers(&fixture, size)[0]).expect("a size");
    assert!(size() <= most.as_u64() && size() > most.as_u64() / 2, "{}", size());
    assert_eq!(numbers(&fixture, "SELECT max(x) AS x FROM t"), [20_000], "the oldest are gone");
    assert!(status.returned_bytes > 5_000_000 && status.returned_bytes <= status.freed_bytes, "{status:?}");
    assert_eq!((before - pages()) * 4_096, status.returned_bytes);
    assert_eq!(rounds.run(), status, "there is nothing more to do");
    assert_eq!(texts(&fixture.connection, "PRAGMA integrity_check"), ["ok"]);
}

#[test]
fn rules_that_do_not_fit_are_refused_with_a_suggestion() {
    let fixture =
        fixture("CREATE TABLE messages(id INTEGER PRIMARY KEY, timestamp, nick); CREATE VIEW v AS SELECT 1 AS a;");
    let refused = |table: &str, rule: RetentionRule| {
        let config = config(table, vec![rule]);
        fixture.open().check_retention(&config).expect_err("must be refused").to_string()
    };
    assert_eq!(
        refused("mesages", rows(1)),
        "configuration: retention.mesages: the database has no table mesages; did you mean messages?"
    );
    assert_eq!(
        refused("messages", days(1)),
        "configuration: retention.messages: keep needs the column with the time of a row; add column = \"timestamp\""
    );
    let column = Some("timestmp".into());
    assert_eq!(
        refused("messages", RetentionRule { column, ..days(1) }),
        "configuration: retention.messages.column: table messages has no column timestmp; did you mean timestamp?"
    );
    let condition = |sql: &str| RetentionRule { condition: Some(sql.into()), ..rows(1) };
    for (sql, said) in [
        ("nik = 'a'", "retention.messages.where: no such column: nik (at 1:1, \"nik = 'a'\"); did you mean nick?"),
        ("1; DELETE FROM messages", "it has a semicolon"),
        ("nick = :a", "the parameter :a has no value"),
        ("1) OR (1", "a bracket ) has no beginning"),
    ] {
        assert!(refused("messages", condition(sql)).contains(said), "{}", refused("messages", condition(sql)));
    }
    assert!(refused("v", rows(1)).contains("retention.v: is a view"));
    let archive = |path: &Path| RetentionRule { archive: Some(path.to_owned()), ..rows(1) };
    assert!(refused("messages", archive(&fixture.config.path)).contains("is the database itself"));
    assert!(
        refused("messages", archive(Path::new("/no/where/a.db"))).contains("its directory /no/where does not exist")
    );
}

#[test]
fn the_index_that_a_rule_needs_is_named() {
    let fixture = fixture(
        "CREATE TABLE a(at, x); CREATE INDEX i ON a(at); CREATE TABLE b(\"a t\", x); CREATE TABLE c(at INTEGER PRIMARY KEY);",
    );
    let by = |column: &str| RetentionRules(vec![RetentionRule { column: Some(column.into()), ..days(1) }]);
    let tables = [("a", "at"), ("b", "a t"), ("c", "at")].map(|(table, column)| (table.to_owned(), by(column)));
    let mut config = RetentionConfig { tables: tables.into() };
    config.tables.insert("events".into(), RetentionRules(vec![days(1)]));
    let found = check(&fixture.connection, &fixture.config.path, &config).expect("fits");
    let statement = "CREATE INDEX \"b_by_a t\" ON \"b\"(\"a t\");".to_owned();
    assert_eq!(found, [("b".to_owned(), statement.clone())]);
    fixture.connection.execute_batch(&statement).expect("SQL");
    assert_eq!(check(&fixture.connection, &fixture.config.path, &config).expect("fits"), []);
}

#[test]
fn foreign_keys_and_triggers_of_the_user_work() {
    let fixture = fixture(
        "CREATE TABLE rooms(id INTEGER PRIMARY KEY, x);
         CREATE TABLE lines(room REFERENCES rooms ON DELETE CASCADE);
         CREATE TABLE gone(x);
         CREATE TRIGGER kept AFTER DELETE ON rooms BEGIN INSERT INTO gone VALUES (old.x); END;
         INSERT INTO rooms VALUES (1, 1), (2, 2), (3, 3); INSERT INTO lines VALUES (1), (1), (3);",
    );
    let status = applied(&fixture, "rooms", vec![rows(1)]);
    assert_eq!(status.rows(), 2, "rows that others delete are not counted");
    assert_eq!(numbers(&fixture, "SELECT room AS x FROM lines"), [3]);
    assert_eq!(numbers(&fixture, "SELECT x FROM gone"), [1, 2]);
    // A row that may not go stays, and a trigger that keeps rows does not make the round endless.
    let others = "CREATE TABLE bills(room NOT NULL REFERENCES rooms); INSERT INTO bills VALUES (3);
        CREATE TRIGGER keep BEFORE DELETE ON gone BEGIN SELECT RAISE(IGNORE); END;";
    fixture.connection.execute_batch(others).expect("SQL");
    let error = Rounds::of(&fixture, &config("rooms", vec![rows(0)])).error();
    assert!(
        error.contains("a row of rooms cannot be deleted: FOREIGN KEY constraint failed; other tables refer"),
        "{error}"
    );
    assert_eq!(applied(&fixture, "gone", vec![rows(0)]).rows(), 0);
    assert_eq!(numbers(&fixture, "SELECT x FROM gone"), [1, 2]);
}

#[test]
fn rows_are_in_the_archive_before_they_are_gone() {
    let folder = tempfile::tempdir().expect("a folder");
    let fixture = fixture("CREATE TABLE t(id INTEGER PRIMARY KEY, x, b);");
    let fill = "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 2500)
        INSERT INTO t(x, b) SELECT i, CAST(x'ff00' AS TEXT) FROM n;";
    fixture.connection.execute_batch(fill).expect("SQL");
    let archive = |name: &str, most| RetentionRule { archive: Some(folder.path().join(name)), ..rows(most) };
    let status = applied(&fixture, "t", vec![archive("old.ndjson", 1_000)]);
    assert_eq!((status.rows(), status.archived_rows), (1_500, 1_500));
    let text = std::fs::read_to_string(folder.path().join("old.ndjson")).expect("reads");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((lines.len(), lines[1_499]), (1_500, r#"{"id":1500,"x":1500,"b":{"$blob":"/wA="}}"#));
    applied(&fixture, "t", vec![archive("old.db", 10)]);
    let old = Connection::open(folder.path().join("old.db")).expect("opens");
    let found = texts(&old, "SELECT count(*) || ' ' || min(x) || ' ' || max(x) || ' ' || typeof(b) || hex(b) FROM t");
    assert_eq!(found, ["990 1501 2490 textFF00"]);
    assert_eq!(numbers(&fixture, "SELECT count(*) AS x FROM t"), [10]);
    // What cannot be archived is not deleted.
    let unusable = RetentionRule { archive: Some(folder.path().join("gone/old.ndjson")), ..rows(1) };
    let error = Rounds::of(&fixture, &config("t", vec![unusable])).error();
    assert!(error.contains("gone/old.ndjson: retention.t.archive: opening it failed"), "{error}");
    assert_eq!(numbers(&fixture, "SELECT count(*) AS x FROM t"), [10]);
}

#[test]
fn a_row_that_changes_after_it_was_archived_stays_until_it_is_archived_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let fixture = fixture("CREATE TABLE t(id INTEGER PRIMARY KEY, x); INSERT INTO t VALUES (1, 'a'), (2, 'b');");
    let path = folder.path().join("old.db");
    let connection = ConnectionManager::new(&fixture.config, 0).open_plain().expect("opens");
    let target = Target::resolve(&connection, &fixture.config.path, "t", &rows(0)).expect("fits");
    let archive = Archive::new(&path, "t", &target.columns, 0o600);
    let row = |text: &str| vec![Cell::Integer(1), Cell::Text(text.into())];
    archive.add(&[row("a")], None).expect("adds");
    let mut delete = connection.prepare(&target.delete_sql(false, true)).expect("SQL");
    let mut deleted = |text: &str| {
        let key = [Cell::Integer(1)];
        delete.execute(rusqlite::params_from_iter(key.iter().chain(&row(text)))).expect("runs")
    };
    fixture.connection.execute_batch("UPDATE t SET x = 'A' WHERE id = 1").expect("SQL");
    assert_eq!(deleted("a"), 0, "it is another row now");
    assert_eq!(deleted("A"), 1);
}

#[test]
fn a_forecast_changes_nothing() {
    let fixture = fixture("");
    add_events(&fixture.connection, (0..10).rev());
    let config =
        config("events", vec![days(5), RetentionRule { condition: Some("subject = 'odd'".into()), ..rows(1) }]);
    let forecast = forecast(&fixture.config.path, &config, &Signal::default()).expect("reads");
    assert_eq!(forecast.iter().map(|rule| rule.rows).collect::<Vec<_>>(), [5, 4]);
    assert_eq!(numbers(&fixture, "SELECT count(*) AS x FROM events"), [10]);
}

#[test]
fn no_transaction_is_long_and_a_row_that_takes_long_is_reported() {
    let endless =
        "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 100000000) SELECT count(*) FROM n";
    let fixture = fixture(&format!(
        "CREATE TABLE t(x); INSERT INTO t VALUES (1), (2);
         CREATE TRIGGER slow AFTER DELETE ON t BEGIN SELECT ({endless}); END;"
    ));
    let error = Rounds::of(&fixture, &config("t", vec![rows(1)])).error();
    assert!(
        error.contains("retention.t: deleting one row of t takes so long") && error.contains("triggers"),
        "{error}"
    );
    assert_eq!(numbers(&fixture, "SELECT x FROM t"), [1, 2]);
}

#[test]
fn rows_of_rules_without_an_archive_are_not_said_to_be_in_one() {
    assert_eq!(super::in_an_archive(967, 0), "");
    assert_eq!(super::in_an_archive(967, 967), " that are in an archive");
    assert_eq!(super::in_an_archive(967, 7), ", 7 of them added to an archive before");
}
