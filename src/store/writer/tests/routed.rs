//! Batches whose events run statements of routes.

mod limits;

use std::sync::Arc;

use crossbeam_channel::bounded;

use crate::config::{RouteConfig, Unmatched};
use crate::pipeline::{Batch, Confirmation, Defect, Limits, Mark, Refusal, Sink};
use crate::store::fixture::{Fixture, batch, batch_of, mark, route};

const SCHEMA: &str = "
    CREATE TABLE lines(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, text TEXT, at INTEGER) STRICT;
    CREATE TABLE users(name TEXT PRIMARY KEY, lines INTEGER CHECK (lines < 4)) STRICT;
";
const ADD_LINE: &str = "INSERT INTO lines(name, text, at) VALUES (:name, :text, :sequence)";
const COUNT_LINE: &str = "INSERT INTO users VALUES (:name, 1) ON CONFLICT(name) DO UPDATE SET lines = lines + 1";

fn chat() -> RouteConfig {
    RouteConfig { name: Some("log".into()), ..route("chat.*", &[ADD_LINE, COUNT_LINE]) }
}

fn fixture(routes: &[RouteConfig], unmatched: Unmatched) -> Fixture {
    Fixture::with_routes(SCHEMA, routes, unmatched).expect("opens")
}

fn line(name: &str, text: &str) -> String {
    serde_json::json!({ "name": name, "text": text }).to_string()
}

impl Fixture {
    fn lines(&self) -> Vec<String> {
        self.texts("SELECT at || ' ' || name || ': ' || text FROM lines ORDER BY id")
    }

    fn users(&self) -> Vec<String> {
        self.texts("SELECT name || ' ' || lines FROM users ORDER BY name")
    }

    /// Route, statement and error of the dead letters.
    fn reasons(&self) -> Vec<String> {
        self.texts(
            "SELECT coalesce(route, '-') || ' | ' || coalesce(statement, '-') || ' | ' || error
             FROM catchment_dead_letters ORDER BY id",
        )
    }
}

#[test]
fn an_event_runs_all_statements_of_the_first_route_that_matches() {
    let other = route("chat.log", &["DELETE FROM users"]);
    let mut fixture = fixture(&[chat(), other], Unmatched::Store);
    let (ann, bob) = (line("ann", "hi"), line("bob", "ho"));
    let events = [("chat.log", ann.as_str()), ("chat.log", &bob), ("elsewhere", "as it is"), ("chat.log", &ann)];
    assert_eq!(fixture.commit(&batch_of(0, &events)), super::Committed::default());
    assert_eq!(fixture.lines(), ["1 ann: hi", "2 bob: ho", "4 ann: hi"]);
    assert_eq!(fixture.users(), ["ann 2", "bob 1"]);
    assert_eq!(fixture.stored(), ["as it is"]);
    assert_eq!(fixture.ledger(), 4);
}

#[test]
fn unmatched_events_are_dropped_and_counted_only_if_configured() {
    let mut fixture = fixture(&[chat()], Unmatched::Drop);
    let ann = line("ann", "hi");
    let committed = fixture.commit(&batch_of(0, &[("a", "x"), ("chat.log", &ann), ("b", "y")]));
    assert_eq!((committed.unmatched_dropped, committed.dead_letters), (2, 0));
    assert_eq!((fixture.lines(), fixture.stored(), fixture.ledger()), (vec!["2 ann: hi".into()], vec![], 3));
    assert_eq!(fixture.commit(&batch_of(3, &[("a", "x")])).unmatched_dropped, 1);
    assert_eq!(fixture.ledger(), 4);
}

#[test]
fn a_failed_statement_undoes_the_events_earlier_ones() {
    let mut fixture = fixture(&[chat()], Unmatched::Store);
    let payloads: Vec<String> = (0..6).map(|n| line("ann", &n.to_string())).chain([line("bob", "x")]).collect();
    let events: Vec<_> = payloads.iter().map(|payload| ("chat.log", payload.as_str())).collect();
    assert_eq!(fixture.commit(&batch_of(0, &events)).dead_letters, 3);
    assert_eq!(fixture.lines(), ["1 ann: 0", "2 ann: 1", "3 ann: 2", "7 bob: x"]);
    assert_eq!(fixture.users(), ["ann 3", "bob 1"]);
    let reason = format!("log | {COUNT_LINE} | CHECK constraint failed: lines < 4");
    assert_eq!(fixture.reasons(), vec![reason; 3]);
}

