//! A collector inside your own program: settings in code, a recorder beside it, a read of what was recorded, and an orderly stop.
//!
//! `make run` in one terminal; then `cargo run --example collector -- $(cat catchment.db.server)` in another. The database is
//! `example.db`: a file has one collector, and `catchment.db` has its own.

use std::time::Duration;

use catchment::rusqlite::{Connection, OpenFlags};
use catchment::{Collector, Config, Event, NatsRecorder, NatsRecorderConfig, Recorder};

const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut config = Config::default();
    config.broker.servers = vec![std::env::args().nth(1).unwrap_or_else(|| "nats://127.0.0.1:4222".into())];
    config.broker.stream = "EVENTS".into();
    config.database.path = "example.db".into();
    println!("committed: {}", run(&config)?);
    Ok(())
}

/// Records an event, waits until it is in the database, and returns its payload from there.
pub fn run(config: &Config) -> Result<String, Box<dyn std::error::Error>> {
    // The collector first: it makes the stream where there is none.
    let collector = Collector::start(config)?;
    let recorder = NatsRecorder::open(NatsRecorderConfig::new(config.broker.clone()))?;
    let receipt = recorder.record(Event::new("events.door", r#"{"open": true}"#))?;
    let sequence = receipt.wait(PATIENCE)?.sequence().ok_or("the event is in no stream")?;
    if !collector.wait_for(sequence, PATIENCE)? {
        return Err(format!("event {sequence} is not committed in time; {:?}", collector.health()).into());
    }
    // The event is in the database now, and so is every event before it.
    let database = Connection::open_with_flags(&config.database.path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let sql = "SELECT payload FROM events WHERE stream = ? AND sequence = ?";
    let payload = database.query_row(sql, (&config.broker.stream, sequence), |row| row.get(0))?;

    recorder.close(PATIENCE)?;
    let status = collector.stop(PATIENCE)?;
    println!("{} events, {} of them dead letters", status.committed, status.dead_letters);
    Ok(payload)
}
