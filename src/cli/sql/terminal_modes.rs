//! Restores the terminal's modes when a signal ends the prompt: while a line is edited, the terminal shows no typed characters.

use std::io;
use std::thread;

use anyhow::Context;
use nix::sys::termios::{SetArg, tcgetattr, tcsetattr};
use signal_hook::consts::{SIGHUP, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

/// Ends the mode in which a terminal marks pasted text.
const NO_BRACKETED_PASTE: &[u8] = b"\x1b[?2004l\r\n";

/// From now on these signals restore the modes that the terminal has now, before they end the process.
///
/// # Errors
///
/// The signals cannot be caught.
pub fn restore_at_signals() -> anyhow::Result<()> {
    let Ok(modes) = tcgetattr(io::stdin()) else { return Ok(()) };
    let mut signals = Signals::new([SIGTERM, SIGHUP, SIGQUIT]).context("cannot catch signals")?;
    let restore = move || {
        for signal in &mut signals {
            // Where the terminal is gone, there is nothing to restore.
            let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &modes);
            let _ = nix::unistd::write(io::stdout(), NO_BRACKETED_PASTE);
            let _ = emulate_default_handler(signal);
        }
    };
    thread::Builder::new().name("catchment-signals".into()).spawn(restore).context("cannot catch signals")?;
    Ok(())
}
