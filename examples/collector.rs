//! A collector inside your own program: settings in code, counters at any time, and an orderly stop.

use std::time::Duration;

use catchment::{Collector, Config};

fn main() -> Result<(), catchment::Error> {
    let mut config = Config::default();
    config.broker.stream = "EVENTS".into();
    config.database.path = "events.db".into();
    let mut collector = Collector::start(&config)?;
    while collector.status().committed < 1_000 {
        if collector.wait(Duration::from_secs(1))? {
            break;
        }
    }
    let status = collector.stop(Duration::from_secs(10))?;
    println!("{} events, {} of them dead letters", status.committed, status.dead_letters);
    Ok(())
}
