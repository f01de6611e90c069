//! Lines of a file or of standard input. A thread of its own reads them, so that waiting for a line ends at a signal.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use anyhow::Context;

use super::signals::Signals;

/// Lines read ahead.
const AHEAD: usize = 1_000;

/// How often to check for a signal while no line arrives.
const POLL: Duration = Duration::from_millis(50);

/// Lines without their line ends, empty ones skipped, until the end of the input or a signal.
pub struct Lines {
    lines: Receiver<io::Result<Vec<u8>>>,
    signals: Signals,
}

impl Lines {
    /// The lines of this file, else of standard input.
    pub fn of(file: Option<&Path>, signals: &Signals) -> anyhow::Result<Self> {
        let (line, lines) = sync_channel(AHEAD);
        let file = file.map(|file| File::open(file).with_context(|| format!("cannot read {}", file.display())));
        let file = file.transpose()?;
        let read = move || match file {
            Some(file) => send(BufReader::new(file), &line),
            None => send(io::stdin().lock(), &line),
        };
        thread::Builder::new().name("catchment-input".into()).spawn(read).context("cannot read the input")?;
        Ok(Self { lines, signals: signals.clone() })
    }
}

fn send(source: impl BufRead, to: &SyncSender<io::Result<Vec<u8>>>) {
    for mut line in source.split(b'\n') {
        if let Ok(line) = &mut line
            && line.last() == Some(&b'\r')
        {
            line.pop();
        }
        let is_empty = matches!(&line, Ok(line) if line.is_empty());
        if !is_empty && to.send(line).is_err() {
            return;
        }
    }
}

impl Iterator for Lines {
    type Item = io::Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.lines.recv_timeout(POLL) {
                Ok(line) => return Some(line),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) if self.signals.end_asked() => return None,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}
