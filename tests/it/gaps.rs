//! `catchment gaps`: which events the stream has dropped, and whether they are in the database.

use serde_json::{Value, json};

use crate::support::collector::{output, stderr};
use crate::support::fixture::Fixture;
use crate::support::refusal::refused;
use crate::support::{eventually, oracle};

/// Status and report.
fn gaps(fixture: &Fixture, arguments: &[&str]) -> (i32, Value) {
    let mut command = fixture.command(&["gaps", "--server", &fixture.server.url(), "--database", "a.db", "--json"]);
    let done = output(command.args(arguments));
    let report = serde_json::from_slice(&done.stdout).unwrap_or_else(|error| panic!("{error}: {}", stderr(&done)));
    (done.status.code().expect("a status"), report)
}

/// First, last and state of each range.
fn ranges(report: &Value) -> Vec<(u64, u64, &str)> {
    let number = |range: &Value, key: &str| range[key].as_u64().expect("a number");
    let ranges = report["gaps"].as_array().expect("a list").iter();
    ranges
        .map(|range| (number(range, "first"), number(range, "last"), range["state"].as_str().expect("text")))
        .collect()
}

fn delete(fixture: &Fixture, sequences: impl IntoIterator<Item = u64>) {
    for sequence in sequences {
        fixture.ask("$JS.API.STREAM.MSG.DELETE.EVENTS", &json!({ "seq": sequence }));
    }
}

#[test]
fn what_was_lost_is_listed_with_its_reason_and_what_is_stored_is_no_loss() {
    let fixture = Fixture::new();
    fixture.publish("old", 10);
    delete(&fixture, [1, 2]);
    fixture.drain();
    let (status, report) = gaps(&fixture, &[]);
    assert_eq!((status, ranges(&report)), (0, vec![(1, 2, "before_first")]), "{report}");
    fixture.publish("new", 10);
    delete(&fixture, [5, 12, 13, 17]);
    let (status, report) = gaps(&fixture, &["--all"]);
    let uncollected = "uncollected";
    assert_eq!(
        ranges(&report),
        [(1, 2, "before_first"), (5, 5, "stored"), (12, 13, uncollected), (17, 17, uncollected)],
        "{report}"
    );
    assert_eq!((status, &report["lost"], &report["stored"]), (1, &json!(3), &json!(1)), "{report}");
    fixture.drain();
    let (status, report) = gaps(&fixture, &[]);
    assert_eq!(ranges(&report), [(1, 2, "before_first"), (12, 13, "lost"), (17, 17, "lost")], "{report}");
    let lost = &report["gaps"][1];
    assert!(lost["why"].as_str().is_some_and(|why| why.contains("a delete")), "{lost}");
    let times = ["published_after", "published_before"].map(|key| lost[key].as_str().expect("a time"));
    assert!(times[0] < times[1], "{lost}");
    assert_eq!((status, &report["epochs"][0]["position"]), (1, &json!(20)), "{report}");
    // Without the broker.
    let (status, offline) = gaps(&fixture, &["--offline"]);
    assert_eq!((status, ranges(&offline)), (1, ranges(&report)));
    assert!(offline["unknown"][0].as_str().is_some_and(|text| text.contains("the stream was not asked")), "{offline}");
    assert!(offline["gaps"][1]["why"].is_null() && offline["epochs"][0]["is_current"].is_null(), "{offline}");
}

#[test]
fn events_over_the_limit_of_their_subject_are_listed() {
    let fixture = Fixture::with_stream(&json!({ "max_msgs_per_subject": 2 }));
    fixture.publish("old", 2);
    fixture.drain();
    fixture.publish("new", 10);
    let (status, report) = gaps(&fixture, &[]);
    assert_eq!((status, ranges(&report)), (1, vec![(3, 10, "uncollected")]), "{report}");
    let collector = fixture.collector();
    fixture.has(4);
    // The gap is stored with the event after it.
    let (status, report) = eventually("the ledger to have it", || {
        let (status, report) = gaps(&fixture, &[]);
        (ranges(&report) == [(3, 10, "lost")]).then_some((status, report))
    });
    assert_eq!((status, &report["lost"], &report["stored"]), (1, &json!(8), &json!(2)), "{report}");
    let why = report["gaps"][0]["why"].as_str().expect("text");
    assert!(why.contains("its max_msgs_per_subject of 2"), "{why}");
    assert!(collector.stop().success());
}

#[test]
fn a_stream_that_was_created_again_is_told_apart() {
    let fixture = Fixture::new();
    fixture.publish("first", 10);
    delete(&fixture, 4..=6);
    fixture.drain();
    // Four are no loss of a database that begins with the first; they are one of it in the middle.
    fixture.server.delete_stream("EVENTS");
    fixture.server.make_stream("EVENTS", &["events.>"]);
    fixture.publish("second", 5);
    let (_, report) = gaps(&fixture, &[]);
    assert!(report["unknown"][0].as_str().is_some_and(|text| text.contains("created again since")), "{report}");
    fixture.drain();
    let (status, report) = gaps(&fixture, &[]);
    assert_eq!((status, ranges(&report)), (1, vec![(4, 6, "lost")]), "{report}");
    let current = |at: usize| &report["epochs"][at]["is_current"];
    assert_eq!(
        (current(0), current(1), &report["gaps"][0]["epoch"]),
        (&json!(false), &json!(true), &json!(1)),
        "{report}"
    );
    assert_eq!(oracle::count(&fixture.database()), 12);
}

#[test]
fn without_a_broker_the_way_out_is_named() {
    let mut fixture = Fixture::new();
    fixture.publish("old", 3);
    fixture.drain();
    fixture.server.stop();
    let url = fixture.server.url();
    let mut command = fixture.command(&["gaps", "--server", &url, "--database", "a.db", "--timeout", "1s"]);
    refused(&mut command, 1, &["--offline lists what the ledger has"]);
    refused(
        &mut fixture.command(&["gaps", "--offline", "--database", "none.db"]),
        1,
        &["none.db: there is no such file"],
    );
    let done = output(&mut fixture.command(&["gaps", "--offline", "--database", "a.db"]));
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success() && said.starts_with("no event of stream EVENTS was lost\nnot known: "), "{said}");
}
