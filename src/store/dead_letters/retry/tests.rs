use super::*;
use crate::config::{DatabaseConfig, RouteConfig, Unmatched};
use crate::store::{Database, Routes};

struct Fixture {
    _folder: tempfile::TempDir,
    config: DatabaseConfig,
    connection: Connection,
}

/// A database with these tables beside catchment's own.
fn fixture(tables: &str) -> Fixture {
    let folder = tempfile::tempdir().expect("a folder");
    let config = DatabaseConfig { path: folder.path().join("a.db"), ..DatabaseConfig::default() };
    drop(Database::open(&config, &Routes::default()).expect("a new database"));
    let connection = Connection::open(&config.path).expect("opens");
    connection.execute_batch(tables).expect("SQL");
    Fixture { _folder: folder, config, connection }
}

fn route(subject: &str, sql: &[&str]) -> RouteConfig {
    let sql = sql.iter().map(|&sql| sql.to_owned()).collect();
    RouteConfig { subject: subject.into(), sql, ..RouteConfig::default() }
}

impl Fixture {
    /// Adds a letter with each of these payloads.
    fn letters(&self, subject: &str, payloads: impl IntoIterator<Item = impl Into<String>>) {
        let sql = "INSERT INTO catchment_dead_letters(
                       stream, epoch, sequence, published_us, subject, headers, payload, route, statement, error, recorded_us
                   ) VALUES ('S', 1, ?3, 5, ?1, '{\"A\":[\"1\",\"2\"],\"Nats-Msg-Id\":\"m\"}', ?2, 'old', 'old', 'old', 1)";
        for (payload, sequence) in payloads.into_iter().zip(1..) {
            self.connection.execute(sql, params![subject, payload.into(), sequence]).expect("SQL");
        }
    }

    fn retry(&self, routes: &[RouteConfig], selection: &Selection) -> RetryReport {
        let routes = Routes::new(routes, Unmatched::Store).expect("routes");
        let database = Database::open(&self.config, &routes).expect("opens");
        let mut last = RetryReport::default();
        let report = database.retry(selection, UnreadableHeaders::Keep, |so_far| {
            assert!(so_far.total() > last.total(), "{so_far:?}");
            last = so_far.clone();
            ControlFlow::Continue(())
        });
        let report = report.expect("the database is well");
        assert_eq!(report, last);
        report
    }

    fn texts(&self, sql: &str) -> Vec<String> {
        let mut statement = self.connection.prepare(sql).expect("SQL");
        let rows = statement.query_map([], |row| row.get(0)).expect("runs");
        rows.collect::<Result<_, _>>().expect("text")
    }

    fn dead(&self) -> Vec<String> {
        self.texts(
            "SELECT payload || ' ' || ifnull(route, '-') || ' ' || ifnull(statement, '-') || ' ' || error
             || iif(recorded_us > 1, '', ' untouched') FROM catchment_dead_letters ORDER BY id",
        )
    }
}

const STORED: RetryReport = RetryReport { stored: 0, refused: 0, skipped: 0, reasons: Vec::new() };

