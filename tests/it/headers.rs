//! Headers as the publisher named them, and as they are stored.

use crate::support::collector::{catchment, output, stderr};
use crate::support::fixture::Fixture;
use crate::support::oracle;

/// What a query returns, as lines of text.
fn lines(fixture: &Fixture, sql: &str) -> Vec<String> {
    let connection = oracle::open(&fixture.database());
    let mut statement = connection.prepare(sql).expect("SQL");
    let rows = statement.query_map([], |row| row.get::<_, Option<String>>(0)).expect("runs");
    rows.map(|row| row.expect("text").unwrap_or_else(|| "NULL".into())).collect()
}

/// Collects with these routes and a table `t`.
fn drain(fixture: &Fixture, routes: &str) {
    let path = |name: &str| fixture.folder.path().join(name);
    let settings = format!("{routes}\n[database]\nmigrations = '{}'\n", path("m").display());
    std::fs::write(path("catchment.toml"), settings).expect("writes");
    std::fs::create_dir_all(path("m")).expect("a folder");
    std::fs::write(path("m/001_t.sql"), "CREATE TABLE t(a, b, c, d);").expect("writes");
    let done = output(fixture.run().args(["--drain", "--config"]).arg(path("catchment.toml")));
    assert!(done.status.success(), "{}", stderr(&done));
}

#[test]
fn headers_that_differ_in_case_follow_one_rule() {
    let fixture = Fixture::new();
    let mut raw = fixture.server.raw();
    // The client loses their order in another way each time.
    for _ in 0..30 {
        for block in [
            "X-Trace: alpha\r\nx-trace: bravo\r\nX-TRACE: zero\r\nTag: 2\r\nTag: 1",
            "Tag: 1\r\nX-TRACE: zero\r\nx-trace: bravo\r\nTag: 2\r\nX-Trace: alpha",
        ] {
            for subject in ["events.route", "events.plain"] {
                raw.send(subject, Some(format!("NATS/1.0\r\n{block}\r\n\r\n").as_bytes()), "x");
            }
        }
    }
    for block in ["nats-msg-id: low\r\nNats-Msg-Id: real", "nats-msg-id: low"] {
        raw.send("events.id", Some(format!("NATS/1.0\r\n{block}\r\n\r\n").as_bytes()), "x");
    }
    raw.finish();
    let routes = "[[route]]
subject = 'events.route'
sql = 'INSERT INTO t VALUES (:header_x_trace, :header_X_Trace, :header_x_Trace, :header_tag)'
[[route]]
subject = 'events.id'
sql = 'INSERT INTO t VALUES (:message_id, :header_nats_msg_id, :header_none, :sequence)'
";
    drain(&fixture, routes);
    let bound = lines(&fixture, "SELECT concat_ws(' ', a, b, c, d) FROM t ORDER BY rowid");
    assert_eq!(bound[..60], vec!["bravo alpha zero 1"; 60]);
    assert_eq!(bound[60..], ["real low 121".to_owned(), "low low 122".to_owned()]);
    let stored = lines(&fixture, "SELECT headers FROM events ORDER BY id");
    assert_eq!(stored, vec![r#"{"Tag":["1","2"],"X-TRACE":"zero","X-Trace":"alpha","x-trace":"bravo"}"#; 60]);
}

#[test]
fn an_identity_is_stored_if_the_publisher_gave_it() {
    let fixture = Fixture::new();
    let publish = |arguments: &[&str]| {
        let mut command = catchment();
        let done = output(command.args(["publish", "--server", &fixture.server.url()]).args(arguments));
        assert!(done.status.success(), "{}", stderr(&done));
    };
    publish(&["events.generated", "1"]);
    publish(&["events.generated", "2", "-H", "Trace-Id: 7"]);
    publish(&["events.given", "3", "--id", "order-3"]);
    publish(&["events.route", "4"]);
    publish(&["events.bad", "{"]);
    let routes = "[[route]]
subject = 'events.route'
sql = 'INSERT INTO t(a) VALUES (:message_id)'
[[route]]
subject = 'events.bad'
sql = 'INSERT INTO t(a) VALUES (:field)'
";
    drain(&fixture, routes);
    let stored = lines(&fixture, "SELECT headers FROM events ORDER BY id");
    assert_eq!(stored, ["NULL", r#"{"Trace-Id":"7"}"#, r#"{"Nats-Msg-Id":"order-3"}"#]);
    let bound = lines(&fixture, "SELECT a FROM t WHERE a IS NOT NULL");
    assert!(bound.len() == 1 && bound[0].starts_with("catchment_"), "{bound:?}");
    // The stream has every identity, and so recognises what is sent twice.
    let dead = lines(&fixture, "SELECT headers ->> 'Nats-Msg-Id' FROM catchment_dead_letters");
    assert!(dead.len() == 1 && dead[0].starts_with("catchment_"), "{dead:?}");
}
