//! Several partitions are read as one.

use rusqlite::Connection;
use serde_json::Value;

use super::{CHAT, OF_SUBJECTS, events, publish};
use crate::support::collector::{Collector, drain, output, results, stderr};
use crate::support::fixture::Fixture;
use crate::support::partitioned::Partitions;
use crate::support::server::needs;

#[test]
fn a_query_asks_every_partition_and_says_which_did_not_answer() {
    if !needs(OF_SUBJECTS, "partitions of whole subjects") {
        return;
    }
    let fixture = Fixture::without_stream();
    let query = "[[query]]\nsubject = 'ask.rows'\nsql = 'SELECT sequence, subject FROM events ORDER BY sequence'\n\
                 [[query]]\nsubject = 'ask.bad'\nsql = 'SELECT sequence / (sequence - sequence), json(payload) AS j FROM events'\n";
    let all = Partitions::new(fixture.folder.path(), &fixture.server.url(), 3, &format!("{CHAT}{query}"));
    let start = |partition: u32| {
        let collector = Collector::start(all.command(partition, &["run"]), &fixture.path(&format!("{partition}.log")));
        collector.said("answers on");
        collector
    };
    let mut collectors: Vec<Collector> = (0..3).map(start).collect();
    publish(&fixture, &events(0..60));
    all.reaches(60);
    let ask = |arguments: &[&str]| {
        let mut command = all.command(0, &["query", "--json"]);
        output(command.env_remove("CATCHMENT_BROKER__PARTITION").args(arguments))
    };
    let sequences = |printed: &[u8]| -> Vec<u64> {
        let text = std::str::from_utf8(printed).expect("UTF-8");
        let row =
            |line: &str| serde_json::from_str::<Value>(line).expect("JSON")["sequence"].as_u64().expect("a number");
        text.lines().map(row).collect()
    };
    let of = |partition: u32| all.rows(partition).iter().map(|row| row.sequence).collect::<Vec<_>>();
    let done = ask(&["--all", "ask.rows"]);
    assert!(done.status.success(), "{}", stderr(&done));
    assert_eq!(sequences(&done.stdout), [of(0), of(1), of(2)].concat(), "one partition after the other");
    let done = ask(&["--all", "--order", "sequence", "ask.rows"]);
    assert_eq!(sequences(&done.stdout), (1..=60).collect::<Vec<_>>());
    let done = ask(&["--all", "--order", "sequence", "--descending", "--limit", "3", "ask.rows"]);
    assert_eq!(sequences(&done.stdout), [60, 59, 58]);
    let done = ask(&["--partition", "1", "ask.rows"]);
    assert_eq!(sequences(&done.stdout), of(1));
    // One reply would be one third of the truth.
    let done = ask(&["ask.rows"]);
    assert_eq!((done.status.code(), done.stdout.len()), (Some(1), 0));
    assert!(
        stderr(&done).contains("ask.rows: 3 partitions answer, and one reply is of one of them; ask all with --all")
    );
    let done = ask(&["--all", "--order", "nothing", "ask.rows"]);
    assert!(stderr(&done).contains("the rows have no column nothing to sort by; they have sequence, subject"));
    let done = ask(&["--all", "ask.bad"]);
    let said = stderr(&done);
    assert!(
        !done.status.success() && said.contains("ask.bad: rows are missing: partitions 0, 1, 2: query ask.bad: "),
        "{said}"
    );
    // Discovery names each.
    let collector = collectors.remove(1);
    assert!(collector.stop().success());
    let done = ask(&["--all", "--timeout", "1s", "ask.rows"]);
    assert_eq!((done.status.code(), sequences(&done.stdout)), (Some(1), [of(0), of(2)].concat()), "{}", stderr(&done));
    assert_eq!(stderr(&done).trim(), "catchment: ask.rows: rows are missing: no answer of partition 1 within 1s");
    let done = ask(&["--partition", "1", "--timeout", "1s", "ask.rows"]);
    assert_eq!(done.status.code(), Some(1));
    assert!(collectors.into_iter().all(|collector| collector.stop().success()));
}

#[test]
fn several_databases_are_read_as_one() {
    let fixture = Fixture::new();
    let (first, second) = (fixture.path("one.db"), fixture.path("two.db"));
    fixture.publish("a", 30);
    for database in [&first, &second] {
        drain(&fixture.server.url(), database);
    }
    let connection = Connection::open(&second).expect("opens");
    connection
        .execute_batch("CREATE TABLE only(a); INSERT INTO only VALUES (5); ALTER TABLE catchment_gaps ADD more INTEGER")
        .expect("SQL");
    drop(connection);
    let sql = |arguments: &[&str]| output(fixture.command(&["sql", "-d", "one.db", "-d", "two.db"]).args(arguments));
    let done = sql(&["--csv", "SELECT database, count(*) AS n FROM events GROUP BY database; SELECT a FROM only"]);
    assert_eq!(results(done), "database,n\none.db,30\ntwo.db,30\na\n5\n");
    let tables = results(sql(&["--csv", "--tables"]));
    assert!(tables.lines().any(|line| line == "only,table") && tables.matches("events,table").count() == 1, "{tables}");
    let done = sql(&["SELECT count(*) FROM catchment_gaps"]);
    assert_eq!(done.status.code(), Some(1), "{}", stderr(&done));
    let said = "table catchment_gaps cannot be read as one: its columns differ: in one.db stream, epoch";
    assert!(stderr(&done).contains(said), "{}", stderr(&done));
    assert_eq!(sql(&["--schema"]).status.code(), Some(2));
    assert!(stderr(&sql(&["-d", "none.db", "SELECT 1"])).contains("none.db: there is no such file"));
}
