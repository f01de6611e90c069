//! Reads the settings of `catchment run` again while it collects.

use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, TryRecvError};

use crate::error::Error;
use crate::{Collector, Config, Reloaded};

/// A reload under way, on a thread of its own: a stop does not wait for it.
pub struct Reloading {
    config: Config,
    outcome: Receiver<Result<Reloaded, Error>>,
}

impl Reloading {
    /// Begins.
    pub fn begin(collector: &Arc<Collector>, config: Config) -> std::io::Result<Self> {
        let (done, outcome) = crossbeam_channel::bounded(1);
        let (collector, new) = (Arc::clone(collector), config.clone());
        let reload = move || {
            // Nobody receives it if the collector was stopped meanwhile.
            let _ = done.send(collector.reload(&new));
        };
        thread::Builder::new().name("catchment-reload".into()).spawn(reload)?;
        Ok(Self { config, outcome })
    }

    /// The outcome, with the settings that were read; `None` while it is under way. Does not block.
    pub fn outcome(&self) -> Option<(Result<Reloaded, Error>, &Config)> {
        match self.outcome.try_recv() {
            Ok(outcome) => Some((outcome, &self.config)),
            Err(TryRecvError::Empty) => None,
            // The thread has panicked, and the log has the panic.
            Err(TryRecvError::Disconnected) => Some((Err(Error::Ended), &self.config)),
        }
    }
}

/// What a reload did, in words.
pub fn described(reloaded: &Reloaded) -> String {
    match &reloaded.changed[..] {
        [] => "nothing differs".into(),
        changed => format!("changed {}", changed.join(", ")),
    }
}
