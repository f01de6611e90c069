//! Lines of a file or of standard input. A thread of its own reads them, so that waiting for a line ends at a signal.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, IsTerminal, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;
use std::{fmt, mem, thread, vec};

use anyhow::Context;

use super::signals::Signals;
use crate::input_format::{HEAD, LONGEST_LINE, bytes_without_byte_order_mark, too_long, unreadable};

/// Bytes that are read at a time. Twice as many are read ahead, or two lines if these are longer.
const CHUNK: usize = 64 << 10;

/// How often to check for a signal while no line arrives.
const POLL: Duration = Duration::from_millis(50);

/// Where lines come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    File(PathBuf),
    StandardInput,
}

impl Source {
    /// The argument of a command: `-` is standard input.
    pub fn of(file: &Path) -> Self {
        if file == Path::new("-") { Self::StandardInput } else { Self::File(file.to_owned()) }
    }

    /// Its file, if it is one.
    fn file(&self) -> Option<&Path> {
        if let Self::File(file) = self { Some(file) } else { None }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => write!(f, "{}", file.display()),
            Self::StandardInput => f.write_str("standard input"),
        }
    }
}

/// A line without its line end.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    /// Its number in the input, from 1. Empty lines count.
    pub number: u64,
    pub bytes: Vec<u8>,
}

/// What the thread reads: lines, then at most one error.
type Lot = anyhow::Result<Vec<Line>>;

/// The lines of a source until its end or a signal. Line ends are `\n` or `\r\n`. Lines of white space only are skipped, and a byte
/// order mark at the start is too.
pub struct Lines {
    lots: Receiver<Lot>,
    lot: vec::IntoIter<Line>,
    signals: Signals,
    typed: bool,
    at_end: bool,
}

impl Lines {
    /// Opens the source. Blocks no longer than opening a file does; a named pipe is opened in the background. Logs how to end the
    /// input if it is a terminal.
    ///
    /// # Errors
    ///
    /// One line, with the source, for a file that cannot be opened. Further errors are returned in place of a line.
    pub fn of(source: &Source, signals: &Signals) -> anyhow::Result<Self> {
        let typed = *source == Source::StandardInput && io::stdin().is_terminal();
        if typed {
            log::info!("reading events from the terminal, one a line; Ctrl-D on an empty line ends them");
        }
        let file = match source {
            Source::File(path) => Some(Opening::of(path).with_context(|| format!("cannot read {source}"))?),
            Source::StandardInput => None,
        };
        let (to, lots) = sync_channel(1);
        let source = source.clone();
        let read = move || {
            let ended = match file {
                None => send(io::stdin().lock(), &source, &to),
                Some(opening) => opening.file().and_then(|file| send(file, &source, &to)),
            };
            // After an error that is no one's to read, the receiver is gone.
            let _ = ended.with_context(|| format!("cannot read {source}")).or_else(|error| to.send(Err(error)));
        };
        thread::Builder::new().name("catchment-input".into()).spawn(read).context("cannot read the input")?;
        Ok(Self { lots, lot: Vec::new().into_iter(), signals: signals.clone(), typed, at_end: false })
    }

    /// Whether all lines were returned. After a signal they may not have been.
    pub fn is_at_end(&self) -> bool {
        self.at_end
    }

    /// Whether the lines are typed on a terminal.
    pub fn are_typed(&self) -> bool {
        self.typed
    }
}

/// A file that is open, or a named pipe: opening one waits for its writer.
enum Opening {
    Open(File),
    Pipe(PathBuf),
}

impl Opening {
    fn of(path: &Path) -> anyhow::Result<Self> {
        let kind = fs::metadata(path)?.file_type();
        anyhow::ensure!(!kind.is_dir(), "it is a folder; name a file in it, or - for standard input");
        Ok(if kind.is_fifo() { Self::Pipe(path.to_owned()) } else { Self::Open(File::open(path)?) })
    }

    fn file(self) -> anyhow::Result<File> {
        Ok(match self {
            Self::Open(file) => file,
            Self::Pipe(path) => File::open(path)?,
        })
    }
}

/// Sends the lines of the input until its end, or until nobody receives them.
fn send(mut input: impl Read, source: &Source, to: &SyncSender<Lot>) -> anyhow::Result<()> {
    let head = head(&mut input)?;
    if let Some(refusal) = unreadable(&head, source.file()) {
        anyhow::bail!(refusal);
    }
    let mut input = BufReader::with_capacity(CHUNK, bytes_without_byte_order_mark(&head).chain(input));
    let (mut lot, mut bytes) = (Vec::new(), 0);
    for number in 1.. {
        let mut line = Vec::new();
        if input.by_ref().take(LONGEST_LINE + 1).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        anyhow::ensure!(line.len() as u64 <= LONGEST_LINE, too_long(number));
        for end in [b'\n', b'\r'] {
            line.pop_if(|last| *last == end);
        }
        if !line.trim_ascii().is_empty() {
            bytes += line.len();
            lot.push(Line { number, bytes: line });
        }
        // A line is passed on as soon as the rest of the next one has to be waited for.
        if bytes >= CHUNK || !input.buffer().contains(&b'\n') {
            bytes = 0;
            if !lot.is_empty() && to.send(Ok(mem::take(&mut lot))).is_err() {
                return Ok(());
            }
        }
    }
    if !lot.is_empty() {
        let _ = to.send(Ok(lot));
    }
    Ok(())
}

