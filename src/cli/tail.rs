//! `catchment tail`: the last events, and those to come as they are committed.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::error::Error;
use crate::store::{EventRow, Reader, StatementOutput};
use clap::Args;

use super::event_line;
use super::output::Output;
use super::settings::{DatabaseArgs, Settings};
use super::values::{for_eyes, printable, shown_time};

/// How long after a commit its events show, at most.
const POLL: Duration = Duration::from_millis(100);

/// Events read at a time. A payload may have a megabyte.
const PAGE: usize = 100;

/// Print the last events of table `events`, then those to come as they are committed
#[derive(Args)]
#[command(after_help = "\
Text: publish time (UTC), subject, payload; control characters are escaped, blobs shortened.
JSON: {\"id\",\"subject\",\"published_us\",\"headers\",\"payload\"}; headers are an object or null, a payload that is no \
text is {\"$blob\":\"<base64>\"}.")]
pub struct Tail {
    #[command(flatten)]
    database: DatabaseArgs,

    /// How many of the events that are there already
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 10)]
    lines: usize,

    /// Go on with events to come, until interrupted (the default)
    #[arg(short, long, overrides_with = "no_follow")]
    follow: bool,

    /// End after the events that are there already
    #[arg(long)]
    no_follow: bool,

    /// One JSON object an event and line
    #[arg(short, long)]
    json: bool,
}

impl Tail {
    /// Prints events until interrupted, or until the last one if that was asked for.
    pub fn run(self, settings: &Settings) -> anyhow::Result<()> {
        let path = settings.for_database(&self.database)?.database.path;
        let mut output = Output::new();
        let write = if self.json { json_line } else { text_line };
        if self.no_follow {
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

/// Reads events as they are committed, also when the file is replaced by another.
struct Follower {
    path: PathBuf,
    reader: Reader,
    file: Option<FileId>,
    after: i64,
    /// When the event with this id was published, where there is one.
    there: Option<i64>,
    /// When the last one that was shown was published.
    shown: Option<i64>,
}

impl Follower {
    /// Waits for the database to appear.
    fn new(path: PathBuf, lines: usize, output: &Output) -> anyhow::Result<Self> {
        let (file, reader) = wait_for(&path, output)?;
        let after = reader.id_before_last(lines)?;
        let there = reader.published_us(after)?;
        Ok(Self { path, reader, file, after, there, shown: there })
    }

    /// The next events, at least one. Blocks until there are any, or nobody reads the output any more.
    fn next(&mut self, output: &Output) -> anyhow::Result<Vec<EventRow>> {
        loop {
            if self.began_anew()? {
                // What is left of earlier rows was published no later than the last one that was shown.
                self.after = self.shown.map_or(Ok(0), |shown| self.reader.id_before_later(shown))?;
                self.there = self.reader.published_us(self.after)?;
            }
            let events = self.reader.events_after(self.after, PAGE)?;
            if let Some(last) = events.last() {
                (self.after, self.there) = (last.id, Some(last.published_us));
                self.shown = self.there;
                return Ok(events);
            }
            pause(output)?;
            let there = file_id(&self.path);
            if there.is_some() && there != self.file {
                log::info!("database {}: is another file now; printing that one's events", self.path.display());
                (self.file, self.reader) = wait_for(&self.path, output)?;
                (self.after, self.there, self.shown) = (0, None, None);
            }
        }
    }

    /// Whether ids are used again, as they are once the last rows were deleted. New rows may have come since.
    fn began_anew(&self) -> Result<bool, Error> {
        Ok(match self.reader.published_us(self.after)? {
            Some(there) => self.there != Some(there),
            // Or the row was deleted, and there are later ones.
            None => self.reader.id_before_last(0)? < self.after,
        })
    }
}

/// Nothing may come for hours, and whoever reads may be gone long before (`| head`).
fn pause(output: &Output) -> std::io::Result<()> {
    thread::sleep(POLL);
    output.is_read()
}

fn wait_for(path: &Path, output: &Output) -> anyhow::Result<(Option<FileId>, Reader)> {
    let mut said = false;
    loop {
        // Taken before the file is opened: if it is replaced between, that shows at the next look.
        let file = file_id(path);
        if path.exists() {
            let reader = Reader::open(path)?;
            // Without the table, its maker has not committed yet.
            if has_events(&reader)? {
                return Ok((file, reader));
            }
        }
        if !said {
            log::info!("database {}: waiting for it and its table events", path.display());
            said = true;
        }
        pause(output)?;
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

#[cfg(unix)]
fn file_id(path: &Path) -> Option<FileId> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

/// Elsewhere an open database cannot be replaced.
#[cfg(not(unix))]
fn file_id(_: &Path) -> Option<FileId> {
    None
}

fn text_line(to: &mut dyn Write, event: &EventRow) -> std::io::Result<()> {
    let (time, subject) = (shown_time(event.published_us), printable(&event.subject));
    writeln!(to, "{time} {subject} {}", for_eyes(&event.payload))
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
