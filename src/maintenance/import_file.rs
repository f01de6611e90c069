//! The file of an import: read line by line, and recognised if it, or its beginning, was imported before.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use super::line_chain::LineChain;
use crate::error::Error;
use crate::input_format::{HEAD, LONGEST_LINE, bytes_without_byte_order_mark, too_long, unreadable};
use crate::new_file::failed;
use crate::store::event_line;
use crate::store::{ImportNote, ImportedLine, Importer};
use crate::task::Task;

/// A transaction ends with the line that reaches one of these.
const LINES: usize = 5_000;
const BYTES: usize = 8 << 20;

/// How long to wait for a pipe between two looks whether the task is cancelled.
const WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// How many lines are compared between two reports of progress.
const REPORT_EVERY: u64 = 1_000;

/// A file that is read line by line.
pub(super) struct ImportFile<'f> {
    pub(super) file: &'f Path,
    input: BufReader<File>,
    pub(super) is_regular: bool,
    pub(super) size: Option<u64>,
    /// Bytes and lines that are passed, and the digest of the bytes.
    pub(super) bytes: u64,
    pub(super) count: u64,
    pub(super) digest: Sha256,
    /// The digest of the lines. `None` if an earlier version has imported the beginning of the file without one.
    chain: Option<LineChain>,
}

/// The lines of one call of the importer.
#[derive(Default)]
pub(super) struct Part {
    /// The text of all lines, empty ones included.
    pub(super) bytes: Vec<u8>,
    pub(super) lines: Vec<ImportedLine>,
    /// The marks of all lines, empty ones included, if there is a chain.
    pub(super) marks: Vec<u8>,
    /// For each of `lines`, how far the part is at its end.
    pub(super) ends: Vec<PartEnd>,
    /// How far the part is at its own end.
    pub(super) end: PartEnd,
    /// A line after these that ends the import.
    pub(super) bad: Option<Error>,
    pub(super) is_last: bool,
}

/// A position in a part.
#[derive(Clone, Default)]
pub(super) struct PartEnd {
    /// The bytes before it.
    pub(super) bytes: usize,
    /// The lines before it.
    pub(super) lines: u64,
    /// The digest of all lines of the file before it.
    pub(super) chain: Option<LineChain>,
}

