//! A bot that records what it hears: one line an event.
//!
//! Through NATS, so that nothing waits for the database: `make run` in one terminal, then
//! `cargo run --example bot -- $(cat catchment.db.server)` in another. Or straight into a file, without a broker:
//! `cargo run --example bot -- heard.db`.

use std::io::BufRead;
use std::time::Duration;

use catchment::{DirectRecorder, Event, NatsRecorder, Recorder};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let place = std::env::args().nth(1).unwrap_or_else(|| "nats://127.0.0.1:4222".into());
    // The choice is this one; nothing below knows of it.
    let recorder: Box<dyn Recorder> = if place.contains("://") {
        Box::new(NatsRecorder::connect(&place)?)
    } else {
        Box::new(DirectRecorder::create(&place)?)
    };
    for line in std::io::stdin().lock().lines() {
        let heard = serde_json::json!({ "from": "stdin", "text": line? });
        recorder.record(Event::json("events.heard", &heard)?)?;
    }
    recorder.flush(Duration::from_secs(5))?;
    Ok(())
}
