//! SIGINT, SIGTERM and SIGHUP: the first requests an orderly stop, the second ends the process at once. In a collector SIGHUP requests a
//! reload instead.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::{io, thread};

use anyhow::Context;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;

use super::failure::ExitStatus;

/// Lets a write beyond a limit of file sizes (`ulimit -f`, `LimitFSIZE` of a service) fail with an error. Unless a program handles SIGXFSZ,
/// the write ends it: <https://man7.org/linux/man-pages/man2/getrlimit.2.html>.
pub fn survive_file_size_limit() {
    // Without a handler the process ends, as before.
    let _ = flag::register(SIGXFSZ, Arc::default());
}

/// Whether a stop was requested, and by what.
#[derive(Clone)]
pub struct Signals {
    asked: Arc<AtomicBool>,
    /// The number of the last signal; 0 for none.
    signal: Arc<AtomicUsize>,
    reload: Arc<AtomicBool>,
    /// Standard input or standard error was a terminal when SIGHUP was caught.
    had_terminal: bool,
}

impl Signals {
    /// Catches the signals from now on: SIGHUP too, which comes when the terminal is closed, unless this process is to ignore it (`nohup`).
    pub fn catch() -> anyhow::Result<Self> {
        let ending = [SIGINT, SIGTERM, SIGHUP];
        Self::ended_by(if is_ignored(SIGHUP) { &ending[..2] } else { &ending })
    }

    fn ended_by(signals: &[i32]) -> anyhow::Result<Self> {
        let (asked, last) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        for &signal in signals {
            let number = usize::try_from(signal).unwrap_or_default();
            // The first is registered first, so that the flag is not set yet when the first signal arrives.
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&asked))
                .and_then(|_| flag::register_usize(signal, Arc::clone(&last), number))
                .and_then(|_| flag::register(signal, Arc::clone(&asked)))
                .context("cannot catch signals")?;
        }
        Ok(Self { asked, signal: last, reload: Arc::default(), had_terminal: false })
    }

    /// Catches the signals, with SIGHUP as a request for a reload. When the terminal of the process is closed, the system sends the same
    /// signal: that is a request to stop.
    pub fn catch_with_reload() -> anyhow::Result<Self> {
        let signals = Self { had_terminal: has_terminal(), ..Self::ended_by(&[SIGINT, SIGTERM])? };
        flag::register(SIGHUP, Arc::clone(&signals.reload)).context("cannot catch signals")?;
        Ok(signals)
    }

    /// Whether a reload was requested since the last call.
    pub fn reload_asked(&self) -> bool {
        !self.end_asked() && self.reload.swap(false, Ordering::Relaxed)
    }

    /// Stops if SIGHUP came because the terminal was closed.
    fn notice_lost_terminal(&self) {
        if self.had_terminal && self.reload.load(Ordering::Relaxed) && !has_terminal() {
            self.signal.store(usize::try_from(SIGHUP).unwrap_or_default(), Ordering::Relaxed);
            self.asked.store(true, Ordering::Relaxed);
        }
    }

    /// Treats the end of standard input as a request to stop.
    pub fn end_with_input(&self) -> anyhow::Result<()> {
        let asked = Arc::clone(&self.asked);
        let read = move || {
            let _ = io::copy(&mut io::stdin(), &mut io::sink());
            asked.store(true, Ordering::Relaxed);
        };
        thread::Builder::new().name("catchment-stdin".into()).spawn(read).context("cannot watch standard input")?;
        Ok(())
    }

    /// The flag that the first signal sets.
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.asked)
    }

    /// Whether a stop was requested.
    pub fn end_asked(&self) -> bool {
        self.notice_lost_terminal();
        self.asked.load(Ordering::Relaxed)
    }

    /// The exit status of a command that a signal ended before it was done, as shells report it: 130 for SIGINT, 143 for SIGTERM, 129 for
    /// SIGHUP and where the terminal was closed.
    /// `None` where no signal has arrived.
    pub fn interrupted(&self) -> Option<ExitStatus> {
        let signal = u8::try_from(self.signal.load(Ordering::Relaxed)).ok().filter(|signal| *signal > 0)?;
        Some(ExitStatus(128 + signal))
    }
}

/// Whether this process was started to ignore a signal. Where the system does not tell, it counts as ignored.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_none_or(|mask| mask >> (signal - 1) & 1 == 1)
}

/// A terminal that was closed is none.
fn has_terminal() -> bool {
    io::stdin().is_terminal() || io::stderr().is_terminal()
}