#[test]
fn a_payload_that_cannot_be_read_is_a_dead_letter_of_its_route() {
    let whole = route("raw.*", &["INSERT INTO lines(name, text) VALUES (:token_2, :payload)"]);
    let mut fixture = fixture(&[chat(), whole], Unmatched::Store);
    let ann = line("ann", "hi");
    let events =
        [("chat.log", "{\"name\":"), ("chat.log", ann.as_str()), ("raw.eve", "{\"name\":"), ("chat.log", "[]")];
    assert_eq!(fixture.commit(&batch_of(0, &events)).dead_letters, 2);
    assert_eq!(fixture.texts("SELECT name || ': ' || text FROM lines"), ["ann: hi", "eve: {\"name\":"]);
    let reasons = fixture.reasons();
    assert!(reasons[0].starts_with("log | - | the payload cannot be read as JSON: "), "{}", reasons[0]);
    // The field is missing, so it is NULL, and the table refuses it.
    assert_eq!(reasons[1], format!("log | {ADD_LINE} | NOT NULL constraint failed: lines.name"));
}

#[test]
fn a_dead_letter_has_all_that_a_retry_needs() {
    let mut fixture = fixture(&[chat()], Unmatched::Store);
    // MessagePack of {"name": null} and of a blob that is not UTF-8.
    let payloads: [&[u8]; 2] = [b"\x81\xa4name\xc0", b"\x81\xa4name\xc4\x02\xff\xfe"];
    let mut batch = Batch::new(Limits { events: 9, bytes: 999 });
    batch.begin(Arc::clone(batch_of(0, &[]).epoch().expect("an epoch")), Mark::START);
    for (payload, sequence) in payloads.into_iter().zip(1..) {
        let mark = Mark { sequence, published_ns: 1_234_567_890 };
        batch.push(mark, "chat.log", [("B", "2"), ("A", "\"1\"\u{e9}"), ("B", "3")], payload);
    }
    assert_eq!(fixture.commit(&batch).dead_letters, 2);
    let kept = fixture.texts(
        "SELECT concat_ws(' ', stream, epoch, sequence, published_us, subject, route, headers, hex(payload))
         FROM catchment_dead_letters ORDER BY id",
    );
    let headers = r#"{"B":["2","3"],"A":"\"1\"é"}"#;
    assert_eq!(kept[0], format!("S 1 1 1234567 chat.log log {headers} 81A46E616D65C0"));
    assert_eq!(kept[1], format!("S 1 2 1234567 chat.log log {headers} 81A46E616D65C402FFFE"));
}

#[test]
fn a_defective_event_is_its_routes_dead_letter() {
    let mut fixture = fixture(&[chat()], Unmatched::Store);
    let mut odd = batch_of(0, &[]);
    let defect = || Defect { reason: "unreadable headers", raw_headers: b"NATS/1.0\r\n\xff" };
    odd.push_defect(mark(1), "chat.log", defect(), b"{}");
    odd.push_defect(mark(2), "else", defect(), b"{}");
    assert_eq!(fixture.commit(&odd).dead_letters, 2);
    assert_eq!(fixture.reasons(), ["log | - | unreadable headers", "- | - | unreadable headers"]);
}

#[test]
fn a_retry_keeps_the_prepared_batch_and_its_counts() {
    let mut fixture = fixture(&[chat()], Unmatched::Drop);
    let ann = line("ann", "hi");
    let events = [("chat.log", ann.as_str()), ("chat.log", "{"), ("else", ""), ("chat.log", ann.as_str())];
    let batch = batch_of(0, &events);
    fixture.connection.execute_batch("BEGIN IMMEDIATE").expect("locks");
    fixture.writer.pool.get().expect("a connection").sqlite.busy_timeout(std::time::Duration::ZERO).expect("sets");
    fixture.writer.prepare(&batch);
    assert!(matches!(fixture.writer.commit(&batch), Err(Refusal::Retry(_))));
    fixture.connection.execute_batch("COMMIT").expect("unlocks");
    let first = fixture.writer.commit(&batch).expect("commits");
    assert_eq!((first.dead_letters, first.unmatched_dropped), (1, 1));
    // As if the result of that commit were unknown: nothing is run again, and the counts are the same.
    (fixture.writer.unclear, fixture.writer.handling) = (true, Some(fixture.writer.routes.current()));
    assert_eq!(fixture.writer.commit(&batch).expect("finds it done"), first);
    assert_eq!((fixture.lines().len(), fixture.reasons().len()), (2, 1));
}

