//! `catchment tail` beside a collector and an application that deletes rows.

use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Stdio};

use rusqlite::Connection;
use serde_json::Value;

use crate::support::collector::{catchment, signal};
use crate::support::fixture::Fixture;

/// `tail --json`; killed when dropped.
struct Tail {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Tail {
    fn start(fixture: &Fixture) -> Self {
        let mut command = catchment();
        command.args(["tail", "-n", "1", "--json", "--database"]).arg(fixture.database());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("catchment starts");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Self { child, lines }
    }

    /// While it looks at nothing.
    fn stopped(&self, act: impl FnOnce()) {
        signal(self.child.id(), "STOP");
        act();
        signal(self.child.id(), "CONT");
    }

    /// Id and payload of the next event.
    fn next(&mut self) -> (u64, String) {
        let line = self.lines.next().expect("it goes on").expect("UTF-8");
        let event: Value = serde_json::from_str(&line).expect("JSON");
        (event["id"].as_u64().expect("a number"), event["payload"].as_str().expect("text").to_owned())
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn it_goes_on_when_rows_were_deleted_and_ids_are_used_again() {
    let fixture = Fixture::new();
    let collector = fixture.collector();
    collector.said("collecting stream");
    fixture.publish("one", 20);
    fixture.has(20);
    let mut tail = Tail::start(&fixture);
    assert_eq!(tail.next(), (20, "one-19".into()));
    // Between two looks all rows are deleted, or all but the first, and fewer, as many or more are collected.
    for (round, (left, count)) in [(0, 5), (0, 5), (0, 12), (3, 9), (3, 20), (0, 1)].into_iter().enumerate() {
        let prefix = format!("round-{round}");
        tail.stopped(|| {
            let connection = Connection::open(fixture.database()).expect("opens");
            connection.busy_timeout(std::time::Duration::from_secs(10)).expect("sets");
            connection.execute("DELETE FROM events WHERE id > ?", [left]).expect("deletes");
            fixture.publish(&prefix, count);
            fixture.has(left + count);
        });
        for number in 0..count {
            assert_eq!(tail.next(), ((left + number + 1) as u64, format!("{prefix}-{number}")));
        }
    }
}
