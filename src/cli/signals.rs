//! SIGINT and SIGTERM: the first requests an orderly stop, the second ends the process at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{io, thread};

use anyhow::Context;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// Whether a stop was requested.
#[derive(Clone)]
pub struct Signals(Arc<AtomicBool>);

impl Signals {
    /// Catches both signals from now on.
    pub fn catch() -> anyhow::Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // Registered first, so that the flag is not set yet when the first signal arrives.
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&asked))
                .and_then(|_| flag::register(signal, Arc::clone(&asked)))
                .context("cannot catch signals")?;
        }
        Ok(Self(asked))
    }

    /// Treats the end of standard input as a signal.
    pub fn end_with_input(&self) -> anyhow::Result<()> {
        let asked = Arc::clone(&self.0);
        let read = move || {
            let _ = io::copy(&mut io::stdin(), &mut io::sink());
            asked.store(true, Ordering::Relaxed);
        };
        thread::Builder::new().name("catchment-input".into()).spawn(read).context("cannot watch standard input")?;
        Ok(())
    }

    /// Whether a signal has arrived.
    pub fn end_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