/// The first bytes of the input: at least [`HEAD`], or a whole line, or all.
fn head(input: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut head = vec![0; CHUNK];
    let mut read = 0;
    while read < HEAD && !head[..read].contains(&b'\n') {
        match input.read(&mut head[read..]) {
            Ok(0) => break,
            Ok(count) => read += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    head.truncate(read);
    Ok(head)
}

impl Iterator for Lines {
    type Item = anyhow::Result<Line>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(line) = self.lot.next() {
                return Some(Ok(line));
            }
            match self.lots.recv_timeout(POLL) {
                // Checked while lines arrive too: an input may have lines without end.
                Ok(Ok(_)) | Err(RecvTimeoutError::Timeout) if self.signals.end_asked() => return None,
                Ok(Ok(lot)) => self.lot = lot.into_iter(),
                Ok(Err(error)) => return Some(Err(error)),
                Err(RecvTimeoutError::Disconnected) => {
                    self.at_end = true;
                    return None;
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines, then the error if there is one.
    fn read(input: &[u8]) -> (Vec<(u64, String)>, Option<String>) {
        let (to, lots) = sync_channel(1_000);
        let ended = send(input, &Source::File("in".into()), &to);
        drop(to);
        let lines = lots.iter().flat_map(|lot| lot.expect("lines"));
        let lines = lines.map(|line| (line.number, String::from_utf8_lossy(&line.bytes).into_owned())).collect();
        (lines, ended.err().map(|error| error.to_string()))
    }

    fn numbered(lines: &[(u64, &str)]) -> (Vec<(u64, String)>, Option<String>) {
        (lines.iter().map(|(number, line)| (*number, (*line).to_owned())).collect(), None)
    }

    #[test]
    fn lines_are_read_as_people_write_them() {
        let input = b"\xef\xbb\xbf{\"n\":1}\r\n\r\n   \r\n\t\n {\"n\":2} \n\xef\xbb\xbfx\r";
        assert_eq!(read(input), numbered(&[(1, "{\"n\":1}"), (5, " {\"n\":2} "), (6, "\u{feff}x")]));
        for input in ["", "\n", "\u{feff}", " \r\n\t"] {
            assert_eq!(read(input.as_bytes()), numbered(&[]), "{input:?}");
        }
    }

    #[test]
    fn long_inputs_are_whole_however_they_arrive() {
        /// One byte at a time.
        struct Drops<'b>(&'b [u8]);
        impl Read for Drops<'_> {
            fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
                self.0.read(&mut to[..1])
            }
        }
        let lines: Vec<String> = (0..5_000).map(|n| format!("{n:0>50}")).collect();
        let input = lines.join("\n");
        let (read, error) = read(input.as_bytes());
        assert_eq!((read.len(), error), (5_000, None));
        assert!(read.iter().zip(&lines).all(|((_, read), line)| read == line));
        let (to, lots) = sync_channel(10_000);
        send(Drops(b"\xef\xbb\xbfab\ncd"), &Source::StandardInput, &to).expect("reads");
        drop(to);
        let bytes: Vec<Vec<u8>> = lots.iter().flat_map(|lot| lot.expect("lines")).map(|line| line.bytes).collect();
        assert_eq!(bytes, [b"ab", b"cd"]);
    }

    #[test]
    fn what_is_not_text_is_refused_with_the_way_out() {
        for (input, words) in [
            (&b"\x1f\x8b\x08\0\0\0\0\0"[..], "compressed with gzip; decompress it: zcat in | catchment … -"),
            (b"\x28\xb5\x2f\xfd\x04\x58", "zstdcat in |"),
            (b"\xfd7zXZ\0\0\x04", "xzcat in |"),
            (b"BZh91AY&SY", "bzcat in |"),
            (b"\x04\x22\x4d\x18\x64", "lz4cat in |"),
            (b"PK\x03\x04\x14", "unzip -p in |"),
            (b"\xff\xfe{\0\"\0", "UTF-16, not UTF-8; convert it: iconv -f UTF-16 -t UTF-8 in | catchment … -"),
            (b"\xfe\xff\0{\0\"", "UTF-16"),
            (b"{\0\"\0s\0", "UTF-16"),
            (b"\0{\0\"\0s", "UTF-16"),
            (b"SQLite format 3\0\x10\0", "catchment sql --json"),
        ] {
            let (lines, refused) = read(input);
            assert!(refused.as_ref().is_some_and(|refused| refused.contains(words)) && lines.is_empty(), "{refused:?}");
        }
        let refused = unreadable(b"\x1f\x8b", None).expect("refused");
        assert_eq!(refused, "it is compressed with gzip; decompress it: pipe it through zcat");
        assert_eq!(read(b"BZh is text\nx\n"), numbered(&[(1, "BZh is text"), (2, "x")]));
        assert_eq!(read(b"a\n\xff\xfe\n").0.len(), 2, "only the start is looked at");
    }
}
