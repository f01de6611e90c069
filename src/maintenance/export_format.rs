//! The formats of an export.

use std::borrow::Cow;
use std::io;

use crate::store::event_line::{self, EventLine};
use crate::store::{JsonRowWriter, LosslessJson, Value};

/// A format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExportFormat {
    /// One JSON object a line. Integers and floats keep every digit; a blob is `{"$blob":"<base64>"}`; NULL is `null`, and an
    /// infinity `{"$real":"inf"}`. A row of table `events` is a line that [`import`](super::import) reads.
    #[default]
    Ndjson,
    /// A line of names, then the rows, as RFC 4180 has them, with line feeds. NULL is an empty field without quotes, and an
    /// empty text is `""`. A blob is an SQL literal: `x'00ff'`.
    Csv,
}

/// Writes rows in a format.
pub(super) enum RowFormat {
    Csv,
    Objects(JsonRowWriter),
    /// Of table `events`; the numbers are those of the columns in [`EVENT_COLUMNS`].
    Events([usize; EVENT_COLUMNS.len()]),
}

/// The columns of table `events`.
pub(super) const EVENT_COLUMNS: [&str; 7] =
    ["id", "subject", "stream", "sequence", "published_us", "headers", "payload"];

impl RowFormat {
    /// The format for rows with these columns. `are_events`: they are rows of table `events`.
    pub(super) fn new(format: ExportFormat, columns: &[String], are_events: bool) -> Self {
        let place = |name: &str| columns.iter().position(|column| column == name);
        let places = EVENT_COLUMNS.map(place);
        match format {
            ExportFormat::Csv => Self::Csv,
            ExportFormat::Ndjson if are_events && places.iter().all(Option::is_some) => {
                Self::Events(places.map(Option::unwrap_or_default))
            }
            ExportFormat::Ndjson => Self::Objects(JsonRowWriter::new(columns.iter().map(String::as_str))),
        }
    }

    /// Appends what comes before the first row.
    pub(super) fn header(&self, columns: &[String], to: &mut Vec<u8>) {
        if let Self::Csv = self {
            csv_line(columns.iter().map(|name| Field::Text(name.as_bytes())), to);
        }
    }

    /// Appends a row. `false` for a row of table `events` that an import does not store as it is.
    pub(super) fn row(&self, values: &[Value], to: &mut Vec<u8>) -> io::Result<bool> {
        match self {
            Self::Csv => csv_line(values.iter().map(Field::of), to),
            Self::Objects(objects) => {
                objects.write(values.iter().map(|value| LosslessJson(value.borrowed())), to);
                to.push(b'\n');
            }
            Self::Events(places) => {
                let is_exact = event_line(&places.map(|place| &values[place]), to)?;
                to.push(b'\n');
                return Ok(is_exact);
            }
        }
        Ok(true)
    }
}

/// Writes an event; `false` if an import does not store it as it is.
fn event_line(values: &[&Value; EVENT_COLUMNS.len()], to: &mut Vec<u8>) -> io::Result<bool> {
    let [id, subject, stream, sequence, published_us, headers, payload] = values;
    let number = |value: &Value| if let Value::Integer(number) = value { Some(*number) } else { None };
    let (subject, stream, headers) = (text(subject).unwrap_or_default(), text(stream), text(headers));
    let line = EventLine {
        id: number(id),
        stream: stream.as_deref(),
        sequence: number(sequence).and_then(|sequence| sequence.try_into().ok()),
        subject: &subject,
        published_us: number(published_us).unwrap_or_default(),
        headers: event_line::headers(headers.as_deref()),
        raw_headers: None,
        payload: LosslessJson(payload.borrowed()),
    };
    serde_json::to_writer(to, &line)?;
    let is_payload = matches!(payload, Value::Text(_) | Value::Blob(_));
    Ok(is_payload && event_line::can_be_stored(&subject, headers.as_deref()))
}

