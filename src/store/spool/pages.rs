//! Reads the rows of a damaged spool page by page, where SQLite does not find them: the pages that lead to theirs are damaged. The format is
//! <https://sqlite.org/fileformat2.html>.
//!
//! A page of rows is known by its first byte. The pages that say what each page is for (the pointer map) tell which pages are free: they have
//! rows that were removed. What is not plausible is left out.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::file::log_of;
use crate::store::cell::Cell;

/// The most bytes of a row. SQLite takes no larger one.
const LARGEST: u64 = 1 << 30;

/// Where a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) rowid: i64,
    page: u32,
    offset: usize,
}

/// The pages of a file and its log, as of the last commit.
pub(super) struct Pages {
    file: File,
    /// The log, and where it has the last version of a page.
    log: Option<(File, HashMap<u32, u64>)>,
    page_size: usize,
    /// The bytes of a page that are used.
    usable: usize,
    count: u32,
}

impl Pages {
    /// Opens a file that no connection of this process uses: closing it drops SQLite's locks.
    pub(super) fn open(path: &Path) -> std::io::Result<Self> {
        let file = File::open(path)?;
        let mut header = [0; 100];
        let has_header = file.read_exact_at(&mut header, 0).is_ok() && header.starts_with(b"SQLite format 3\0");
        // Ours, if the header is gone.
        let (page_size, reserved) = match (has_header, u16::from_be_bytes([header[16], header[17]])) {
            (true, 1) => (65_536, header[20]),
            (true, size) if size.is_power_of_two() && size >= 512 => (usize::from(size), header[20]),
            _ => (4_096, 0),
        };
        let mut count = u32::try_from(file.metadata()?.len() / page_size as u64).unwrap_or(u32::MAX);
        let log = File::open(log_of(path)).ok().and_then(|log| {
            let (frames, pages) = committed_frames(&log, page_size)?;
            count = pages;
            Some((log, frames))
        });
        Ok(Self { file, log, page_size, usable: page_size - usize::from(reserved), count })
    }

    /// A page; `None` where it cannot be read.
    fn page(&self, number: u32) -> Option<Vec<u8>> {
        let mut page = vec![0; self.page_size];
        let at = u64::from(number.checked_sub(1)?) * self.page_size as u64;
        let read = match self.log.as_ref().and_then(|(log, frames)| Some((log, *frames.get(&number)?))) {
            Some((log, at)) => log.read_exact_at(&mut page, at),
            None => self.file.read_exact_at(&mut page, at),
        };
        read.is_ok().then_some(page)
    }

    /// All rows that have so many columns, in the order of their ids.
    pub(super) fn rows(&self, has_columns: impl Fn(&[Cell]) -> bool) -> Vec<Place> {
        let mut places = Vec::new();
        for number in 1..=self.count {
            // A page of rows is that of a table, or its first. Where the map is damaged, it may be any.
            if !matches!(self.purpose(number), None | Some((1 | 5, _))) {
                continue;
            }
            let Some(page) = self.page(number) else { continue };
            let start = if number == 1 { 100 } else { 0 };
            if page[start] != 13 {
                continue;
            }
            let cells = usize::from(u16::from_be_bytes([page[start + 3], page[start + 4]]));
            for cell in 0..cells.min(self.usable / 4) {
                let at = start + 8 + 2 * cell;
                let Some(pointer) = page.get(at..at + 2) else { break };
                let offset = usize::from(u16::from_be_bytes([pointer[0], pointer[1]]));
                if let Some((rowid, row)) = self.row_at(&page, offset)
                    && has_columns(&row)
                {
                    places.push(Place { rowid, page: number, offset });
                }
            }
        }
        places.sort_by_key(|place| place.rowid);
        places.dedup_by_key(|place| place.rowid);
        places
    }

    /// The values of a row.
    pub(super) fn row(&self, place: Place) -> Option<Vec<Cell>> {
        self.row_at(&self.page(place.page)?, place.offset).map(|(_, row)| row)
    }

    fn row_at(&self, page: &[u8], offset: usize) -> Option<(i64, Vec<Cell>)> {
        let (size, size_bytes) = varint(page.get(offset..)?)?;
        let (rowid, rowid_bytes) = varint(page.get(offset + size_bytes..)?)?;
        let (size, usable) = (usize::try_from(size).ok().filter(|size| *size as u64 <= LARGEST)?, self.usable);
        let largest = usable - 35;
        let local = if size <= largest {
            size
        } else {
            let least = (usable - 12) * 32 / 255 - 23;
            let wanted = least + (size - least) % (usable - 4);
            if wanted <= largest { wanted } else { least }
        };
        let begin = offset + size_bytes + rowid_bytes;
        let mut content = page.get(begin..begin + local)?.to_vec();
        if local < size {
            let next = page.get(begin + local..begin + local + 4)?;
            self.read_overflow(u32::from_be_bytes(next.try_into().ok()?), size, &mut content)?;
        }
        Some((rowid.cast_signed(), record(&content)?))
    }

