//! For any batches and any failing events, the database ends as if each event had been run alone in its own transaction.

use proptest::prelude::*;
use rusqlite::{Connection, named_params};

use crate::config::Unmatched;
use crate::store::fixture::{Fixture, batch_of, route, texts};

/// Its triggers treat an event according to its `kind`.
const SCHEMA: &str = "
    PRAGMA foreign_keys = ON;
    CREATE TABLE known(kind TEXT PRIMARY KEY);
    INSERT INTO known VALUES ('good'), ('ignored'), ('once'), ('take');
    CREATE TABLE lines(id INTEGER PRIMARY KEY, n INTEGER, kind TEXT);
    CREATE TABLE counts(kind TEXT PRIMARY KEY, count INTEGER, last INTEGER);
    CREATE TABLE once(n INTEGER UNIQUE ON CONFLICT ROLLBACK);
    CREATE TABLE taken(n INTEGER UNIQUE);
    CREATE TABLE seen(kind TEXT REFERENCES known DEFERRABLE INITIALLY DEFERRED);
    CREATE TRIGGER line AFTER INSERT ON lines BEGIN
        SELECT raise(ABORT, 'aborted first') WHERE NEW.kind = 'abort 1';
        SELECT raise(FAIL, 'failed first') WHERE NEW.kind = 'fail 1';
        SELECT raise(ROLLBACK, 'rolled back first') WHERE NEW.kind = 'rollback 1';
        SELECT raise(IGNORE) WHERE NEW.kind = 'ignored';
        SELECT json_extract('{', '$.a') WHERE NEW.kind = 'function';
    END;
    CREATE TRIGGER count BEFORE INSERT ON counts BEGIN
        SELECT raise(ABORT, 'aborted then') WHERE NEW.kind = 'abort 2';
        SELECT raise(FAIL, 'failed then') WHERE NEW.kind = 'fail 2';
        SELECT raise(ROLLBACK, 'rolled back then') WHERE NEW.kind = 'rollback 2';
        INSERT INTO once SELECT NEW.last % 7 WHERE NEW.kind LIKE 'once%';
        INSERT INTO taken SELECT NEW.last % 7 WHERE NEW.kind LIKE 'take%';
    END;
";

const STATEMENTS: [&str; 3] = [
    "INSERT INTO lines(n, kind) VALUES (:n, :kind)",
    "INSERT INTO counts VALUES (:kind, 1, :n) ON CONFLICT(kind) DO UPDATE SET count = count + 1, last = excluded.last",
    "INSERT INTO seen VALUES (:kind)",
];

const KINDS: [&str; 15] = [
    "good",
    "ignored",
    "once",
    "take",
    // Their changes are undone, so the next event may make them.
    "once, deferred",
    "take, deferred",
    "deferred",
    "abort 1",
    "fail 1",
    "rollback 1",
    "function",
    "abort 2",
    "fail 2",
    "rollback 2",
    "unreadable",
];

/// The content of the tables, and the dead letters with their reasons.
type End = (Vec<Vec<String>>, Vec<String>);

fn tables(connection: &Connection) -> Vec<Vec<String>> {
    [
        "SELECT id || ' ' || n || ' ' || kind FROM lines ORDER BY id",
        "SELECT kind || ' ' || count || ' ' || last FROM counts ORDER BY kind",
        "SELECT CAST(n AS TEXT) FROM once ORDER BY rowid",
        "SELECT CAST(n AS TEXT) FROM taken ORDER BY rowid",
        "SELECT kind FROM seen ORDER BY rowid",
    ]
    .map(|sql| texts(connection, sql))
    .into()
}

/// Runs each event alone: slow, but obviously right.
fn alone(kinds: &[&str]) -> End {
    let connection = Connection::open_in_memory().expect("memory");
    connection.execute_batch(SCHEMA).expect("a schema");
    let mut dead = Vec::new();
    for (n, kind) in (0_i64..).zip(kinds) {
        if *kind == "unreadable" {
            dead.push(format!("{n}: unreadable"));
            continue;
        }
        let run = || -> rusqlite::Result<()> {
            connection.execute_batch("BEGIN IMMEDIATE")?;
            for sql in STATEMENTS {
                let mut statement = connection.prepare(sql)?;
                for (name, value) in named_params! { ":n": n, ":kind": kind } {
                    if let Some(index) = statement.parameter_index(name)? {
                        statement.raw_bind_parameter(index, value)?;
                    }
                }
                statement.raw_execute()?;
            }
            connection.execute_batch("COMMIT")
        };
        if let Err(error) = run() {
            let rusqlite::Error::SqliteFailure(_, Some(error)) = error else { panic!("{error:?}") };
            dead.push(format!("{n}: {error}"));
            if !connection.is_autocommit() {
                connection.execute_batch("ROLLBACK").expect("rolls back");
            }
        }
    }
    (tables(&connection), dead)
}

fn batched(kinds: &[&str], sizes: &[usize]) -> (End, i64, usize) {
    let mut fixture = Fixture::with_routes(SCHEMA, &[route("a", &STATEMENTS)], Unmatched::Store).expect("opens");
    let payload = |(n, kind): (usize, &&str)| match *kind {
        "unreadable" => format!("[{n}"),
        kind => serde_json::json!({ "n": n, "kind": kind }).to_string(),
    };
    let payloads: Vec<String> = kinds.iter().enumerate().map(payload).collect();
    let (mut after, mut counted) = (0, 0);
    for size in sizes.iter().cycle() {
        let end = payloads.len().min(after + size);
        if after == end {
            break;
        }
        let events: Vec<_> = payloads[after..end].iter().map(|payload| ("a", payload.as_str())).collect();
        counted += fixture.commit(&batch_of(after, &events)).dead_letters;
        after = end;
    }
    let dead = fixture.texts(
        "SELECT (sequence - 1) || ': ' || CASE WHEN error LIKE 'the payload cannot be read%' THEN 'unreadable' ELSE error END
         FROM catchment_dead_letters ORDER BY id",
    );
    ((tables(&fixture.connection), dead), fixture.ledger(), counted)
}

fn agree(kinds: &[&str], sizes: &[usize]) {
    let expected = alone(kinds);
    let (found, ledger, counted) = batched(kinds, sizes);
    assert_eq!(found, expected, "{kinds:?} in batches of {sizes:?}");
    assert_eq!((ledger, counted), (i64::try_from(kinds.len()).expect("few"), expected.1.len()));
}

#[test]
fn every_kind_of_event_behaves_as_its_name_says() {
    let (tables, dead) = alone(&KINDS);
    assert_eq!(tables[4], ["good", "ignored", "once", "take"]);
    assert_eq!(dead.len(), 11, "{dead:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_mix_ends_as_if_each_event_were_alone(
        kinds in prop::collection::vec(prop::sample::select(&KINDS[..]), 1..40),
        sizes in prop::collection::vec(1_usize..30, 1..4),
    ) {
        agree(&kinds, &sizes);
    }

    /// Long enough that parts of a batch are committed early.
    #[test]
    fn a_long_row_of_bad_ones_does_so_too(
        kinds in prop::collection::vec(
            prop_oneof![8 => prop::sample::select(&["rollback 1", "rollback 2", "deferred", "once", "once, deferred"][..]), 1 => prop::sample::select(&KINDS[..])],
            100..200,
        ),
    ) {
        agree(&kinds, &[1_000]);
    }
}
