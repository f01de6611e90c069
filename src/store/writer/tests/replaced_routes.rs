//! Routes that are replaced while writers run.

use super::*;
use crate::config::{QueryConfig, RouteConfig, Unmatched};
use crate::store::fixture::{batch_of, route};
use crate::store::{ConfirmationsTo, Database, RouteSwitch, Routes};

const SCHEMA: &str = "CREATE TABLE lines(id INTEGER PRIMARY KEY, said TEXT, by TEXT)";

fn by(name: &str) -> RouteConfig {
    route("a", &[&format!("INSERT INTO lines(said, by) VALUES (:payload, '{name}')")])
}

/// Two writers of a database whose route is `old`.
fn writers() -> (Fixture, Database, [Writer; 2], RouteSwitch) {
    let mut fixture = Fixture::with_routes(SCHEMA, &[by("old")], Unmatched::Drop).expect("opens");
    fixture.config.writers = 2;
    let database = fixture.open();
    let (writers, switch) = database.writers_with(None);
    (fixture, database, writers.try_into().expect("two"), switch)
}

fn replace(database: &Database, switch: &RouteSwitch, route: RouteConfig) -> bool {
    let routes = Routes::new(&[route], Unmatched::Drop).expect("routes");
    let (checked, _) = database.check_routes(&routes, &[]).expect("fits");
    switch.replace(checked, ConfirmationsTo::Same)
}

const LINES: &str = "SELECT said || ' ' || by FROM lines ORDER BY id";

#[test]
fn a_batch_that_has_begun_keeps_its_routes() {
    let (fixture, database, [mut writer, _], switch) = writers();
    let first = batch_of(0, &[("a", "1"), ("a", "2")]);
    writer.prepare(&first);
    assert!(replace(&database, &switch, by("new")));
    writer.commit(&first).expect("commits");
    let second = batch_of(2, &[("a", "3")]);
    writer.prepare(&second);
    writer.commit(&second).expect("commits");
    assert_eq!(fixture.texts(LINES), ["1 old", "2 old", "3 new"]);
}

#[test]
fn no_batch_with_old_routes_follows_one_with_new_routes() {
    let (fixture, database, [mut one, mut other], switch) = writers();
    let (first, second) = (batch_of(0, &[("a", "1")]), batch_of(1, &[("a", "2")]));
    other.prepare(&second);
    assert!(replace(&database, &switch, by("new")));
    one.prepare(&first);
    one.commit(&first).expect("commits");
    other.commit(&second).expect("commits");
    assert_eq!(fixture.texts(LINES), ["1 new", "2 new"]);
}

#[test]
fn routes_that_do_not_fit_are_refused_and_a_replaced_file_too() {
    let (fixture, database, [mut writer, _], _switch) = writers();
    let wrong = Routes::new(&[route("a", &["INSERT INTO gone VALUES (1)"])], Unmatched::Drop).expect("routes");
    let refused = database.check_routes(&wrong, &[]).expect_err("no such table").to_string();
    assert!(refused.ends_with("route a, statement 1: no such table: gone"), "{refused}");
    let queries = [QueryConfig::new("q", "SELECT gone FROM lines")];
    let refused = database.check_routes(&Routes::default(), &queries).expect_err("no such column").to_string();
    assert!(refused.contains("query q: no such column: gone"), "{refused}");
    let batch = batch_of(0, &[("a", "1")]);
    writer.prepare(&batch);
    writer.commit(&batch).expect("commits");
    assert_eq!(fixture.texts(LINES), ["1 old"]);
    std::fs::rename(&fixture.config.path, fixture.config.path.with_extension("moved")).expect("moves");
    let refused = database.check_routes(&Routes::default(), &[]).expect_err("is gone").to_string();
    assert!(refused.contains("was moved, removed or replaced") && !fixture.config.path.exists(), "{refused}");
}

#[test]
fn idle_writers_keep_no_sender_of_confirmations() {
    let replying = RouteConfig { reply: true, ..by("old") };
    let fixture = Fixture::with_routes(SCHEMA, &[replying], Unmatched::Drop).expect("opens");
    let database = fixture.open();
    let (old, of_old) = crossbeam_channel::bounded(9);
    let (mut writers, switch) = database.writers_with(Some(old));
    let mut writer = writers.remove(0);
    let batch = batch_of(0, &[("a", "1")]);
    writer.prepare(&batch);
    writer.commit(&batch).expect("commits");
    let (checked, _) = database.check_routes(&Routes::default(), &[]).expect("fits");
    assert!(switch.replace(checked, ConfirmationsTo::Other(None)));
    assert_eq!(of_old.try_recv(), Err(crossbeam_channel::TryRecvError::Disconnected));
    assert!(!switch.confirms_on("a"));
    drop((writer, writers));
    assert!(!replace(&database, &switch, by("new")), "there is no writer");
}

#[test]
fn new_routes_may_have_many_more_statements() {
    let (fixture, database, [mut writer, _], switch) = writers();
    let statement = |number| format!("INSERT INTO lines(said, by) VALUES (:payload, '{number}')");
    let many: Vec<String> = (0..100).map(statement).collect();
    assert!(replace(&database, &switch, RouteConfig::new("a", many)));
    for at in 0..3 {
        let batch = batch_of(at, &[("a", "x")]);
        writer.prepare(&batch);
        writer.commit(&batch).expect("commits");
    }
    assert_eq!(fixture.texts(LINES).len(), 300);
}
