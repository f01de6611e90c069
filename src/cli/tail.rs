//! `catchment tail`: the last events, and new ones as they are committed.

use std::io::Write;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::error::Error;
use crate::store::{EventRow, Reader, StatementOutput};
use clap::Args;

use super::event_line;
use super::output::Output;
use super::settings::{DatabaseArgs, Settings};
use super::starting::wait_for_database;
use super::values::{for_display, printable, shown_time};

/// The longest time from a commit until its events are printed.
const POLL: Duration = Duration::from_millis(100);

/// Events read at a time. A payload may have a megabyte.
const PAGE: usize = 100;

/// Print the last events of table events, then new ones as they are committed
#[derive(Args)]
#[command(after_help = "\
Text: publish time (UTC), subject, payload; control characters are escaped, blobs shortened.
JSON: {\"id\", \"subject\", \"published_us\", \"headers\", \"payload\"}; headers are an object or null, a payload that is not \
text is {\"$blob\":\"<base64>\"}.")]
pub struct Tail {
    #[command(flatten)]
    database: DatabaseArgs,

    /// Number of existing events to print
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 10)]
    lines: usize,

    /// Continue with new events until interrupted (the default)
    #[arg(short, long, overrides_with = "no_follow")]
    follow: bool,

    /// End after the existing events
    #[arg(long)]
    no_follow: bool,

    /// Print one JSON object a line for each event
    #[arg(short, long)]
    json: bool,
}

impl Tail {
    /// Prints events until interrupted, or with --no-follow until the last one.
    pub fn run(self, settings: &Settings) -> anyhow::Result<()> {
        let path = settings.for_database(&self.database)?.database.path;
        let mut output = Output::new();
        let write = if self.json { json_line } else { text_line };
        if self.no_follow {
            wait_for_database(&path);
            let reader = Reader::open(&path)?;
            let mut after = reader.id_before_last(self.lines)?;
            let mut left = self.lines;
            while left > 0 {
                let events = reader.events_after(after, left.min(PAGE))?;
                let Some(last) = events.last() else { break };
                (after, left) = (last.id, left - events.len());
                events.iter().try_for_each(|event| write(&mut output, event))?;
            }
            return Ok(output.flush()?);
        }
        let mut follower = Follower::new(path, self.lines, &output)?;
        loop {
            let events = follower.next(&output)?;
            events.iter().try_for_each(|event| write(&mut output, event))?;
            output.flush()?;
        }
    }
}

/// Reads events as they are committed, also if the file is replaced by another one.
struct Follower {
    path: PathBuf,
    reader: Reader,
    file: Option<FileId>,
    after: i64,
    /// When the event with id `after` was published, if it exists.
    published_us: Option<i64>,
    /// When the last event that was printed was published.
    printed_us: Option<i64>,
}

impl Follower {
    /// Waits for the database to appear.
    fn new(path: PathBuf, lines: usize, output: &Output) -> anyhow::Result<Self> {
        let (file, reader) = wait_for(&path, output)?;
        let after = reader.id_before_last(lines)?;
        let published_us = reader.published_us(after)?;
        Ok(Self { path, reader, file, after, published_us, printed_us: published_us })
    }

    /// The next events, at least one. Blocks until there are any, or until the reader of the output has left.
    fn next(&mut self, output: &Output) -> anyhow::Result<Vec<EventRow>> {
        loop {
            if self.ids_restarted()? {
                // Earlier rows that remain were published no later than the last printed one.
                self.after = self.printed_us.map_or(Ok(0), |printed| self.reader.id_before_later(printed))?;
                self.published_us = self.reader.published_us(self.after)?;
            }
            let events = self.reader.events_after(self.after, PAGE)?;
            if let Some(last) = events.last() {
                (self.after, self.published_us) = (last.id, Some(last.published_us));
                self.printed_us = self.published_us;
                return Ok(events);
            }
            wait_for_poll(output)?;
            let file = file_id(&self.path);
            if file.is_some() && file != self.file {
                log::info!(
                    "database {}: was replaced by another file; printing the events of the new one",
                    self.path.display()
                );
                (self.file, self.reader) = wait_for(&self.path, output)?;
                (self.after, self.published_us, self.printed_us) = (0, None, None);
            }
        }
    }

    /// Whether ids are used again, as happens after the last rows were deleted. There may be new rows since then.
    fn ids_restarted(&self) -> Result<bool, Error> {
        Ok(match self.reader.published_us(self.after)? {
            Some(published_us) => self.published_us != Some(published_us),
            // Or the row was deleted, and there are later ones.
            None => self.reader.id_before_last(0)? < self.after,
        })
    }
}

/// Waits, then checks that the output still has a reader (`| head`): there may be no event for hours.
fn wait_for_poll(output: &Output) -> std::io::Result<()> {
    thread::sleep(POLL);
    output.check_open()
}

fn wait_for(path: &Path, output: &Output) -> anyhow::Result<(Option<FileId>, Reader)> {
    let mut logged = false;
    loop {
        // Read before the file is opened: if the file is replaced in between, the next poll notices it.
        let file = file_id(path);
        if path.exists() {
            let reader = Reader::open(path)?;
            // Without the table, the process that makes the database has not committed yet.
            if has_events(&reader)? {
                return Ok((file, reader));
            }
        }
        if !logged {
            log::info!("database {}: waiting until it and its table events exist", path.display());
            logged = true;
        }
        wait_for_poll(output)?;
    }
}

fn has_events(reader: &Reader) -> Result<bool, Error> {
    let found = reader.run("SELECT 1 FROM sqlite_schema WHERE name = 'events'", |answer| match answer {
        StatementOutput::Row(_) => ControlFlow::Break(()),
        StatementOutput::Columns(_) => ControlFlow::Continue(()),
    })?;
    Ok(found.is_some())
}

/// Device and inode.
type FileId = (u64, u64);

fn file_id(path: &Path) -> Option<FileId> {
    std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

fn text_line(to: &mut dyn Write, event: &EventRow) -> std::io::Result<()> {
    let (time, subject) = (shown_time(event.published_us), printable(&event.subject));
    writeln!(to, "{time} {subject} {}", for_display(&event.payload))
}

fn json_line(to: &mut dyn Write, event: &EventRow) -> std::io::Result<()> {
    let line = event_line::line(event.id, &event.subject, event.published_us, event.headers.as_deref(), &event.payload);
    serde_json::to_writer(&mut *to, &line)?;
    writeln!(to)
}

#[cfg(test)]
mod tests {
    use crate::store::Value;

    use super::*;

    fn event() -> EventRow {
        EventRow {
            id: 7,
            subject: "events.a".into(),
            published_us: 1_795_428_000_000_001,
            headers: Some(r#"{"Trace-Id":"1"}"#.into()),
            payload: Value::Text("{\"a\":1}\n\u{1b}c".into()),
        }
    }

    fn written(write: fn(&mut dyn Write, &EventRow) -> std::io::Result<()>) -> String {
        let mut to = Vec::new();
        write(&mut to, &event()).unwrap();
        String::from_utf8(to).unwrap()
    }

    #[test]
    fn an_event_is_one_line() {
        assert_eq!(written(text_line), "2026-11-23T10:00:00.000001Z events.a {\"a\":1}\\n\\u{1b}c\n");
        assert_eq!(
            written(json_line),
            concat!(
                r#"{"id":7,"subject":"events.a","published_us":1795428000000001,"headers":{"Trace-Id":"1"},"#,
                r#""payload":"{\"a\":1}\n\u001bc"}"#,
                "\n"
            )
        );
    }
}
