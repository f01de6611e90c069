use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use bytesize::ByteSize;

use super::*;
use crate::config::{DatabaseConfig, QueryConfig};
use crate::pipeline::{Mark, SingleEvent};
use crate::store::{Database, Editor, Routes};

const ENDLESS: &str = "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n";

struct Fixture {
    _folder: tempfile::TempDir,
    path: PathBuf,
    runner: QueryRunner,
    quit: Signal,
}

impl Fixture {
    fn new(queries: &[QueryConfig]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.db");
        drop(
            Database::open(&DatabaseConfig { path: path.clone(), ..DatabaseConfig::default() }, &Routes::default())
                .expect("opens"),
        );
        let sql = "CREATE TABLE chat(id INTEGER PRIMARY KEY, user TEXT, line TEXT);
                   INSERT INTO chat(user, line) VALUES ('ann', 'one'), ('bob', 'two'), ('ann', 'three')";
        edit(&path, sql);
        let quit = Signal::default();
        let runner = QueryRunner::new(&Queries::check(&path, queries).expect("queries"), &quit);
        Self { _folder: folder, path, runner, quit }
    }

    fn of(sql: &str) -> Self {
        Self::new(&[QueryConfig::new("chat.q", sql)])
    }

    /// The answer of the first query to this payload.
    fn ask(&mut self, payload: &str) -> Result<String, QueryError> {
        self.ask_for(0, payload, usize::MAX)
    }

    fn ask_for(&mut self, query: usize, payload: &str, most: usize) -> Result<String, QueryError> {
        let mut event = SingleEvent::default();
        let mark = Mark { sequence: 0, published_ns: 1_700_000_000_123_456_789 };
        event.replace(mark, "chat.q.7", [("Trace-Id", "t")], payload.as_bytes());
        let mut answer = b"before ".to_vec();
        let rows = self.runner.answer(query, &Envelope::of(&event.delivery(), None), most, &mut answer)?;
        let answer = String::from_utf8(answer).expect("UTF-8").split_off(7);
        let found: Vec<serde_json::Value> = serde_json::from_str(&answer).expect("an array");
        assert_eq!(found.len(), rows);
        Ok(answer)
    }
}

/// Whether an error is of this kind and its message contains these words.
fn is(error: &QueryError, kind: QueryErrorKind, words: &str) -> bool {
    error.kind() == kind && error.to_string().contains(words)
}

fn edit(path: &Path, sql: &str) {
    Editor::open(path).expect("opens").run(sql).expect("SQL");
}

#[test]
fn rows_are_an_array_of_objects_with_every_type_and_digit() {
    let mut fixture = Fixture::of(
        "SELECT 9223372036854775807 AS big, 1.5 AS real, 9e999 AS endless, NULL AS none, 'ü\"' AS text,
                x'00ff' AS bytes, CAST(x'61ff62' AS TEXT) AS broken, 1 AS big",
    );
    let expected = concat!(
        r#"[{"big":9223372036854775807,"real":1.5,"endless":null,"none":null,"text":"ü\"","#,
        r#""bytes":{"$blob":"AP8="},"broken":"a"#,
        "\u{fffd}",
        r#"b","big_2":1}]"#
    );
    assert_eq!(fixture.ask("").expect("rows"), expected);
}