/// A text; one that is not UTF-8 comes as a blob.
fn text(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::Text(text) => Some(Cow::Borrowed(text)),
        Value::Blob(bytes) => Some(String::from_utf8_lossy(bytes)),
        _ => None,
    }
}

/// A field of CSV.
enum Field<'v> {
    Null,
    /// Written without quotes.
    Plain(String),
    Text(&'v [u8]),
}

impl<'v> Field<'v> {
    fn of(value: &'v Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Integer(value) => Self::Plain(value.to_string()),
            Value::Real(value) => Self::Plain(format!("{value:?}")),
            Value::Text(text) => Self::Text(text.as_bytes()),
            Value::Blob(bytes) => Self::Plain(format!("x'{}'", data_encoding::HEXLOWER.encode(bytes))),
        }
    }
}

/// The crate csv cannot tell NULL from an empty text, and is for the command only.
fn csv_line<'v>(fields: impl Iterator<Item = Field<'v>>, to: &mut Vec<u8>) {
    for (number, field) in fields.enumerate() {
        if number > 0 {
            to.push(b',');
        }
        match field {
            Field::Null => {}
            Field::Plain(text) => to.extend_from_slice(text.as_bytes()),
            Field::Text(text) if !text.is_empty() && !text.iter().any(|byte| b",\"\r\n".contains(byte)) => {
                to.extend_from_slice(text);
            }
            Field::Text(text) => {
                to.push(b'"');
                for part in text.split_inclusive(|byte| *byte == b'"') {
                    to.extend_from_slice(part);
                    if part.ends_with(b"\"") {
                        to.push(b'"');
                    }
                }
                to.push(b'"');
            }
        }
    }
    to.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(format: ExportFormat, rows: &[Vec<Value>]) -> String {
        let columns = ["a", "b,c", "d"].map(String::from);
        let format = RowFormat::new(format, &columns, false);
        let mut to = Vec::new();
        format.header(&columns, &mut to);
        assert!(rows.iter().all(|row| format.row(row, &mut to).expect("writes")));
        String::from_utf8(to).expect("UTF-8")
    }

    fn rows() -> [Vec<Value>; 2] {
        [
            vec![Value::Integer(i64::MIN), Value::Null, Value::from("")],
            vec![Value::Real(0.1 + 0.2), Value::Blob(vec![0, 255]), Value::from("say \"hi\",\r\nü")],
        ]
    }

    #[test]
    fn csv_tells_null_from_an_empty_text() {
        let expected =
            "a,\"b,c\",d\n-9223372036854775808,,\"\"\n0.30000000000000004,x'00ff',\"say \"\"hi\"\",\r\nü\"\n";
        assert_eq!(written(ExportFormat::Csv, &rows()), expected);
    }

    #[test]
    fn json_keeps_every_digit() {
        let expected = "{\"a\":-9223372036854775808,\"b,c\":null,\"d\":\"\"}\n\
                        {\"a\":0.30000000000000004,\"b,c\":{\"$blob\":\"AP8=\"},\"d\":\"say \\\"hi\\\",\\r\\nü\"}\n";
        assert_eq!(written(ExportFormat::Ndjson, &rows()), expected);
    }

    #[test]
    fn a_row_of_events_is_a_line_that_an_import_reads() {
        let columns = EVENT_COLUMNS.map(String::from);
        let row = [
            Value::Integer(3),
            Value::from("a.b"),
            Value::from("S"),
            Value::Integer(9),
            Value::Integer(7),
            Value::from(r#"{"K":["1","2"]}"#),
            Value::Blob(vec![255]),
        ];
        let mut line = Vec::new();
        RowFormat::new(ExportFormat::Ndjson, &columns, true).row(&row, &mut line).expect("writes");
        let read = event_line::read_stored(&line).expect("an event");
        assert_eq!((read.position, read.published_us, read.payload), (Some(("S".into(), 9)), Some(7), vec![255]));
        assert_eq!(read.headers, [("K".to_owned(), "1".to_owned()), ("K".into(), "2".into())]);
    }
}
