//! The terminal while figures are drawn on it: another screen, without echo and cursor. Dropping it restores the terminal.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use crossterm::cursor::{Hide, Show};
use crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode, size};
use crossterm::{execute, queue};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use signal_hook::consts::SIGTSTP;
use signal_hook::low_level::raise;

/// What was typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// `q`, Ctrl-C, Ctrl-D or Escape; or the terminal is gone.
    Quit,
    /// Ctrl-Z.
    Suspend,
    /// Ctrl-L.
    Redraw,
}

/// The terminal.
pub struct Screen {
    /// Standard input, without a buffer: what is typed must not stay in one.
    keys: File,
    /// Cleared before the next drawing.
    is_fresh: bool,
}

impl Screen {
    /// Takes over the terminal.
    pub fn enter() -> anyhow::Result<Self> {
        let keys = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        // Made first: if the second step fails, dropping it undoes the first.
        let screen = Self { keys, is_fresh: true };
        take_over()?;
        Ok(screen)
    }

    /// Gives the terminal back, stops this process as a shell's Ctrl-Z does, and takes the terminal over when it goes on.
    pub fn suspend(&mut self) -> anyhow::Result<()> {
        restore();
        raise(SIGTSTP)?;
        self.is_fresh = true;
        Ok(take_over()?)
    }

    /// Columns and lines. 80 and 24 if the terminal does not report them.
    pub fn size() -> (usize, usize) {
        match size() {
            Ok((columns, lines)) if columns > 0 && lines > 0 => (columns.into(), lines.into()),
            _ => (80, 24),
        }
    }

    /// Waits for a key, at most this long. Keys without a meaning are `None`.
    pub fn key(&mut self, within: Duration) -> io::Result<Option<Key>> {
        let mut polled = [PollFd::new(self.keys.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(within).unwrap_or(PollTimeout::ZERO);
        match poll(&mut polled, timeout) {
            // A signal, for example of a new size.
            Ok(0) | Err(Errno::EINTR) => return Ok(None),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let mut typed = [0; 64];
        let count = match self.keys.read(&mut typed) {
            Ok(0) => return Ok(Some(Key::Quit)),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(None),
            Err(_) => return Ok(Some(Key::Quit)),
        };
        let key = key_of(&typed[..count]);
        self.is_fresh |= key == Some(Key::Redraw);
        Ok(key)
    }

    /// Draws these lines. None may be wider than the terminal.
    pub fn draw(&mut self, lines: &[String]) -> io::Result<()> {
        // In one write, so that no half of it is seen.
        let mut frame = Vec::new();
        if std::mem::take(&mut self.is_fresh) {
            queue!(frame, crossterm::terminal::Clear(crossterm::terminal::ClearType::All))?;
        }
        frame.extend_from_slice(b"\x1b[H");
        for (at, line) in lines.iter().enumerate() {
            if at > 0 {
                frame.extend_from_slice(b"\r\n");
            }
            frame.extend_from_slice(line.as_bytes());
            // Erases what an earlier, longer line left.
            frame.extend_from_slice(b"\x1b[K");
        }
        frame.extend_from_slice(b"\x1b[J");
        let mut stdout = io::stdout().lock();
        stdout.write_all(&frame)?;
        stdout.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

fn take_over() -> io::Result<()> {
    enable_raw_mode()?;
    execute!(io::stdout(), EnterAlternateScreen, Hide)
}

fn restore() {
    // If the terminal is gone, there is nothing to restore.
    let _ = execute!(io::stdout(), Show, LeaveAlternateScreen);
    let _ = disable_raw_mode();
}

/// The meaning of what was typed. Of several keys the one that ends counts, else the first.
fn key_of(mut typed: &[u8]) -> Option<Key> {
    let mut found = None;
    while let [first, rest @ ..] = typed {
        let (key, rest) = match (first, rest) {
            // An arrow, for example, which has no meaning: it begins with Escape too.
            (0x1b, [b'[', rest @ ..]) => {
                let end = rest.iter().position(|byte| (0x40..=0x7e).contains(byte));
                (None, end.map_or(&[][..], |end| &rest[end + 1..]))
            }
            (0x1b, [b'O', _, rest @ ..] | [_, rest @ ..]) => (None, rest),
            (b'q' | b'Q' | 0x03 | 0x04 | 0x1b, _) => return Some(Key::Quit),
            (0x1a, rest) => (Some(Key::Suspend), rest),
            (0x0c, rest) => (Some(Key::Redraw), rest),
            (_, rest) => (None, rest),
        };
        found = found.or(key);
        typed = rest;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_some_keys_have_a_meaning() {
        for typed in [&b"q"[..], b"xQ", b"\x03", b"\x1b", b"\x04", b"\x0cq", b"\x1b[Bq", b"\x1b[1;5CxQ", b"\x1bOAq"] {
            assert_eq!(key_of(typed), Some(Key::Quit), "{typed:?}");
        }
        assert_eq!((key_of(b"\x1a"), key_of(b"\x0c")), (Some(Key::Suspend), Some(Key::Redraw)));
        for typed in [&b"\x1b[A"[..], b"x", b"\x1bOq", b"\x1bq", b"\x1b[", b" "] {
            assert_eq!(key_of(typed), None, "{typed:?}");
        }
    }
}