#[test]
fn a_table_removed_while_running_stops_without_losing_events() {
    let mut fixture = fixture(&[chat()], Unmatched::Store);
    let ann = line("ann", "hi");
    fixture.commit(&batch_of(0, &[("chat.log", &ann)]));
    fixture.connection.execute_batch("ALTER TABLE users RENAME TO people").expect("renames");
    // No event of that route: the missing table is not noticed.
    fixture.commit(&batch(1, &["x"]));
    let error = fixture.fatal(&batch_of(2, &[("chat.log", &ann), ("chat.log", "{")]));
    assert!(error.ends_with("a.db: route log, statement 2: no such table: users"), "{error}");
    assert_eq!((fixture.ledger(), fixture.lines().len(), fixture.reasons().len()), (2, 1, 0));
}

#[test]
fn a_column_removed_while_running_is_named_with_its_position() {
    let mut fixture = fixture(&[chat()], Unmatched::Store);
    let ann = line("ann", "hi");
    fixture.commit(&batch_of(0, &[("chat.log", &ann)]));
    fixture.connection.execute_batch("ALTER TABLE lines RENAME COLUMN text TO words").expect("renames");
    let error = fixture.fatal(&batch_of(1, &[("chat.log", &ann)]));
    assert!(error.contains("route log, statement 1: table lines has no column named text"), "{error}");
}

#[test]
fn the_rules_apply_to_a_trigger_made_later() {
    for (event, table) in [(("chat.log", line("ann", "hi")), "lines"), (("x", "x".into()), "events")] {
        let mut fixture = fixture(&[chat()], Unmatched::Store);
        let event = (event.0, event.1.as_str());
        fixture.commit(&batch_of(0, &[event]));
        fixture
            .connection
            .execute_batch(&format!(
                "CREATE TRIGGER evil AFTER INSERT ON {table} BEGIN UPDATE catchment_ledger SET sequence = 0; END"
            ))
            .expect("anybody may");
        let error = fixture.fatal(&batch_of(1, &[event]));
        let what = "it writes catchment_ledger, which is catchment's own, in trigger or view evil";
        assert!(error.contains(what), "{error}");
        assert_eq!(fixture.ledger(), 1);
        fixture.connection.execute_batch("DROP TRIGGER evil").expect("goes");
        fixture.commit(&batch_of(1, &[event]));
        assert_eq!(fixture.ledger(), 2);
    }
}

#[test]
fn a_full_text_index_is_kept_by_a_trigger() {
    let index = "CREATE VIRTUAL TABLE found USING fts5(text);
                 CREATE TRIGGER t AFTER INSERT ON lines BEGIN INSERT INTO found(text) VALUES (NEW.text); END;";
    let mut fixture = Fixture::with_routes(&(SCHEMA.to_owned() + index), &[chat()], Unmatched::Store).expect("opens");
    for (after, text) in ["one", "two", "one two"].into_iter().enumerate() {
        fixture.commit(&batch_of(after, &[("chat.log", line("ann", text).as_str())]));
    }
    assert_eq!(fixture.texts("SELECT text FROM found('two') ORDER BY rowid"), ["two", "one two"]);
}

