//! Standard output: buffered, and aware that its reader may leave.

use std::io::{self, BufWriter, ErrorKind, StdoutLock, Write};
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Standard output for results. What is written shows at a flush at the latest; flush before the end, for errors on
/// drop are not seen.
pub struct Output(BufWriter<StdoutLock<'static>>);

/// The error beneath a broken pipe of standard output, to tell it from those of sockets and child processes.
#[derive(Debug, thiserror::Error)]
#[error("nobody reads standard output any more")]
struct NobodyReads;

impl Output {
    /// Takes standard output, which nobody else can write to until this is dropped.
    pub fn new() -> Self {
        Self(BufWriter::with_capacity(64 << 10, io::stdout().lock()))
    }

    /// Whether somebody reads it still, without writing anything. Does not block.
    ///
    /// # Errors
    ///
    /// The broken pipe that a write would meet.
    pub fn is_read(&self) -> io::Result<()> {
        let mut asked = [PollFd::new(self.0.get_ref().as_fd(), PollFlags::empty())];
        poll(&mut asked, PollTimeout::ZERO)?;
        let is_broken = asked[0].revents().is_some_and(|events| events.contains(PollFlags::POLLERR));
        if is_broken { Err(named(ErrorKind::BrokenPipe.into())) } else { Ok(()) }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(named)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(named)
    }
}

fn named(error: io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::BrokenPipe => io::Error::new(ErrorKind::BrokenPipe, NobodyReads),
        // Interruptions are for `write_all` to see and repeat.
        ErrorKind::Interrupted => error,
        kind => io::Error::new(kind, format!("standard output: {error}")),
    }
}

/// Whether a command ended because nobody reads its standard output any more.
pub fn nobody_reads(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let inner = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        matches!(inner, Some(inner) if inner.is::<NobodyReads>())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_broken_standard_output_counts_as_nobody_reading() {
        let broken = || io::Error::from(ErrorKind::BrokenPipe);
        assert!(nobody_reads(&anyhow::Error::new(named(broken())).context("writing")));
        assert!(!nobody_reads(&anyhow::Error::new(broken())));
        assert_eq!(named(io::Error::other("no space")).to_string(), "standard output: no space");
    }
}
