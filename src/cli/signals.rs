//! SIGINT and SIGTERM: the first requests an orderly stop, the second ends the process at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::{io, thread};

use anyhow::Context;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use super::failure::ExitStatus;

/// Whether a stop was requested, and by what.
#[derive(Clone)]
pub struct Signals {
    asked: Arc<AtomicBool>,
    /// The number of the last signal; 0 for none.
    signal: Arc<AtomicUsize>,
}

impl Signals {
    /// Catches both signals from now on.
    pub fn catch() -> anyhow::Result<Self> {
        let (asked, last) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        for signal in [SIGINT, SIGTERM] {
            let number = usize::try_from(signal).unwrap_or_default();
            // The first is registered first, so that the flag is not set yet when the first signal arrives.
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&asked))
                .and_then(|_| flag::register_usize(signal, Arc::clone(&last), number))
                .and_then(|_| flag::register(signal, Arc::clone(&asked)))
                .context("cannot catch signals")?;
        }
        Ok(Self { asked, signal: last })
    }

    /// Treats the end of standard input as a request to stop.
    pub fn end_with_input(&self) -> anyhow::Result<()> {
        let asked = Arc::clone(&self.asked);
        let read = move || {
            let _ = io::copy(&mut io::stdin(), &mut io::sink());
            asked.store(true, Ordering::Relaxed);
        };
        thread::Builder::new().name("catchment-input".into()).spawn(read).context("cannot watch standard input")?;
        Ok(())
    }

    /// The flag that the first signal sets.
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.asked)
    }

    /// Whether a stop was requested.
    pub fn end_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// The exit status of a command that a signal ended before it was done, as shells report it: 130 for SIGINT, 143 for SIGTERM.
    /// `None` where no signal has arrived.
    pub fn interrupted(&self) -> Option<ExitStatus> {
        let signal = u8::try_from(self.signal.load(Ordering::Relaxed)).ok().filter(|signal| *signal > 0)?;
        Some(ExitStatus(128 + signal))
    }
}