#[test]
fn parameters_come_from_the_request_and_its_envelope() {
    let mut fixture = Fixture::of(
        "SELECT :limit AS l, :token_3 AS t, :header_trace_id AS h, :published_us AS at, :stream AS s, :payload AS p",
    );
    let expected =
        r#"[{"l":9007199254740993,"t":"7","h":"t","at":1700000000123456,"s":null,"p":"{\"limit\":9007199254740993}"}]"#;
    assert_eq!(fixture.ask(r#"{"limit":9007199254740993}"#).expect("rows"), expected);
    let expected = r#"[{"l":null,"t":"7","h":"t","at":1700000000123456,"s":null,"p":""}]"#;
    assert_eq!(fixture.ask("").expect("rows"), expected, "an empty request has no fields");
    let mut fixture =
        Fixture::of("SELECT line FROM chat WHERE user = :user ORDER BY id DESC LIMIT coalesce(:limit, 1)");
    assert_eq!(fixture.ask(r#"{"user":"ann"}"#).expect("rows"), r#"[{"line":"three"}]"#);
    assert_eq!(fixture.ask(r#"{"user":"ann","limit":9}"#).expect("rows"), r#"[{"line":"three"},{"line":"one"}]"#);
    assert_eq!(fixture.ask(r#"{"user":"x' OR 1 --","limit":9}"#).expect("rows"), "[]", "a value is never SQL");
}

#[test]
fn a_wrong_parameter_is_refused_with_those_that_there_are() {
    let limit = serde_json::json!({ "type": "integer", "default": 2, "min": 0, "max": 9 });
    let limit = serde_json::from_value(limit).expect("a parameter");
    let sql = "SELECT id FROM chat WHERE user = coalesce(:user, user) ORDER BY id LIMIT :limit";
    let parameters = [("limit".to_owned(), limit)].into();
    let mut fixture = Fixture::new(&[QueryConfig { parameters, ..QueryConfig::new("chat.q", sql) }]);
    for (payload, said) in [
        (r#"{"limt":1}"#, r#""limt" is not a parameter; the parameters are user, limit"#),
        (r#"{"limit":-1}"#, "limit is -1; it must be an integer from 0 to 9"),
        (r#"{"limit":true}"#, "limit is true; it must be an integer from 0 to 9"),
        ("[1]", "the request is not an object; the parameters are user, limit"),
    ] {
        let refused = fixture.ask(payload).expect_err(payload);
        assert!(is(&refused, QueryErrorKind::Request, ""), "{refused:?}");
        assert_eq!(refused.to_string(), format!("query chat.q: {said}"));
    }
    let two = r#"[{"id":1},{"id":2}]"#;
    for payload in ["", "{}", "null", r#"{"limit":null}"#, r#"{"limit":"2"}"#, r#"{"limit":2.0}"#] {
        assert_eq!(fixture.ask(payload).expect(payload), two, "{payload}");
    }
    assert_eq!(fixture.ask(r#"{"user":"bob","limit":9}"#).expect("rows"), r#"[{"id":2}]"#);
}

#[test]
fn doubled_names_are_bound_as_sqlite_reads_them() {
    let sql = "SELECT :a AS a, :payload ->> '$.a' AS their_a";
    let mut fixture = Fixture::new(&[QueryConfig::new("chat.q", sql)]);
    for (payload, a) in [
        (r#"{"a":1,"a":2}"#, "1"),
        (r#"{"a":null,"a":2}"#, "null"),
        (r#"{"a":3,"a":{"b":2}}"#, "3"),
        (r#"{"b":1,"\u0061":4,"a":5}"#, "4"),
    ] {
        let expected = format!(r#"[{{"a":{a},"their_a":{a}}}]"#);
        assert_eq!(fixture.ask(payload).expect("a row"), expected, "{payload}");
    }
    let sql = "SELECT :a AS a, :payload ->> '$.a' AS their_a, :within AS b, :payload ->> '$.a.b' AS their_b";
    let bind = [("within".to_owned(), "/a/b".to_owned())].into();
    let mut fixture = Fixture::new(&[QueryConfig { bind, ..QueryConfig::new("chat.q", sql) }]);
    for (payload, a, b) in [
        (r#"{"a":null,"a":{"b":2}}"#, "null", "null"),
        (r#"{"a":{"b":1},"a":2}"#, r#""{\"b\":1}""#, "1"),
        (r#"{"a":{"b":1},"a":{"b":2}}"#, r#""{\"b\":1}""#, "1"),
        (r#"{"a":{"c":1},"a":{"b":2}}"#, r#""{\"c\":1}""#, "null"),
        (r#"{"a":{"b":"x","b":7}}"#, r#""{\"b\":\"x\",\"b\":7}""#, r#""x""#),
    ] {
        let expected = format!(r#"[{{"a":{a},"their_a":{a},"b":{b},"their_b":{b}}}]"#);
        assert_eq!(fixture.ask(payload).expect("a row"), expected, "{payload}");
    }
}

#[test]
fn a_request_that_cannot_be_read_or_bound_fails_alone() {
    let mut fixture = Fixture::of("SELECT line FROM chat WHERE json_valid(:ok) LIMIT :limit");
    for (payload, words) in [("{", "cannot be read as JSON"), (r#"{"limit":"many","ok":"1"}"#, "datatype mismatch")] {
        let refused = fixture.ask(payload).expect_err(payload);
        assert!(is(&refused, QueryErrorKind::Request, words), "{payload}: {refused:?}");
        assert!(refused.to_string().contains("query chat.q: "), "{refused}");
    }
    assert_eq!(fixture.ask(r#"{"limit":1,"ok":"1"}"#).expect("rows"), r#"[{"line":"one"}]"#, "the next is answered");
    let mut fixture = Fixture::of("SELECT json_extract(:text, '$.a') AS a");
    assert!(is(&fixture.ask(r#"{"text":"{"}"#).expect_err("broken"), QueryErrorKind::Request, "malformed JSON"));
}

#[test]
fn an_answer_is_whole_or_an_error() {
    let sql = "SELECT id FROM chat ORDER BY id";
    let limited = |max_rows, max_bytes| QueryConfig { max_rows, max_bytes, ..QueryConfig::new("chat.q", sql) };
    let whole = r#"[{"id":1},{"id":2},{"id":3}]"#;
    for (config, words) in [
        (limited(3, ByteSize::b(28)), None),
        (limited(2, ByteSize::b(28)), Some("larger than 2 rows, its max_rows")),
        (limited(3, ByteSize::b(27)), Some("larger than 27 bytes, its max_bytes")),
    ] {
        let answered = Fixture::new(&[config]).ask("").map_err(|why| why.to_string());
        match words {
            None => assert_eq!(answered.as_deref(), Ok(whole)),
            Some(words) => assert!(answered.as_ref().expect_err("must be refused").contains(words), "{answered:?}"),
        }
    }
    let mut fixture = Fixture::of("SELECT hex(zeroblob(:n)) AS h");
    assert!(fixture.ask_for(0, r#"{"n":100}"#, 210).is_ok());
    let refused = fixture.ask_for(0, r#"{"n":101}"#, 210).expect_err("too large");
    assert!(is(&refused, QueryErrorKind::TooLarge, "210 bytes, the server's limit"));
}

#[test]
fn a_slow_statement_is_interrupted_at_its_timeout_or_the_quit() {
    let timeout = Duration::from_millis(50);
    let endless = QueryConfig { timeout, ..QueryConfig::new("chat.endless", ENDLESS) };
    let mut fixture = Fixture::new(&[endless, QueryConfig::new("chat.one", "SELECT 1 AS one")]);
    let began = Instant::now();
    let refused = fixture.ask("").expect_err("too slow");
    assert!(is(&refused, QueryErrorKind::Timeout, "query chat.endless took longer than its timeout, 50ms"));
    assert!(std::error::Error::source(&refused).is_some());
    assert!((timeout..Duration::from_secs(5)).contains(&began.elapsed()), "{:?}", began.elapsed());
    assert_eq!(fixture.ask_for(1, "", 100).expect("rows"), r#"[{"one":1}]"#, "the next is answered");
    let mut fixture =
        Fixture::new(&[QueryConfig { timeout: Duration::from_secs(3600), ..QueryConfig::new("q", ENDLESS) }]);
    // The quit is raised while the statement runs: at its second check of the clock.
    let (quit, watch) = (fixture.quit.clone(), Arc::clone(&fixture.runner.watch));
    let mut looks = 0;
    let look = move || {
        let is_over = watch.is_over();
        looks += 1;
        if looks == 2 {
            quit.raise();
        }
        is_over
    };
    fixture.runner.connection.as_ref().expect("one").progress_handler(STEPS, Some(look)).expect("sets");
    assert!(is(&fixture.ask("").expect_err("interrupted"), QueryErrorKind::Stopping, "the collector is stopping"));
}

#[test]
fn long_values_and_patterns_are_refused() {
    let mut fixture = Fixture::of("SELECT length(hex(zeroblob(:n))) AS h, :text LIKE :pattern AS l");
    let ask = |n: u32, length: usize| format!(r#"{{"n":{n},"text":"abc","pattern":"%{}"}}"#, "b".repeat(length - 1));
    assert_eq!(fixture.ask(&ask((1 << 26) - 1, 1_000)).expect("rows"), r#"[{"h":134217726,"l":0}]"#);
    for (n, length, words) in [(1 << 26, 9, "string or blob too big"), (1, 1_001, "pattern too complex")] {
        let refused = fixture.ask(&ask(n, length)).expect_err(words);
        assert!(is(&refused, QueryErrorKind::Request, words), "{refused:?}");
    }
}

#[test]
fn a_deeply_nested_schema_can_be_queried() {
    let mut fixture = Fixture::of("SELECT count(*) AS n FROM chat");
    let deep = (0..900).map(|n| format!("a = {n}")).collect::<Vec<_>>().join(" OR ");
    let wide = (0..400).map(|n| format!("SELECT {n}")).collect::<Vec<_>>().join(" UNION ALL ");
    edit(&fixture.path, &format!("CREATE TABLE deep(a CHECK ({deep})); CREATE VIEW wide AS {wide}"));
    assert_eq!(fixture.ask("").expect("rows"), r#"[{"n":3}]"#);
}

#[test]
fn committed_rows_are_seen_and_batches_only_whole() {
    let mut fixture = Fixture::of("SELECT count(*) AS n, count(DISTINCT user) AS users FROM chat WHERE line = 'load'");
    let done = AtomicBool::new(false);
    let path = fixture.path.clone();
    thread::scope(|threads| {
        threads.spawn(|| {
            let editor = Editor::open(&path).expect("opens");
            for _ in 0..200 {
                let both = "BEGIN; INSERT INTO chat(user, line) VALUES ('a', 'load'), ('b', 'load'); COMMIT";
                editor.run(both).expect("commits");
            }
            done.store(true, Ordering::Release);
        });
        let mut last = 0;
        loop {
            let is_last = done.load(Ordering::Acquire);
            let rows: Vec<serde_json::Value> = serde_json::from_str(&fixture.ask("").expect("rows")).expect("JSON");
            let count = rows[0]["n"].as_u64().expect("a number");
            assert!(count.is_multiple_of(2) && count >= last, "{count} behind {last}");
            last = count;
            if is_last {
                break;
            }
        }
        assert_eq!(last, 400);
    });
}

#[test]
fn schema_changes_are_seen_and_a_missing_table_is_named() {
    let mut fixture = Fixture::of("SELECT * FROM chat WHERE id = 1");
    assert_eq!(fixture.ask("").expect("rows"), r#"[{"id":1,"user":"ann","line":"one"}]"#);
    edit(&fixture.path, "ALTER TABLE chat ADD COLUMN at INTEGER DEFAULT 7");
    assert_eq!(fixture.ask("").expect("rows"), r#"[{"id":1,"user":"ann","line":"one","at":7}]"#);
    edit(&fixture.path, "ALTER TABLE chat RENAME TO talk");
    let mismatch = fixture.ask("").expect_err("gone");
    assert!(is(&mismatch, QueryErrorKind::SchemaMismatch, "no such table: chat"), "{mismatch:?}");
    edit(&fixture.path, "ALTER TABLE talk RENAME TO chat");
    assert!(fixture.ask("").is_ok(), "it is there again");
}

#[test]
fn a_file_that_was_replaced_is_not_answered_from() {
    let mut fixture = Fixture::of("SELECT count(*) AS n FROM chat");
    assert!(fixture.ask("").is_ok());
    let away = fixture.path.with_extension("away");
    std::fs::rename(&fixture.path, &away).expect("moves");
    assert!(is(&fixture.ask("").expect_err("moved"), QueryErrorKind::Database, "was moved"));
    std::fs::rename(&away, &fixture.path).expect("moves");
    assert!(fixture.ask("").is_ok());
}
