//! Asks the collector again and again, on a thread of its own: an answer may take long, and keys must not wait for it.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use crossbeam_channel::{Receiver, Sender};

use crate::cli::status::{TIMEOUT, Unanswered};
use crate::observe::{Snapshot, ask_snapshot};

/// What one look found.
pub struct Look {
    pub at: Instant,
    pub found: Result<Box<Snapshot>, Unanswered>,
}

/// The looks of a thread.
pub struct Watch {
    looks: Receiver<Look>,
}

impl Watch {
    /// Starts to look. The thread ends after this is dropped.
    pub fn start(database: &Path, interval: Duration) -> anyhow::Result<Self> {
        let (to, looks) = crossbeam_channel::bounded(1);
        let database = database.to_owned();
        let look = move || look(&database, interval, &to);
        thread::Builder::new().name("catchment-top".into()).spawn(look).context("cannot start a thread")?;
        Ok(Self { looks })
    }

    /// The next look, if there is one within this time.
    pub fn next(&self, within: Duration) -> Option<Look> {
        self.looks.recv_timeout(within).ok()
    }
}

fn look(database: &Path, interval: Duration, to: &Sender<Look>) {
    let mut due = Instant::now();
    loop {
        let found = ask_snapshot(database, TIMEOUT).map(Box::new).map_err(|error| Unanswered::of(database, error));
        if to.send(Look { at: Instant::now(), found }).is_err() {
            return;
        }
        due = (due + interval).max(Instant::now());
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}
