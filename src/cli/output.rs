//! Standard output: buffered; detects that its reader has left; writes nothing to a terminal that steers it.

use std::io::{self, BufWriter, ErrorKind, IsTerminal, StdoutLock, Write};
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::terminal_filter::TerminalFilter;

/// Standard output for results. It is buffered: flush before the end, because an error on drop is lost.
///
/// A file or a pipe gets every byte unchanged. On a terminal, characters that steer it are escaped, unless
/// [`Output::allow_styles`] is called.
pub struct Output {
    writer: BufWriter<StdoutLock<'static>>,
    /// What is written after the reader has left is discarded, and is no error.
    optional: bool,
    /// For a terminal.
    filter: Option<TerminalFilter>,
}

/// Marks a broken pipe of standard output, so that it differs from those of sockets and child processes.
#[derive(Debug, thiserror::Error)]
#[error("the reader of standard output has left")]
struct ReaderLeft;

impl Output {
    /// Locks standard output until this is dropped. For a command whose result is its output: it is done when the reader leaves.
    pub fn new() -> Self {
        let stdout = io::stdout().lock();
        let filter = stdout.is_terminal().then(TerminalFilter::default);
        Self { writer: BufWriter::with_capacity(64 << 10, stdout), optional: false, filter }
    }

    /// The same for a command whose exit status has a meaning of its own: the status does not depend on the reader.
    pub fn optional() -> Self {
        Self { optional: true, ..Self::new() }
    }

    /// Writes unchanged to a terminal too. For tables: their texts are escaped before, and they have styles.
    pub fn allow_styles(&mut self) {
        self.filter = None;
    }

    /// Checks that standard output still has a reader. Writes nothing and does not block.
    ///
    /// # Errors
    ///
    /// The broken pipe that a write would return.
    pub fn check_open(&self) -> io::Result<()> {
        let mut polled = [PollFd::new(self.writer.get_ref().as_fd(), PollFlags::empty())];
        poll(&mut polled, PollTimeout::ZERO)?;
        let is_broken = polled[0].revents().is_some_and(|events| events.contains(PollFlags::POLLERR));
        if is_broken { Err(marked(ErrorKind::BrokenPipe.into())) } else { Ok(()) }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match &mut self.filter {
            Some(filter) => filter.write(bytes, &mut self.writer).map(|()| bytes.len()),
            None => self.writer.write(bytes),
        };
        match written {
            Err(error) if self.optional && error.kind() == ErrorKind::BrokenPipe => Ok(bytes.len()),
            written => written.map_err(marked),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        let finished = self.filter.as_mut().map_or(Ok(()), |filter| filter.finish(&mut self.writer));
        match finished.and_then(|()| self.writer.flush()) {
            Err(error) if self.optional && error.kind() == ErrorKind::BrokenPipe => Ok(()),
            flushed => flushed.map_err(marked),
        }
    }
}

fn marked(error: io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::BrokenPipe => io::Error::new(ErrorKind::BrokenPipe, ReaderLeft),
        // `write_all` must see an interruption, because it repeats the write.
        ErrorKind::Interrupted => error,
        kind => io::Error::new(kind, format!("standard output: {error}")),
    }
}

/// Whether a command ended because the reader of its standard output has left.
pub fn is_closed(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let inner = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        matches!(inner, Some(inner) if inner.is::<ReaderLeft>())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_broken_pipe_of_standard_output_counts_as_closed() {
        let broken = || io::Error::from(ErrorKind::BrokenPipe);
        assert!(is_closed(&anyhow::Error::new(marked(broken())).context("writing")));
        assert!(!is_closed(&anyhow::Error::new(broken())));
        assert_eq!(marked(io::Error::other("no space")).to_string(), "standard output: no space");
    }
}