#[test]
fn a_stored_letter_is_removed() {
    let fixture = fixture("CREATE TABLE lines(text, sequence, stream, at, header, id)");
    fixture.letters("a.b", ["{\"text\":\"one\"}", "{\"text\":\"two\"}"]);
    fixture.letters("c", ["three"]);
    let from_no_stream = "UPDATE catchment_dead_letters SET stream = NULL, epoch = NULL, sequence = NULL WHERE id = 3";
    fixture.connection.execute_batch(from_no_stream).expect("SQL");
    let sql = "INSERT INTO lines VALUES (:text, :sequence, :stream, :published_us, :header_a, :message_id)";
    let report = fixture.retry(&[route("a.*", &[sql])], &Selection::default());
    assert_eq!(report, RetryReport { stored: 3, ..STORED });
    let lines = "SELECT concat_ws(' ', text, sequence, stream, at, header, id) FROM lines ORDER BY rowid";
    assert_eq!(fixture.texts(lines), ["one 1 S 5 1 m", "two 2 S 5 1 m"]);
    let events = "SELECT concat_ws(' ', subject, payload, stream, sequence, published_us, headers) FROM events";
    assert_eq!(fixture.texts(events), [r#"c three 5 {"A":["1","2"],"Nats-Msg-Id":"m"}"#]);
    assert_eq!(fixture.dead(), [""; 0]);
    assert_eq!(fixture.texts("SELECT stream FROM catchment_ledger"), [""; 0], "the ledger is left alone");
}

#[test]
fn a_letter_refused_again_stays_with_its_new_reason() {
    let fixture = fixture("CREATE TABLE lines(text NOT NULL UNIQUE); CREATE TABLE counts(n)");
    fixture.letters("a", ["{\"text\":\"one\"}", "{}", "{\"text\":\"one\"}", "not JSON", "{\"text\":\"two\"}"]);
    let insert = "INSERT INTO lines VALUES (:text)";
    let report = fixture.retry(&[route("a", &["INSERT INTO counts VALUES (:text)", insert])], &Selection::default());
    assert_eq!((report.stored, report.refused, report.skipped), (2, 3, 0));
    assert_eq!(report.reasons[0], (2, "NOT NULL constraint failed: lines.text".into()));
    assert_eq!(fixture.texts("SELECT text FROM lines ORDER BY rowid"), ["one", "two"]);
    assert_eq!(fixture.texts("SELECT n FROM counts ORDER BY rowid"), ["one", "two"]);
    let dead = fixture.dead();
    assert_eq!(dead[0], format!("{{}} a {insert} NOT NULL constraint failed: lines.text"));
    assert_eq!(dead[1], format!("{{\"text\":\"one\"}} a {insert} UNIQUE constraint failed: lines.text"));
    assert!(dead[2].starts_with("not JSON a - the payload"), "{}", dead[2]);
    // Once the table is corrected, they are stored.
    fixture.connection.execute_batch("DROP TABLE lines; CREATE TABLE lines(text)").expect("SQL");
    let corrected = [route("a", &["INSERT INTO lines VALUES (:payload)"])];
    assert_eq!(fixture.retry(&corrected, &Selection::default()), RetryReport { stored: 3, ..STORED });
    assert_eq!(fixture.texts("SELECT text FROM lines ORDER BY rowid"), ["{}", "{\"text\":\"one\"}", "not JSON"]);
}

#[test]
fn a_letter_that_ends_the_transaction_affects_no_other() {
    let fixture = fixture(
        "CREATE TABLE lines(text);
         CREATE TRIGGER t BEFORE INSERT ON lines WHEN new.text = 'bad' BEGIN SELECT RAISE(ROLLBACK, 'no bad lines'); END;",
    );
    let payloads =
        (0..250).map(|n| if n % 100 == 57 { "{\"text\":\"bad\"}".into() } else { format!("{{\"text\":\"{n}\"}}") });
    fixture.letters("a", payloads);
    let report = fixture.retry(&[route("a", &["INSERT INTO lines VALUES (:text)"])], &Selection::default());
    assert_eq!((report.stored, report.refused), (248, 2));
    let expected: Vec<String> = (0..250).filter(|n| n % 100 != 57).map(|n| n.to_string()).collect();
    assert_eq!(fixture.texts("SELECT text FROM lines ORDER BY rowid"), expected);
    assert_eq!(fixture.dead(), vec!["{\"text\":\"bad\"} a INSERT INTO lines VALUES (:text) no bad lines"; 2]);
}

#[test]
fn a_letter_refused_at_commit_affects_no_other() {
    let fixture = fixture(
        "CREATE TABLE users(name TEXT PRIMARY KEY); INSERT INTO users VALUES ('ann');
         CREATE TABLE lines(user TEXT REFERENCES users(name) DEFERRABLE INITIALLY DEFERRED);",
    );
    fixture.letters("a", ["{\"user\":\"ann\"}", "{\"user\":\"bob\"}", "{\"user\":\"ann\"}"]);
    let report = fixture.retry(&[route("a", &["INSERT INTO lines VALUES (:user)"])], &Selection::default());
    assert_eq!((report.stored, report.refused), (2, 1));
    assert_eq!(fixture.texts("SELECT user FROM lines"), ["ann", "ann"]);
    assert_eq!(fixture.dead(), ["{\"user\":\"bob\"} a COMMIT FOREIGN KEY constraint failed"]);
}

#[test]
fn only_those_selected_are_tried() {
    let fixture = fixture("");
    fixture.letters("a", ["1", "2", "3"]);
    fixture.letters("b", ["4"]);
    let selection = Selection { subject: Some("a".parse().expect("a filter")), limit: Some(2), ..Selection::default() };
    assert_eq!(fixture.retry(&[], &selection), RetryReport { stored: 2, ..STORED });
    assert_eq!(fixture.texts("SELECT payload FROM events ORDER BY id"), ["1", "2"]);
    assert_eq!(fixture.dead(), ["3 old old old untouched", "4 old old old untouched"]);
}

#[test]
fn unreadable_headers_are_left_out_only_on_request() {
    let fixture = fixture("");
    fixture.letters("a", ["1", "2"]);
    fixture.connection.execute_batch("UPDATE catchment_dead_letters SET headers = x'ff' WHERE id = 1").expect("SQL");
    let kept = fixture.retry(&[], &Selection::default());
    assert_eq!((kept.stored, kept.refused, kept.skipped), (1, 0, 1));
    assert!(kept.reasons[0].1.contains("UnreadableHeaders::LeaveOut"), "{kept:?}");
    assert_eq!(fixture.dead(), ["1 old old old untouched"]);
    let database = Database::open(&fixture.config, &Routes::default()).expect("opens");
    let tried = database
        .retry(&Selection::default(), UnreadableHeaders::LeaveOut, |_| ControlFlow::Continue(()))
        .expect("well");
    assert_eq!(tried, RetryReport { stored: 1, ..STORED });
    assert_eq!(fixture.texts("SELECT payload FROM events WHERE headers IS NULL"), ["1"]);
}

#[test]
fn a_letter_that_would_be_dropped_stays() {
    let fixture = fixture("");
    fixture.letters("a", ["1"]);
    let routes = Routes::new(&[route("b", &["INSERT INTO events SELECT * FROM events WHERE 0"])], Unmatched::Drop);
    let database = Database::open(&fixture.config, &routes.expect("routes")).expect("opens");
    let tried =
        database.retry(&Selection::default(), UnreadableHeaders::Keep, |_| ControlFlow::Continue(())).expect("well");
    assert_eq!((tried.stored, tried.skipped), (0, 1));
    assert!(tried.reasons[0].1.contains("no route matches it"), "{tried:?}");
    assert_eq!(fixture.dead(), ["1 old old old untouched"]);
}

#[test]
fn a_missing_table_loses_no_letter() {
    let fixture = fixture("CREATE TABLE lines(text)");
    fixture.letters("a", ["{\"text\":\"one\"}"]);
    let routes = Routes::new(&[route("a", &["INSERT INTO lines VALUES (:text)"])], Unmatched::Store).expect("routes");
    let database = Database::open(&fixture.config, &routes).expect("opens");
    fixture.connection.execute_batch("DROP TABLE lines").expect("SQL");
    let refused = database
        .retry(&Selection::default(), UnreadableHeaders::Keep, |_| ControlFlow::Continue(()))
        .expect_err("cannot go on");
    assert!(refused.to_string().contains("route a, statement 1: no such table: lines"), "{refused}");
    assert_eq!(fixture.dead().len(), 1);
}

#[test]
fn a_letter_that_uses_the_last_row_number_stops_no_later_ones() {
    let fixture = fixture("CREATE TABLE lines(id INTEGER PRIMARY KEY AUTOINCREMENT, x)");
    fixture.letters("a", ["{}".into(), format!("{{\"id\":{}}}", i64::MAX), "{}".into(), "{\"id\":7}".into()]);
    let report = fixture.retry(&[route("a", &["INSERT INTO lines(id) VALUES (:id)"])], &Selection::default());
    assert_eq!((report.stored, report.refused), (3, 1));
    assert!(report.reasons[0].1.starts_with("table lines has no row number left"), "{report:?}");
}

#[test]
fn the_order_of_equal_headers_is_kept() {
    let headers = [("trace-id", "2"), ("Trace-Id", "1"), ("trace-id", "3")];
    let fixture = fixture("CREATE TABLE lines(x CHECK (x < 0))");
    let add = [route("a", &["INSERT INTO lines VALUES (:header_trace_id)"])];
    let routes = Routes::new(&add, Unmatched::Store).expect("routes");
    Database::open(&fixture.config, &routes)
        .expect("opens")
        .event_writer()
        .commit(5, "a", headers, b"")
        .expect("commits");
    fixture.connection.execute_batch("DROP TABLE lines; CREATE TABLE lines(x)").expect("SQL");
    assert_eq!(fixture.retry(&add, &Selection::default()).stored, 1);
    assert_eq!(fixture.texts("SELECT x FROM lines"), ["2"]);
}

#[test]
fn a_retry_ends_after_the_transaction_in_which_its_caller_breaks() {
    let fixture = fixture("CREATE TABLE lines(text)");
    fixture.letters("a", (0..250).map(|n| format!("{{\"text\": {n}}}")));
    let routes = Routes::new(&[route("a", &["INSERT INTO lines VALUES (:text)"])], Unmatched::Store).expect("routes");
    let database = Database::open(&fixture.config, &routes).expect("opens");
    for newest_first in [false, true] {
        let mut calls = 0;
        let selection = Selection { newest_first, ..Selection::default() };
        let report = database.retry(&selection, UnreadableHeaders::Keep, |_| {
            calls += 1;
            ControlFlow::Break(())
        });
        let stored = report.expect("well").stored;
        assert!((1..=100).contains(&stored) && calls == 1, "{stored} in {calls} transactions");
    }
    let left = "SELECT (count(*) + (SELECT count(*) FROM lines)) || '' FROM catchment_dead_letters";
    assert_eq!(fixture.texts(left), ["250"]);
}

#[test]
fn slow_letters_are_tried_in_several_transactions_and_each_once() {
    let fixture = fixture("CREATE TABLE lines(text UNIQUE)");
    fixture.letters("a", (0..12).map(|n| format!("{{\"text\": {n}}}")));
    let slow = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 200000) INSERT INTO lines SELECT :text FROM n WHERE x = 1";
    let routes = Routes::new(&[route("a", &[slow])], Unmatched::Store).expect("routes");
    for newest_first in [false, true] {
        let database = Database::open(&fixture.config, &routes).expect("opens");
        let selection = Selection { newest_first, limit: Some(6), ..Selection::default() };
        let report = database.retry(&selection, UnreadableHeaders::Keep, |_| ControlFlow::Continue(())).expect("well");
        assert_eq!(report, RetryReport { stored: 6, ..STORED });
    }
    assert_eq!(fixture.texts("SELECT count(*) || '' FROM lines"), ["12"]);
}
