//! Events that reach a limit: of row numbers, of work, of space, of length, of attempts.

use super::*;

#[test]
fn an_event_that_uses_the_last_row_number_stops_no_later_ones() {
    let add = "INSERT INTO lines(id, name, at) VALUES (:id, 'x', :sequence)";
    let (last, any) = (format!("{{\"id\":{}}}", i64::MAX), "{}");
    let events = [any, any, &last, any, "{\"id\":7}", any].map(|payload| ("a", payload));
    for sizes in [vec![6], vec![3, 3], vec![1; 6]] {
        let mut fixture = fixture(&[route("a", &[add])], Unmatched::Store);
        let mut after = 0;
        for size in sizes {
            fixture.commit(&batch_of(after, &events[after..after + size]));
            after += size;
        }
        assert_eq!(fixture.texts("SELECT at || '' FROM lines ORDER BY at"), ["1", "2", "3", "5"]);
        let error = format!("a | {add} | table lines has no row number left: the last, {}, was used", i64::MAX);
        assert_eq!(fixture.reasons(), [error.clone(), error]);
        assert_eq!(fixture.ledger(), 6);
    }
}

#[test]
fn an_event_with_an_endless_statement_is_a_dead_letter() {
    let count = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :upto OR :upto < 0)
                 INSERT INTO lines(name, at) SELECT 'x', max(i) FROM n";
    let bounded = RouteConfig { max_steps: 2_000_000, ..route("count", &[ADD_LINE, count]) };
    let plain = route("chat.log", &[ADD_LINE]);
    let event = |upto: i64| format!(r#"{{"name":"ann","text":"hi","upto":{upto}}}"#);
    let (ends, never) = (event(1_000), event(-1));
    let events = [("count", &*ends), ("count", &*never), ("chat.log", &*ends), ("count", &*ends)];
    for sizes in [vec![4], vec![1; 4]] {
        let mut fixture = fixture(&[bounded.clone(), plain.clone()], Unmatched::Store);
        let mut after = 0;
        for size in sizes {
            fixture.commit(&batch_of(after, &events[after..after + size]));
            after += size;
        }
        let error = "interrupted: it takes more than 2000000 steps of SQLite, its limit (max_steps)";
        assert_eq!(fixture.reasons(), [format!("count | {count} | {error}")]);
        assert_eq!(fixture.texts("SELECT name || ' ' || at FROM lines ORDER BY id").len(), 5);
        assert_eq!(fixture.ledger(), 4);
    }
}

#[test]
fn statements_within_their_budget_are_never_interrupted() {
    // SQLite counts a statement's steps over all its runs.
    let count = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000)
                 INSERT INTO lines(name, at) SELECT :name, max(i) FROM n";
    let mut fixture = fixture(&[RouteConfig { max_steps: 1_000_000, ..route("count", &[count]) }], Unmatched::Store);
    let event = line("ann", "hi");
    let events = [("count", event.as_str()); 10];
    for turn in 0..5 {
        assert_eq!(fixture.commit(&batch_of(turn * events.len(), &events)).dead_letters, 0);
    }
    assert_eq!(fixture.texts("SELECT name FROM lines").len(), 50);
}

