//! SIGINT and SIGTERM: the first asks for an orderly end, the second ends at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{io, thread};

use anyhow::Context;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// Whether somebody asked for an end.
#[derive(Clone)]
pub struct Signals(Arc<AtomicBool>);

impl Signals {
    /// Catches both signals from now on.
    pub fn catch() -> anyhow::Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // Registered first, so that the first signal still finds the flag down.
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&asked))
                .and_then(|_| flag::register(signal, Arc::clone(&asked)))
                .context("cannot catch signals")?;
        }
        Ok(Self(asked))
    }

    /// Takes the end of standard input for a signal.
    pub fn end_with_input(&self) -> anyhow::Result<()> {
        let asked = Arc::clone(&self.0);
        let read = move || {
            let _ = io::copy(&mut io::stdin(), &mut io::sink());
            asked.store(true, Ordering::Relaxed);
        };
        thread::Builder::new().name("catchment-input".into()).spawn(read).context("cannot watch standard input")?;
        Ok(())
    }

    /// Whether one has come.
    pub fn end_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
