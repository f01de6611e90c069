//! A bot that records what it hears through NATS: one line an event, and nothing waits for the database.
//!
//! `make run` in one terminal, then `cargo run --example bot -- $(cat catchment.db.server)` in another.

use std::io::BufRead;
use std::time::Duration;

use catchment::{Event, NatsRecorder, Recorder};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = std::env::args().nth(1).unwrap_or_else(|| "nats://127.0.0.1:4222".into());
    let recorder = NatsRecorder::connect(&server)?;
    for line in std::io::stdin().lock().lines() {
        let heard = serde_json::json!({ "from": "stdin", "text": line? });
        recorder.record(Event::json("events.heard", &heard)?)?;
    }
    recorder.flush(Duration::from_secs(5))?;
    Ok(())
}
