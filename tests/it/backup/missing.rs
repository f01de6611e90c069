//! What the stream lacks after a restored backup.

use serde_json::{Value, json};

use super::{backup, json_of};
use crate::support::collector::{catchment, printed};
use crate::support::fixture::Fixture;
use crate::support::oracle;

#[test]
fn what_an_interest_stream_has_dropped_is_said_and_lost() {
    let fixture = Fixture::with_retention("interest");
    let (database, file) = (fixture.database(), fixture.path("saved.db"));
    fixture.drain();
    let collector = fixture.collector();
    collector.said("collecting stream");
    let first = fixture.publish("first", 100);
    fixture.has(100);
    printed(&mut backup(&database, &file));
    fixture.publish("lost", 100);
    fixture.has(200);
    assert!(collector.stop().success());
    let kept = fixture.publish("kept for the consumer", 100);
    let mut command = catchment();
    command.args(["restore", "--server", &fixture.server.url(), "--database"]).arg(&database).arg(&file);
    let said = printed(&mut command);
    assert!(said.contains(" will report: ") && said.contains("100 event"), "{said}");
    let log = fixture.drain();
    assert!(log.contains("100 event"), "{log}");
    assert_eq!(oracle::payloads(&database), [first, kept].concat());
    oracle::sound(&database);
}

#[test]
fn a_restore_says_what_the_stream_no_longer_has_anywhere_after_it() {
    let fixture = Fixture::new();
    let (database, file) = (fixture.database(), fixture.path("saved.db"));
    fixture.publish("first", 10);
    fixture.drain();
    printed(&mut backup(&database, &file));
    let restored = || {
        let mut command = catchment();
        command.args(["restore", "--server", &fixture.server.url(), "--database"]).arg(&database).arg(&file);
        let said = printed(&mut command);
        (said, json_of(&printed(command.arg("--json"))))
    };
    fixture.publish("second", 20);
    let (said, report) = restored();
    assert!(said.contains("stream EVENTS has all that came after that"), "{said}");
    assert_eq!((&report["missing_events"], &report["gaps"], &report["unknown"]), (&json!(0), &json!([]), &json!([])));
    for sequence in [5, 15, 16, 20] {
        fixture.ask("$JS.API.STREAM.MSG.DELETE.EVENTS", &json!({ "seq": sequence }));
    }
    fixture.drain();
    let (said, report) = restored();
    assert!(said.contains("stream EVENTS no longer has 3 events after that: 15 to 16, 20\n"), "{said}");
    assert!(said.contains("what the stream lacks may be in ") && !said.contains("will report"), "{said}");
    let gaps = json!([{ "first": 15, "last": 16 }, { "first": 20, "last": 20 }]);
    assert_eq!((&report["missing_events"], &report["gaps"], &report["missing"]), (&json!(3), &gaps, &Value::Null));
    // At the beginning too.
    fixture.ask("$JS.API.STREAM.PURGE.EVENTS", &json!({ "seq": 13 }));
    let (said, report) = restored();
    assert!(said.contains("no longer has 11 to 12") && said.contains(" 5 events after that: 11 to 12, 15"), "{said}");
    assert_eq!(report["missing_events"], 5);
    // What it says happens.
    let log = fixture.drain();
    assert!(log.contains("11 to 12"), "{log}");
    assert_eq!(oracle::count(&database), 10 + 20 - 5);
    // Another stream of the same name.
    fixture.ask("$JS.API.STREAM.DELETE.EVENTS", &Value::Null);
    let (said, report) = restored();
    assert!(said.contains(" will report: there is no stream EVENTS\n"), "{said}");
    assert_eq!(report["missing"], "there is no stream EVENTS");
    fixture.server.make_stream("EVENTS", &["events.>"]);
    fixture.publish("third", 5);
    let (said, report) = restored();
    assert!(said.contains(" will report: stream EVENTS was created again at ") && !said.contains("continues there"));
    assert_eq!((&report["missing_events"], &report["gaps"]), (&json!(0), &json!([])), "{report}");
    let log = fixture.drain();
    assert!(log.contains("was created again at "), "{log}");
    assert_eq!(oracle::count(&database), 15);
}
