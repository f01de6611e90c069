//! Records each line of standard input as an event.
//!
//! Through NATS, so that the program never waits for the database: `make run` in one terminal, then
//! `cargo run --example bot -- $(cat catchment.db.server)` in another. Or directly into a file, without a broker:
//! `cargo run --example bot -- lines.db`.

use std::io::BufRead;
use std::time::Duration;

use catchment::{DirectRecorder, Event, NatsRecorder, Recorder};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let target = std::env::args().nth(1).unwrap_or_else(|| "nats://127.0.0.1:4222".into());
    // The only line that depends on the choice of recorder.
    let recorder: Box<dyn Recorder> = if target.contains("://") {
        Box::new(NatsRecorder::connect(&target)?)
    } else {
        Box::new(DirectRecorder::create(&target)?)
    };
    for line in std::io::stdin().lock().lines() {
        let payload = serde_json::json!({ "from": "stdin", "text": line? });
        recorder.record(Event::json("events.line", &payload)?)?;
    }
    recorder.flush(Duration::from_secs(5))?;
    Ok(())
}
