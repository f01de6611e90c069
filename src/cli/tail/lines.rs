//! Rows as lines of text or JSON.

use std::io::{self, Write};
use std::sync::Arc;

use crate::cli::values::{for_display, printable, shown_time};
use crate::store::event_line;
use crate::store::{EventRow, Json, JsonRowWriter, RowTable, Value};

/// Rows of one table.
pub enum Rows {
    /// Of table `events`.
    Events(Vec<EventRow>),
    /// Of any other table.
    Other { table: Arc<RowTable>, rows: Vec<Vec<Value>> },
}

impl Rows {
    pub fn len(&self) -> usize {
        match self {
            Self::Events(events) => events.len(),
            Self::Other { rows, .. } => rows.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The format of the lines.
#[derive(Clone, Copy)]
pub struct Lines {
    pub json: bool,
}

impl Lines {
    /// Writes a line for each row. `named`: with the name of the table.
    pub fn write(self, to: &mut impl Write, rows: &Rows, named: bool) -> io::Result<()> {
        match rows {
            Rows::Events(events) => events.iter().try_for_each(|event| match (self.json, named) {
                (true, false) => {
                    json_event(to, event)?;
                    writeln!(to)
                }
                (true, true) => {
                    write!(to, "{{\"table\":\"events\",\"row\":")?;
                    json_event(to, event)?;
                    writeln!(to, "}}")
                }
                (false, false) => text_event(to, event),
                (false, true) => {
                    write!(to, "events ")?;
                    text_event(to, event)
                }
            }),
            Rows::Other { table, rows } => {
                let objects = JsonRowWriter::new(table.columns.iter().map(String::as_str));
                let mut object = Vec::new();
                rows.iter().try_for_each(|row| {
                    object.clear();
                    objects.write(row.iter().map(|value| Json(value.borrowed())), &mut object);
                    if self.json {
                        write!(to, "{{\"table\":")?;
                        serde_json::to_writer(&mut *to, &table.name)?;
                        write!(to, ",\"row\":")?;
                        to.write_all(&object)?;
                        return writeln!(to, "}}");
                    }
                    if named {
                        write!(to, "{} ", printable(&table.name))?;
                    }
                    // JSON leaves some of the characters that steer a terminal as they are.
                    writeln!(to, "{}", printable(&String::from_utf8_lossy(&object)))
                })
            }
        }
    }
}

fn text_event(to: &mut impl Write, event: &EventRow) -> io::Result<()> {
    let (time, subject) = (shown_time(event.published_us), printable(&event.subject));
    writeln!(to, "{time} {subject} {}", for_display(&event.payload))
}

fn json_event(to: &mut impl Write, event: &EventRow) -> io::Result<()> {
    let line = event_line::line(event.id, &event.subject, event.published_us, event.headers.as_deref(), &event.payload);
    Ok(serde_json::to_writer(to, &line)?)
}

#[cfg(test)]
mod tests {
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

    fn written(json: bool, rows: &Rows, named: bool) -> String {
        let mut to = Vec::new();
        Lines { json }.write(&mut to, rows, named).unwrap();
        String::from_utf8(to).unwrap()
    }

    #[test]
    fn an_event_is_one_line() {
        let rows = Rows::Events(vec![event()]);
        let text = "2026-11-23T10:00:00.000001Z events.a {\"a\":1}\\n\\u001bc\n";
        assert_eq!(written(false, &rows, false), text);
        assert_eq!(written(false, &rows, true), format!("events {text}"));
        let json = concat!(
            r#"{"id":7,"subject":"events.a","published_us":1795428000000001,"headers":{"Trace-Id":"1"},"#,
            r#""payload":"{\"a\":1}\n\u001bc"}"#
        );
        assert_eq!(written(true, &rows, false), format!("{json}\n"));
        assert_eq!(written(true, &rows, true), format!("{{\"table\":\"events\",\"row\":{json}}}\n"));
    }
}
