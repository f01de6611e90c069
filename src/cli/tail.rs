//! `catchment tail`: the last events, and those to come as they are committed.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use catchment::error::Error;
use catchment::store::{Answer, Json, Reader, Recorded};
use clap::Args;
use serde::Serialize;
use time::OffsetDateTime;

use super::output::Output;
use super::settings::{DatabaseArgs, Settings};
use super::values::{for_eyes, printable};

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
        let mut follower = Follower::new(path, self.lines)?;
        loop {
            let events = follower.next()?;
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
}

impl Follower {
    /// Waits for the database to appear.
    fn new(path: PathBuf, lines: usize) -> Result<Self, Error> {
        let (file, reader) = wait_for(&path)?;
        let after = reader.id_before_last(lines)?;
        Ok(Self { path, reader, file, after })
    }

    /// The next events, at least one. Blocks until there are any.
    fn next(&mut self) -> Result<Vec<Recorded>, Error> {
        loop {
            let events = self.reader.events_after(self.after, PAGE)?;
            if let Some(last) = events.last() {
                self.after = last.id;
                return Ok(events);
            }
            thread::sleep(POLL);
            let there = file_id(&self.path);
            if there.is_some() && there != self.file {
                log::info!("database {}: is another file now; printing that one's events", self.path.display());
                (self.file, self.reader) = wait_for(&self.path)?;
                self.after = 0;
            }
            // Ids begin anew when a table is emptied.
            self.after = self.after.min(self.reader.id_before_last(0)?);
        }
    }
}

fn wait_for(path: &Path) -> Result<(Option<FileId>, Reader), Error> {
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
        thread::sleep(POLL);
    }
}

fn has_events(reader: &Reader) -> Result<bool, Error> {
    let found = reader.run("SELECT 1 FROM sqlite_schema WHERE name = 'events'", |answer| match answer {
        Answer::Row(_) => ControlFlow::Break(()),
        Answer::Columns(_) => ControlFlow::Continue(()),
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

fn text_line(to: &mut dyn Write, event: &Recorded) -> std::io::Result<()> {
    let (time, subject) = (shown_time(event.published_us), printable(&event.subject));
    writeln!(to, "{time} {subject} {}", for_eyes(&event.payload))
}

fn json_line(to: &mut dyn Write, event: &Recorded) -> std::io::Result<()> {
    let line = Line {
        id: event.id,
        subject: &event.subject,
        published_us: event.published_us,
        headers: event.headers.as_deref().and_then(|headers| serde_json::from_str(headers).ok()),
        payload: Json(event.payload.borrowed()),
    };
    serde_json::to_writer(&mut *to, &line)?;
    writeln!(to)
}

#[derive(Serialize)]
struct Line<'a> {
    id: i64,
    subject: &'a str,
    published_us: i64,
    headers: Option<serde_json::Value>,
    payload: Json<'a>,
}

/// RFC 3339 in UTC; as it stands where it is no time of a year with four digits.
fn shown_time(us: i64) -> String {
    match OffsetDateTime::from_unix_timestamp_nanos(i128::from(us) * 1_000) {
        Ok(at) if at.year() >= 0 => {
            let (date, hour, minute, second, micro) =
                (at.date(), at.hour(), at.minute(), at.second(), at.microsecond());
            format!("{date}T{hour:02}:{minute:02}:{second:02}.{micro:06}Z")
        }
        _ => us.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use catchment::store::Value;

    use super::*;

    fn event() -> Recorded {
        Recorded {
            id: 7,
            subject: "events.a".into(),
            published_us: 1_795_428_000_000_001,
            headers: Some(r#"{"Trace-Id":"1"}"#.into()),
            payload: Value::Text("{\"a\":1}\n\u{1b}c".into()),
        }
    }

    fn written(write: fn(&mut dyn Write, &Recorded) -> std::io::Result<()>) -> String {
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

    #[test]
    fn a_time_out_of_reach_is_a_number() {
        assert_eq!(shown_time(-1), "1969-12-31T23:59:59.999999Z");
        assert_eq!(shown_time(i64::MAX), i64::MAX.to_string());
    }
}
