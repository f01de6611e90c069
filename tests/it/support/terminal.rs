//! A command at a terminal: a pseudo-terminal of its own.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use nix::pty::{Winsize, openpty};
use nix::sys::termios::{LocalFlags, tcgetattr};

use super::eventually;

/// A command whose standard input, output and error are a terminal. It is killed when this is dropped.
pub struct Terminal {
    child: Child,
    keys: File,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Starts the command at a terminal with so many columns.
    pub fn start(command: &mut Command, columns: u16) -> Self {
        Self::start_with(command, columns, |_| {})
    }

    /// As [`Terminal::start`], with a change to the command after its environment is that of a terminal.
    pub fn start_with(command: &mut Command, columns: u16, change: impl FnOnce(&mut Command)) -> Self {
        let size = Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let ends = openpty(Some(&size), None).expect("a terminal");
        let end = || Stdio::from(ends.slave.try_clone().expect("clones"));
        command.env("TERM", "xterm").env_remove("NO_COLOR").env_remove("COLUMNS");
        change(command);
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().expect("catchment starts");
        // Only the child holds the other end now, so reading ends with it.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        drop(ends.slave);
        let keys = File::from(ends.master);
        let (mut screen, shown) = (keys.try_clone().expect("clones"), Arc::new(Mutex::new(Vec::new())));
        let to = Arc::clone(&shown);
        thread::spawn(move || {
            let mut part = [0; 4096];
            while let Ok(count @ 1..) = screen.read(&mut part) {
                to.lock().expect("not poisoned").extend_from_slice(&part[..count]);
            }
        });
        Self { child, keys, shown }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether the terminal shows what is typed, as it does for a shell.
    pub fn echoes(&self) -> bool {
        tcgetattr(&self.keys).expect("a terminal").local_flags.contains(LocalFlags::ECHO | LocalFlags::ICANON)
    }

    /// Everything that was shown so far, without the sequences that control the terminal.
    pub fn text(&self) -> String {
        plain(&String::from_utf8_lossy(&self.shown.lock().expect("not poisoned")))
    }

    /// What was drawn so far by a program that draws each frame from the upper left corner, frame by frame.
    pub fn frames(&self) -> Vec<String> {
        let shown = String::from_utf8_lossy(&self.shown.lock().expect("not poisoned")).into_owned();
        shown.split("\u{1b}[H").skip(1).map(plain).collect()
    }

    /// Waits until the last whole frame has this.
    #[track_caller]
    pub fn draws(&self, text: &str) -> String {
        let look = || {
            let mut frames = self.frames();
            // The last one may not be read to its end.
            frames.pop();
            frames.pop().filter(|frame| frame.contains(text))
        };
        eventually(&format!("a frame with {text:?}"), look)
    }

    /// Changes the size of the terminal.
    pub fn resize(&self, columns: u16, lines: u16) {
        let terminal = format!("/proc/{}/fd/0", self.pid());
        let (columns, lines) = (columns.to_string(), lines.to_string());
        let done = Command::new("stty").args(["-F", &terminal, "cols", &columns, "rows", &lines]).status();
        assert!(done.expect("stty runs").success());
    }

    /// Whether some text was drawn in colour.
    pub fn has_colors(&self) -> bool {
        String::from_utf8_lossy(&self.shown.lock().expect("not poisoned")).contains("\u{1b}[32m")
    }

    /// Waits until this is shown.
    #[track_caller]
    pub fn shows(&self, text: &str) {
        eventually(&format!("{text:?}"), || self.text().contains(text).then_some(()));
    }

    /// Waits until this is the last that is shown: a prompt that waits for a line.
    #[track_caller]
    pub fn ends_with(&self, text: &str) {
        eventually(&format!("{text:?} at the end"), || self.text().ends_with(text).then_some(()));
    }

    /// Types this.
    pub fn types(&mut self, keys: impl AsRef<[u8]>) {
        self.keys.write_all(keys.as_ref()).expect("the terminal is there");
    }

    /// Waits for the end; the status and everything that was shown.
    pub fn ended(&mut self) -> (ExitStatus, String) {
        let status = eventually("an end", || self.child.try_wait().expect("can be asked"));
        let mut before = None;
        // What was written last may not be read yet.
        eventually("the last output", || {
            let now = self.text();
            let same = before.as_ref() == Some(&now);
            before = Some(now);
            same.then_some(())
        });
        (status, self.text())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Text without control sequences and carriage returns.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '\u{1b}' => {
                // `ESC [ … letter`
                if rest.next() == Some('[') {
                    let _ = rest.find(char::is_ascii_alphabetic);
                }
            }
            '\r' => {}
            c => plain.push(c),
        }
    }
    plain
}