#[test]
fn a_second_statement_never_runs_outside_the_batchs_transaction() {
    // If the second statement ran after the rollback of the first, it would be committed by itself.
    let first = "INSERT OR ROLLBACK INTO users VALUES (:name, 1)";
    let mut fixture = fixture(&[route("chat.log", &[first, ADD_LINE])], Unmatched::Store);
    let names = ["ann", "bob", "ann", "ann", "eve", "bob"];
    let payloads: Vec<String> = names.iter().map(|name| line(name, "hi")).collect();
    let events: Vec<_> = payloads.iter().map(|payload| ("chat.log", payload.as_str())).collect();
    assert_eq!(fixture.commit(&batch_of(0, &events)).dead_letters, 3);
    assert_eq!(fixture.lines(), ["1 ann: hi", "2 bob: hi", "5 eve: hi"]);
    assert_eq!(fixture.users(), ["ann 1", "bob 1", "eve 1"]);
    assert_eq!(fixture.ledger(), 6);
}

#[test]
fn a_mismatch_with_a_full_text_index_is_a_dead_letter() {
    let index = "CREATE VIRTUAL TABLE found USING fts5(text, content='lines', content_rowid='id');";
    let forget = "INSERT INTO found(found, rowid, text) VALUES ('delete', :id, :text)";
    let routes = [route("forget", &[forget]), route("add", &["INSERT INTO found(rowid, text) VALUES (:id, :text)"])];
    let mut fixture = Fixture::with_routes(&(SCHEMA.to_owned() + index), &routes, Unmatched::Store).expect("opens");
    let event = r#"{"id":1,"text":"a b"}"#;
    assert_eq!(fixture.commit(&batch_of(0, &[("forget", event), ("add", event)])).dead_letters, 1);
    let error = "database disk image is malformed: a virtual table's content does not match the statement";
    assert_eq!(fixture.reasons(), [format!("forget | {forget} | {error}")]);
    assert_eq!(fixture.texts("SELECT rowid || '' FROM found('b')"), ["1"]);
    assert_eq!(fixture.commit(&batch_of(2, &[("forget", event)])).dead_letters, 0);
}

fn asking(events: &[(&str, Option<&str>, &str)]) -> Batch {
    let mut batch = batch_of(0, &[]);
    for ((subject, reply_to, payload), sequence) in events.iter().zip(1..) {
        let asks = reply_to.map(|reply_to| ("catchment-reply-to", reply_to));
        batch.push(mark(sequence), subject, asks, payload.as_bytes());
    }
    batch
}

#[test]
fn a_route_with_reply_confirms_events_that_request_it() {
    let replying = RouteConfig { reply: true, ..chat() };
    let mut fixture = fixture(&[replying, route("mute", &[ADD_LINE])], Unmatched::Store);
    let (confirmations, heard) = bounded(2);
    fixture.writer = fixture.open().writers_with(Some(confirmations)).0.remove(0);
    let ann = line("ann", "hi");
    let batch = asking(&[
        ("chat.log", Some("_INBOX.1"), &ann),
        ("chat.log", None, &ann),
        ("mute", Some("_INBOX.2"), &ann),
        ("other", Some("_INBOX.3"), &ann),
        ("chat.log", Some("_INBOX.4"), "{}"),
        ("chat.log", Some("_INBOX.5"), &ann),
    ]);
    let committed = fixture.commit(&batch);
    assert_eq!((committed.dead_letters, committed.confirmations_dropped), (1, 1), "there is room for two");
    let heard: Vec<Confirmation> = heard.try_iter().collect();
    let confirmation = |reply_to: &str, sequence, dead_letter: Option<&str>| Confirmation {
        reply_to: reply_to.into(),
        stream: Some("S".into()),
        sequence: Some(sequence),
        dead_letter: dead_letter.map(str::to_owned),
    };
    let refused = Some("NOT NULL constraint failed: lines.name");
    assert_eq!(heard, [confirmation("_INBOX.1", 1, None), confirmation("_INBOX.4", 5, refused)]);
}

#[test]
fn no_confirmation_is_sent_before_the_commit() {
    let mut fixture = fixture(&[RouteConfig { reply: true, ..chat() }], Unmatched::Store);
    let (confirmations, heard) = bounded(9);
    fixture.writer = fixture.open().writers_with(Some(confirmations)).0.remove(0);
    fixture.connection.execute_batch("DROP TABLE users").expect("drops");
    fixture.fatal(&asking(&[("chat.log", Some("_INBOX.1"), &line("ann", "hi"))]));
    assert!(heard.is_empty());
}