    /// Adds what of a row is on other pages.
    fn read_overflow(&self, first: u32, size: usize, content: &mut Vec<u8>) -> Option<()> {
        let (mut number, mut before) = (first, None);
        while content.len() < size {
            // 3: the first of a row; 4: a further one, of the page before it.
            let is_ours = match self.purpose(number) {
                None => true,
                Some((3, _)) => before.is_none(),
                Some((4, parent)) => before == Some(parent),
                Some(_) => false,
            };
            if !is_ours {
                return None;
            }
            let page = self.page(number)?;
            let part = (size - content.len()).min(self.usable - 4);
            content.extend_from_slice(page.get(4..4 + part)?);
            (before, number) = (Some(number), u32::from_be_bytes(page[..4].try_into().ok()?));
        }
        Some(())
    }

    /// What a page is for, and which page leads to it, as the pointer map says. `None` where that is damaged.
    fn purpose(&self, number: u32) -> Option<(u8, u32)> {
        if number == 1 {
            return Some((1, 0));
        }
        let span = u32::try_from(self.usable / 5).ok()? + 1;
        let mut map = 2 + (number.checked_sub(2)?) / span * span;
        // https://sqlite.org/fileformat2.html#the_lock_byte_page
        map += u32::from(u64::from(map - 1) * self.page_size as u64 == 1 << 30);
        if map >= number {
            return Some((0, 0));
        }
        let at = usize::try_from(number - map - 1).ok()? * 5;
        let page = self.page(map)?;
        let entry = page.get(at..at + 5)?;
        let parent = u32::from_be_bytes(entry[1..].try_into().ok()?);
        matches!(entry[0], 1..=5).then_some((entry[0], parent))
    }
}

/// The values of a record.
fn record(content: &[u8]) -> Option<Vec<Cell>> {
    let (header, mut at) = varint(content)?;
    let header = usize::try_from(header).ok().filter(|header| *header <= content.len())?;
    let (mut cells, mut value) = (Vec::new(), header);
    while at < header {
        let (kind, bytes) = varint(&content[at..header])?;
        at += bytes;
        let size = match kind {
            0 | 8 | 9 => 0,
            1..=4 => usize::try_from(kind).ok()?,
            5 => 6,
            6 | 7 => 8,
            12.. => usize::try_from((kind - 12) / 2).ok()?,
            _ => return None,
        };
        let bytes = content.get(value..value.checked_add(size)?)?;
        value += size;
        cells.push(match kind {
            0 => Cell::Null,
            1..=6 => {
                let negative = bytes[0] & 0x80 != 0;
                let filled =
                    bytes.iter().fold(if negative { -1 } else { 0 }, |sum: i64, byte| sum << 8 | i64::from(*byte));
                Cell::Integer(filled)
            }
            7 => Cell::Real(f64::from_be_bytes(bytes.try_into().ok()?)),
            8 => Cell::Integer(0),
            9 => Cell::Integer(1),
            kind if kind % 2 == 0 => Cell::Blob(bytes.to_vec()),
            _ => Cell::Text(bytes.to_vec()),
        });
    }
    (value == content.len()).then_some(cells)
}

/// A number of one to nine bytes, and how many it has.
fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut number = 0;
    for (at, byte) in bytes.iter().take(8).enumerate() {
        number = number << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some((number, at + 1));
        }
    }
    bytes.get(8).map(|byte| (number << 8 | u64::from(*byte), 9))
}

/// Where the log has each page, up to its last commit, and how many pages the file has then. `None`: it has no commit.
fn committed_frames(log: &File, page_size: usize) -> Option<(HashMap<u32, u64>, u32)> {
    let mut reader = std::io::BufReader::new(log);
    let mut header = [0; 32];
    reader.read_exact(&mut header).ok()?;
    let word = |bytes: &[u8], at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let magic = word(&header, 0);
    if magic & !1 != 0x377f_0682 || word(&header, 8) as usize != page_size {
        return None;
    }
    let mut sum = checksum((0, 0), &header[..24], magic & 1 == 1);
    if sum != (word(&header, 24), word(&header, 28)) {
        return None;
    }
    let (mut committed, mut open, mut pages) = (HashMap::new(), HashMap::new(), None);
    let (mut at, mut frame) = (32, vec![0; 24 + page_size]);
    while reader.read_exact(&mut frame).is_ok() {
        sum = checksum(checksum(sum, &frame[..8], magic & 1 == 1), &frame[24..], magic & 1 == 1);
        if frame[8..16] != header[16..24] || sum != (word(&frame, 16), word(&frame, 20)) {
            break;
        }
        open.insert(word(&frame, 0), at + 24);
        if word(&frame, 4) > 0 {
            committed.extend(open.drain());
            pages = Some(word(&frame, 4));
        }
        at += frame.len() as u64;
    }
    Some((committed, pages?))
}

/// The checksum of the log: <https://sqlite.org/fileformat2.html#checksum_algorithm>.
fn checksum((mut one, mut two): (u32, u32), bytes: &[u8], is_big_endian: bool) -> (u32, u32) {
    let word = |bytes: &[u8]| {
        let bytes = [bytes[0], bytes[1], bytes[2], bytes[3]];
        if is_big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    };
    for pair in bytes.chunks_exact(8) {
        one = one.wrapping_add(word(pair)).wrapping_add(two);
        two = two.wrapping_add(word(&pair[4..])).wrapping_add(one);
    }
    (one, two)
}