impl<'f> ImportFile<'f> {
    pub(super) fn open(file: &'f Path, task: &Task<'_>) -> Result<Self, Error> {
        let on_error = |error| failed(file, &error);
        let metadata = match std::fs::metadata(file) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let detail = "there is no such file; name one with events, one JSON object a line".into();
                return Err(Error::File { path: file.to_owned(), detail, source: Some(error.into()) });
            }
            found => found.map_err(on_error)?,
        };
        if metadata.is_dir() {
            let detail = "it is a folder; name a file in it".into();
            return Err(Error::File { path: file.to_owned(), detail, source: None });
        }
        let is_regular = metadata.is_file();
        let mut input = BufReader::with_capacity(256 << 10, File::open(file).map_err(on_error)?);
        if !is_regular {
            await_input(&input, task)?;
        }
        let head = input.fill_buf().map_err(on_error)?;
        if let Some(detail) = unreadable(&head[..head.len().min(HEAD)], Some(file)) {
            return Err(Error::File { path: file.to_owned(), detail, source: None });
        }
        let size = is_regular.then_some(metadata.len());
        Ok(Self {
            file,
            input,
            is_regular,
            size,
            bytes: 0,
            count: 0,
            digest: Sha256::new(),
            chain: Some(LineChain::default()),
        })
    }

    /// Passes what an earlier import has stored, by the largest note that is about the beginning of this file.
    pub(super) fn skip_known<'n>(
        &mut self,
        notes: &'n [ImportNote],
        task: &Task<'_>,
    ) -> Result<Option<&'n ImportNote>, Error> {
        let size = self.size.unwrap_or(0);
        let mut candidates: Vec<&ImportNote> =
            notes.iter().filter(|note| note.bytes > 0 && note.bytes <= size).collect();
        candidates.sort_by_key(|note| note.bytes);
        let most = candidates.last().map_or(0, |note| note.bytes);
        let (mut digest, mut read, mut known) = (Sha256::new(), 0, None);
        for note in candidates {
            while read < note.bytes {
                let buffer = self.input.fill_buf().map_err(|error| failed(self.file, &error))?;
                let length = buffer.len().min(usize::try_from(note.bytes - read).unwrap_or(usize::MAX));
                if length == 0 {
                    break;
                }
                digest.update(&buffer[..length]);
                self.input.consume(length);
                read += length as u64;
                task.report("comparing", read, Some(most), "bytes")?;
            }
            if data_encoding::HEXLOWER.encode(&digest.clone().finalize()) == note.sha256 && read == note.bytes {
                known = Some((note, digest.clone()));
            }
        }
        let to = known.as_ref().map_or(0, |(note, _)| note.bytes);
        self.input.seek(SeekFrom::Start(to)).map_err(|error| failed(self.file, &error))?;
        let Some((note, digest)) = known else { return Ok(None) };
        (self.bytes, self.count, self.digest) = (note.bytes, note.lines, digest);
        self.chain = note.chain.as_deref().and_then(LineChain::of_text);
        Ok(Some(note))
    }

    /// Passes the whole file if it is the beginning of one that was imported: a copy that was cut short. How many lines it has. A last line
    /// that was cut within is not passed.
    pub(super) fn skip_part_of_known(
        &mut self,
        notes: &[ImportNote],
        importer: &Importer,
        task: &Task<'_>,
    ) -> Result<u64, Error> {
        for note in notes.iter().filter(|note| note.chain.is_some()) {
            self.rewind()?;
            if self.is_part_of(note, importer, task)? {
                return Ok(self.count);
            }
        }
        self.rewind()?;
        Ok(0)
    }

    fn rewind(&mut self) -> Result<(), Error> {
        self.input.seek(SeekFrom::Start(0)).map_err(|error| failed(self.file, &error))?;
        (self.bytes, self.count, self.digest, self.chain) = (0, 0, Sha256::new(), Some(LineChain::default()));
        Ok(())
    }

    /// Reads lines as long as they are those of the note; whether that is the whole file.
    fn is_part_of(&mut self, note: &ImportNote, importer: &Importer, task: &Task<'_>) -> Result<bool, Error> {
        let (mut chain, mut marks, mut line) = (LineChain::default(), Vec::new().into_iter(), Vec::new());
        loop {
            line.clear();
            let read = self.input.by_ref().take(LONGEST_LINE + 1).read_until(b'\n', &mut line);
            if read.map_err(|error| failed(self.file, &error))? == 0 {
                return Ok(self.count > 0);
            }
            if marks.len() == 0 {
                marks = importer.line_marks(&note.name, self.count + 1)?.unwrap_or_default().into_iter();
            }
            let expected: Vec<u8> = marks.by_ref().take(LineChain::MARK).collect();
            let mut next = chain.clone();
            if next.push(line.trim_ascii()) != *expected {
                let is_cut = !line.ends_with(b"\n") && event_line::read_stored(line.trim_ascii()).is_err();
                self.input.seek(SeekFrom::Start(self.bytes)).map_err(|error| failed(self.file, &error))?;
                return Ok(is_cut && self.count > 0);
            }
            self.digest.update(&line);
            self.bytes += line.len() as u64;
            self.count += 1;
            chain = next;
            self.chain = Some(chain.clone());
            if self.count.is_multiple_of(REPORT_EVERY) {
                task.report("comparing", self.bytes, self.size, "bytes")?;
            }
        }
    }

    /// The next lines. A line that is no event ends the import, or is kept.
    pub(super) fn next_part(&mut self, keeps_bad: bool, task: &Task<'_>) -> Result<Part, Error> {
        let mut part = Part::default();
        part.end.chain.clone_from(&self.chain);
        while part.lines.len() < LINES && part.bytes.len() < BYTES {
            let from = part.bytes.len();
            let read = self.read_line(&mut part.bytes, task);
            let number = self.count + part.end.lines + 1;
            let read = match read {
                Ok(read) if read as u64 <= LONGEST_LINE => read,
                Ok(_) => {
                    part.bytes.truncate(from);
                    part.bad = Some(self.error(too_long(number)));
                    break;
                }
                // The lines before are stored.
                Err(cancelled @ Error::Cancelled { .. }) => {
                    part.bytes.truncate(from);
                    part.bad = Some(cancelled);
                    break;
                }
                Err(error) => return Err(error),
            };
            if read == 0 {
                part.is_last = true;
                break;
            }
            let text = part.bytes[from..].trim_ascii();
            let is_empty = bytes_without_byte_order_mark(text).is_empty();
            let line = if is_empty {
                None
            } else {
                match (event_line::read_stored(text), keeps_bad) {
                    (Ok(event), _) => Some(ImportedLine::Event(event)),
                    (Err(reason), true) => {
                        let reason = format!("line {number} of {}: {reason}", self.file.display());
                        Some(ImportedLine::Bad { text: text.to_owned(), reason })
                    }
                    (Err(reason), false) => {
                        part.bytes.truncate(from);
                        let colon = if reason.starts_with("does ") { "" } else { ":" };
                        part.bad = Some(self.error(format!(
                            "line {number}{colon} {reason}; mend it and import again, or let bad lines become dead letters \
                             (--bad-lines dead-letter)"
                        )));
                        break;
                    }
                }
            };
            if let Some(chain) = &mut part.end.chain {
                part.marks.extend(chain.push(part.bytes[from..].trim_ascii()));
            }
            part.end.lines += 1;
            part.end.bytes = part.bytes.len();
            if let Some(line) = line {
                part.lines.push(line);
                part.ends.push(part.end.clone());
            }
        }
        Ok(part)
    }

    pub(super) fn passed(&mut self, part: &Part) {
        self.digest.update(&part.bytes);
        self.bytes += part.bytes.len() as u64;
        self.count += part.end.lines;
        self.chain.clone_from(&part.end.chain);
    }

    /// Appends a line with its end, or the first bytes of one that is longer than [`LONGEST_LINE`]; how many bytes. 0 at the end.
    fn read_line(&mut self, to: &mut Vec<u8>, task: &Task<'_>) -> Result<usize, Error> {
        let from = to.len();
        if self.is_regular {
            let read = self.input.by_ref().take(LONGEST_LINE + 1).read_until(b'\n', to);
            return read.map_err(|error| failed(self.file, &error));
        }
        loop {
            if self.input.buffer().is_empty() {
                await_input(&self.input, task)?;
            }
            let room = (LONGEST_LINE + 1).saturating_sub((to.len() - from) as u64);
            let read = match self.input.fill_buf() {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                read => read.map_err(|error| failed(self.file, &error))?,
            };
            let read = &read[..read.len().min(usize::try_from(room).unwrap_or(usize::MAX))];
            let end = read.iter().position(|byte| *byte == b'\n').map_or(read.len(), |at| at + 1);
            to.extend_from_slice(&read[..end]);
            self.input.consume(end);
            if end == 0 || to.ends_with(b"\n") {
                return Ok(to.len() - from);
            }
        }
    }

    fn error(&self, detail: String) -> Error {
        Error::File { path: self.file.to_owned(), detail, source: None }
    }
}

/// Waits until a pipe has something, or has ended. A read would not end when the task is cancelled.
fn await_input(input: &BufReader<File>, task: &Task<'_>) -> Result<(), Error> {
    loop {
        task.report("importing", 0, None, "bytes")?;
        let mut polled = [PollFd::new(input.get_ref(), PollFlags::IN)];
        match poll(&mut polled, Some(&WAIT)) {
            // Of another error, the read says more.
            Ok(0) | Err(Errno::INTR) => {}
            _ => return Ok(()),
        }
    }
}
