//! Records each line of standard input as an event.
//!
//! Through NATS, so that the program never waits for the database: `make run` in one terminal, then
//! `cargo run --example bot -- $(cat catchment.db.server)` in another. Or directly into a file, without a broker:
//! `cargo run --example bot -- lines.db`.

use std::io::BufRead;
use std::time::Duration;

use catchment::record::{FlushError, RecordError};
use catchment::{DirectRecorder, Event, NatsRecorder, Recorder};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let target = std::env::args().nth(1).unwrap_or_else(|| "nats://127.0.0.1:4222".into());
    // The only line that depends on the choice of recorder.
    let recorder: Box<dyn Recorder> = if target.contains("://") {
        Box::new(NatsRecorder::connect(&target)?)
    } else {
        Box::new(DirectRecorder::create(&target)?)
    };
    record_lines(&*recorder, std::io::stdin().lock())
}

/// Records each line, and closes the recorder.
pub fn record_lines(recorder: &dyn Recorder, lines: impl BufRead) -> Result<(), Box<dyn std::error::Error>> {
    for line in lines.lines() {
        let payload = serde_json::json!({ "from": "stdin", "text": line? });
        // The receipt is dropped: if the event fails later, close returns it.
        if let Err(refused) = recorder.record(Event::json("events.line", &payload)?) {
            report(&refused);
        }
    }
    match recorder.close(Duration::from_secs(5)) {
        Err(FlushError::Failed { failed, .. }) => {
            failed.iter().for_each(report);
            Err(format!("{} lines are not recorded", failed.len()).into())
        }
        closed => Ok(closed?),
    }
}

/// An event that is not recorded comes back in the error, so that the program can decide about it: record it again, write it to a
/// file, or only report it, as here.
fn report(failure: &RecordError) {
    let twice = if failure.reason.may_be_stored() { "; recorded again, it may be there twice" } else { "" };
    eprintln!("{failure}{twice}: {}", String::from_utf8_lossy(failure.event.payload()));
}