#[test]
fn a_full_disk_makes_no_dead_letters() {
    let schema = "CREATE TABLE other(id INTEGER PRIMARY KEY AUTOINCREMENT, x); INSERT INTO other VALUES (9223372036854775807, 1);
                  CREATE TABLE big(x);";
    let routes = [route("a", &["INSERT INTO big VALUES (zeroblob(:n))"])];
    let mut fixture = Fixture::with_routes(schema, &routes, Unmatched::Store).expect("opens");
    let batch = batch(0, &[r#"{"n": 1}"#, r#"{"n": 300000}"#, r#"{"n": 2}"#]);
    fixture.writer.prepare(&batch);
    // SQLite gives the same code for this limit as for a full disk. The next connection has room.
    let pooled = fixture.writer.pool.get().expect("a connection");
    pooled.sqlite.pragma_update(None, "max_page_count", 20).expect("sets");
    drop(pooled);
    let Err(Refusal::Retry(error)) = fixture.writer.commit(&batch) else { panic!("it is full") };
    assert_eq!(error.to_string(), "database or disk is full; make room on its disk");
    assert_eq!(fixture.commit(&batch).dead_letters, 0);
    assert_eq!(fixture.texts("SELECT length(x) || '' FROM big"), ["1", "300000", "2"]);
}

#[test]
fn an_exhausted_table_is_found_in_triggers_and_by_its_last_row() {
    let schema = "CREATE TABLE lines(x);
                  CREATE TABLE \"the \"\"log\"(id INTEGER PRIMARY KEY AUTOINCREMENT, x);
                  CREATE TRIGGER logs AFTER INSERT ON lines BEGIN INSERT INTO \"the \"\"log\"(x) VALUES (new.x); END;
                  INSERT INTO \"the \"\"log\" VALUES (9223372036854775807, 1);";
    for set_back in ["", "DELETE FROM sqlite_sequence", "UPDATE sqlite_sequence SET seq = 1"] {
        let routes = [route("a", &["INSERT INTO lines VALUES (:n)"])];
        let mut fixture = Fixture::with_routes(schema, &routes, Unmatched::Store).expect("opens");
        fixture.connection.execute_batch(set_back).expect("SQL");
        assert_eq!(fixture.commit(&batch(0, &[r#"{"n": 1}"#])).dead_letters, 1, "{set_back}");
        let error = fixture.dead();
        assert!(error[0].contains("table the \"log has no row number left"), "{error:?}");
    }
}

#[test]
fn overlong_values_are_dead_letters_the_largest_event_is_not() {
    let made = route("made", &["INSERT INTO lines(name, text) VALUES ('made', hex(zeroblob(:n)))"]);
    let found = route("found", &["INSERT INTO lines(name, text) SELECT 'found', :text LIKE :pattern"]);
    let whole = route("whole", &["INSERT INTO lines(name, text) VALUES (:token_1, :payload)"]);
    let mut fixture = fixture(&[made, found, whole], Unmatched::Store);
    let largest = "x".repeat(64 << 20);
    let pattern = |length: usize| format!(r#"{{"text":"abc","pattern":"%{}"}}"#, "b".repeat(length - 1));
    let (most, more) = (pattern(1_000), pattern(1_001));
    let events = [("made", r#"{"n":67108864}"#), ("found", more.as_str()), ("found", &most), ("whole", &largest)];
    let mut batch = Batch::new(Limits { events: 9, bytes: 1 << 30 });
    batch.begin(Arc::clone(batch_of(0, &[]).epoch().expect("an epoch")), Mark::START);
    for ((subject, payload), sequence) in events.into_iter().zip(1..) {
        batch.push(mark(sequence), subject, [], payload.as_bytes());
    }
    assert_eq!(fixture.commit(&batch).dead_letters, 2);
    let reasons = fixture.reasons();
    assert!(reasons[0].starts_with("made | ") && reasons[0].ends_with("| string or blob too big"), "{reasons:?}");
    assert!(reasons[1].starts_with("found | ") && reasons[1].ends_with("pattern too complex"), "{reasons:?}");
    assert_eq!(fixture.texts("SELECT name || ' ' || length(text) FROM lines"), ["found 1", "whole 67108864"]);
}

#[test]
fn many_bad_events_take_a_few_attempts_each() {
    /// How many rows a connection changed, undone changes included.
    fn changes(fixture: &Fixture) -> u64 {
        fixture.writer.pool.get().expect("the connection").sqlite.total_changes()
    }
    const EVENTS: usize = 2_000;
    let roll_back = "CREATE TRIGGER t BEFORE INSERT ON lines BEGIN SELECT raise(ROLLBACK, 'no'); END;";
    let refer = "CREATE TABLE known(name TEXT PRIMARY KEY);
                 CREATE TABLE seen(name TEXT REFERENCES known DEFERRABLE INITIALLY DEFERRED);
                 CREATE TRIGGER t AFTER INSERT ON lines BEGIN INSERT INTO seen VALUES (NEW.name); END;";
    for schema in [roll_back, refer] {
        let mut fixture =
            Fixture::with_routes(&(SCHEMA.to_owned() + schema), &[route("a", &[ADD_LINE])], Unmatched::Store)
                .expect("opens");
        let mut bad = Batch::new(Limits { events: EVENTS, bytes: 1 << 20 });
        bad.begin(Arc::clone(batch_of(0, &[]).epoch().expect("an epoch")), Mark::START);
        (1..=EVENTS).for_each(|n| bad.push(mark(n), "a", [], line("ann", "x").as_bytes()));
        let before = changes(&fixture);
        assert_eq!(fixture.commit(&bad).dead_letters, EVENTS);
        // An attempt writes a row or two, a dead letter or the ledger's step.
        let per_event = (changes(&fixture) - before) / EVENTS as u64;
        assert!(per_event < 200, "{per_event} changes an event");
        assert_eq!(fixture.ledger(), i64::try_from(EVENTS).expect("small"));
        assert!(fixture.lines().is_empty());
    }
}
