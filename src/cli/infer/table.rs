//! The table, the migration and the route for messages.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::document::Document;
use super::fields::{Field, Fields};
use super::names::{Names, is_reserved, plain};
use crate::binding::{Envelope, Fields as Values, Parameters, Value};
use crate::broker::StreamMessage;
use crate::cli::identifier::identifier;
use crate::config::Codec;
use crate::input_format::bytes_without_byte_order_mark;
use crate::pipeline::{Mark, SingleEvent};
use crate::subject::Filter;

/// A column of the table.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    pub name: String,
    /// The parameter that fills it, without its `:`.
    pub parameter: String,
    /// Its type in SQL.
    pub sql_type: &'static str,
    /// Whether every event has it.
    pub is_required: bool,
    /// The field of the payload that it has; `None` for a part of the message.
    pub field: Option<Field>,
}

/// What was found in messages.
#[derive(Clone, Debug)]
pub struct InferredTable {
    pub name: String,
    pub subject: Filter,
    pub columns: Vec<Column>,
    /// How many messages were read.
    pub messages: usize,
    /// How many of them have a payload that is an object.
    pub objects: usize,
    /// Fields for which there was no room.
    pub left_out: usize,
    codec: Option<Codec>,
}

impl InferredTable {
    /// The table for these messages, all of which are on this subject.
    pub fn new(name: Option<&str>, subject: &Filter, messages: &[StreamMessage]) -> Self {
        let events: Vec<SingleEvent> = messages.iter().map(event).collect();
        let documents = |codec| events.iter().map(|event| document(event, codec)).collect::<Vec<_>>();
        let is_object = |document: &&Option<Document>| matches!(document, Some(Document::Object(_)));
        let count = |documents: &[Option<Document>]| documents.iter().filter(is_object).count();
        let (mut read, mut codec) = (documents(None), None);
        if count(&read) * 2 < messages.len() {
            let packed = documents(Some(Codec::Messagepack));
            if count(&packed) > count(&read) {
                (read, codec) = (packed, Some(Codec::Messagepack));
            }
        }
        let mut fields = Fields::default();
        read.iter().flatten().for_each(|document| fields.add(document));
        let objects = fields.objects();
        let (found, left_out) = fields.list();
        let name = name.map_or_else(|| name_of(subject), str::to_owned);
        let mut names = Names::default();
        let mut columns = parts_of_message(subject, &mut names);
        if objects * 2 < messages.len() || found.is_empty() {
            columns.push(part("payload", "ANY", &mut names));
        } else {
            let mut parameters = Names::default();
            let mut fields: Vec<Column> =
                found.into_iter().map(|field| column(field, &mut names, &mut parameters)).collect();
            set_types(&mut fields, &events, codec);
            columns.extend(fields);
        }
        Self { name, subject: subject.clone(), columns, messages: messages.len(), objects, left_out, codec }
    }

    /// The SQL that makes the table.
    pub fn migration(&self) -> String {
        let mut sql = format!(
            "-- Inferred from {} on {}. A field that an event lacks is NULL: add NOT NULL where it must be there.\n\
             -- An event whose values have other types than the columns becomes a dead letter.\n\
             CREATE TABLE {}(\n",
            crate::counted(self.messages as u64, "message"),
            comment(self.subject.as_str()),
            identifier(&self.name)
        );
        let mut lines = vec![("id INTEGER PRIMARY KEY".to_owned(), "in the order of the stream".to_owned())];
        for column in &self.columns {
            let required = if column.is_required { " NOT NULL" } else { "" };
            lines.push((format!("{} {}{required}", identifier(&column.name), column.sql_type), self.remark(column)));
        }
        let width = lines.iter().map(|(line, _)| line.len()).max().unwrap_or_default() + 1;
        let last = lines.len() - 1;
        for (at, (line, remark)) in lines.into_iter().enumerate() {
            let line = line + if at == last { "" } else { "," };
            let _ = writeln!(sql, "    {line:width$}  -- {remark}");
        }
        sql + ") STRICT;\n"
    }

    /// What a column is, for people.
    fn remark(&self, column: &Column) -> String {
        let Some(field) = &column.field else {
            return match column.parameter.as_str() {
                "published_us" => "when the stream stored it, in microseconds since 1970".into(),
                "payload" => "text if it is UTF-8, else a blob".into(),
                parameter => format!("the subject's :{parameter}").replace("the subject's :subject", "the subject"),
            };
        };
        let kinds: Vec<&str> = field.kinds.keys().map(|kind| kind.name()).collect();
        let kinds = if kinds.is_empty() { "always null".into() } else { kinds.join(" or ") };
        let (missing, null) = (self.objects - field.present, field.nulls);
        let how_often = match (missing, null) {
            (0, 0) => "always there".into(),
            (0, null) => format!("null in {}", self.share(null)),
            (missing, 0) => format!("missing in {}", self.share(missing)),
            (missing, null) => format!("missing in {}, null in {}", self.share(missing), self.share(null)),
        };
        format!("{}, {kinds}, {how_often}", comment(&field.pointer()))
    }

    /// A part of the messages, in percent.
    pub fn share(&self, count: usize) -> String {
        share(count, self.objects)
    }

    /// The `[[route]]` for the settings.
    pub fn route(&self) -> String {
        let columns: Vec<String> = self.columns.iter().map(|column| identifier(&column.name)).collect();
        let parameters: Vec<String> = self.columns.iter().map(|column| format!(":{}", column.parameter)).collect();
        let mut route =
            format!("[[route]]\nname = {}\nsubject = {}\n", toml_text(&self.name), toml_text(self.subject.as_str()));
        if self.codec == Some(Codec::Messagepack) {
            route += "codec = \"messagepack\"\n";
        }
        // Names are plain or in double quotes, so three single quotes cannot occur.
        let _ = write!(
            route,
            "sql = '''\nINSERT INTO {}({})\nVALUES ({})\n'''\n",
            identifier(&self.name),
            wrapped(&columns),
            wrapped(&parameters)
        );
        for (parameter, pointer) in self.bind() {
            let _ = writeln!(route, "bind.{parameter} = {}", toml_text(&pointer));
        }
        route
    }

    /// The parameters that are not simply a field with their name.
    fn bind(&self) -> BTreeMap<String, String> {
        let pointed = self.columns.iter().filter_map(|column| Some((column, column.field.as_ref()?)));
        pointed
            .filter(|(column, field)| field.path != [column.parameter.as_str()])
            .map(|(column, field)| (column.parameter.clone(), field.pointer()))
            .collect()
    }
}

/// A part of a number, in percent: 0 and 100 only where it is exact.
pub fn share(count: usize, of: usize) -> String {
    let permille = (count * 1_000).checked_div(of).unwrap_or_default();
    match (count, permille) {
        (0, _) => "0 %".into(),
        (count, _) if count == of => "100 %".into(),
        (_, 0) => "less than 0.1 %".into(),
        (_, permille) if permille % 10 == 0 => format!("{} %", permille / 10),
        (_, permille) => format!("{}.{} %", permille / 10, permille % 10),
    }
}

/// A text as a TOML string. JSON's escapes are TOML's, except for one character that JSON does not escape.
pub fn toml_text(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default().replace('\u{7f}', "\\u007f")
}

fn event(message: &StreamMessage) -> SingleEvent {
    let mark = Mark { sequence: message.sequence, published_ns: message.published_ns };
    let headers = message.headers.iter().flatten().map(|(name, value)| (name.as_str(), value.as_str()));
    SingleEvent::new(mark, &message.subject, headers, &message.payload)
}

/// The payload of a message as a route reads it.
fn document(event: &SingleEvent, codec: Option<Codec>) -> Option<Document> {
    let bind = BTreeMap::from([("document".to_owned(), String::new())]);
    let whole = Parameters::new(["document"], &bind, codec).ok()?;
    let delivery = event.delivery();
    let (envelope, mut values) = (Envelope::of(&delivery, None), Values::default());
    let row = whole.read(&envelope, &mut values).ok()?;
    match whole.value(0, &envelope, &values, row) {
        // A payload that is a text is no object, though the text may be one.
        Value::Text(json) if begins_object(envelope.payload) => Document::read(json.as_bytes()),
        _ => None,
    }
}

/// Whether a payload begins like an object of JSON or a map of MessagePack.
fn begins_object(payload: &[u8]) -> bool {
    matches!(bytes_without_byte_order_mark(payload).trim_ascii_start().first(), Some(b'{' | 0x80..=0x8f | 0xde | 0xdf))
}

/// A name for the table of these subjects.
fn name_of(subject: &Filter) -> String {
    let words: Vec<&str> = subject.as_str().split('.').filter(|token| !["*", ">"].contains(token)).collect();
    if words.is_empty() {
        return "messages".into();
    }
    let name = plain(&words.join("_").to_lowercase());
    let is_taken = name == "events" || name.starts_with("catchment_") || name.starts_with("sqlite_");
    if is_taken { format!("{}_fields", name.replace("sqlite_", "").replace("catchment_", "")) } else { name }
}

/// Columns for the parts of a message that its payload does not have: its time, and what wildcards stand for.
fn parts_of_message(subject: &Filter, names: &mut Names) -> Vec<Column> {
    names.unique("id");
    let mut columns = vec![part("published_us", "INTEGER", names)];
    for (at, token) in subject.as_str().split('.').enumerate() {
        match token {
            "*" => columns.push(part(&format!("token_{}", at + 1), "TEXT", names)),
            ">" => columns.push(part("subject", "TEXT", names)),
            _ => {}
        }
    }
    columns
}

fn part(parameter: &str, sql_type: &'static str, names: &mut Names) -> Column {
    let name = names.unique(parameter);
    Column { name, parameter: parameter.to_owned(), sql_type, is_required: true, field: None }
}

fn column(field: Field, names: &mut Names, parameters: &mut Names) -> Column {
    let name = names.unique(&field.path.join("_"));
    let own = match &field.path[..] {
        [name] if plain(name) == *name && !is_reserved(name) => name.clone(),
        _ if is_reserved(&name) => format!("field_{name}"),
        _ => name.clone(),
    };
    Column { name, parameter: parameters.unique(&own), sql_type: "ANY", is_required: false, field: Some(field) }
}

/// The types of columns by the values that SQLite would get, as a route binds them.
fn set_types(columns: &mut [Column], events: &[SingleEvent], codec: Option<Codec>) {
    let names = columns.iter().map(|column| column.parameter.as_str());
    let pointers =
        columns.iter().filter_map(|column| Some((column.parameter.clone(), column.field.as_ref()?.pointer())));
    let Ok(parameters) = Parameters::new(names, &pointers.collect(), codec) else { return };
    let mut seen = vec![[false; 4]; columns.len()];
    for event in events {
        let delivery = event.delivery();
        let (envelope, mut values) = (Envelope::of(&delivery, None), Values::default());
        let Ok(row) = parameters.read(&envelope, &mut values) else { continue };
        for (at, seen) in seen.iter_mut().enumerate() {
            match parameters.value(at, &envelope, &values, row) {
                Value::Null => {}
                Value::Integer(_) => seen[0] = true,
                Value::Real(_) => seen[1] = true,
                Value::Text(_) => seen[2] = true,
                Value::Blob(_) => seen[3] = true,
            }
        }
    }
    for (column, seen) in columns.iter_mut().zip(seen) {
        column.sql_type = match seen {
            [true, false, false, false] => "INTEGER",
            [_, true, false, false] => "REAL",
            [false, false, true, false] => "TEXT",
            [false, false, false, true] => "BLOB",
            _ => "ANY",
        };
    }
}

/// A text in a comment of one line.
fn comment(text: &str) -> String {
    crate::printable(text).chars().take(200).collect()
}

/// Items with commas, in lines of some 100 characters.
fn wrapped(items: &[String]) -> String {
    let (mut text, mut line) = (String::new(), 0);
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            text.push(',');
            if line + item.len() > 100 {
                text.push_str("\n  ");
                line = 0;
            } else {
                text.push(' ');
            }
        }
        text.push_str(item);
        line += item.len() + 2;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(subject: &str, payload: &[u8]) -> StreamMessage {
        StreamMessage {
            sequence: 1,
            published_ns: 1,
            subject: subject.into(),
            headers: Ok(Vec::new()),
            payload: payload.to_vec(),
        }
    }

    fn inferred(subject: &str, payloads: &[&str]) -> InferredTable {
        let messages: Vec<_> = payloads.iter().map(|payload| message("a.b", payload.as_bytes())).collect();
        InferredTable::new(None, &subject.parse().expect("a subject"), &messages)
    }

    fn columns(table: &InferredTable) -> Vec<(&str, &str, &str)> {
        table.columns.iter().map(|column| (&*column.name, column.sql_type, &*column.parameter)).collect()
    }

    #[test]
    fn columns_have_the_types_that_routes_bind() {
        let table = inferred(
            "chat.*.log",
            &[
                r#"{"i": 1, "r": 1, "t": "x", "b": true, "l": [1], "any": 1, "n": null, "o": {"p": 1}, "order": 1}"#,
                r#"{"i": 2, "r": 2.5, "any": "x", "subject": "mine", "ID": 7, "a'b\"c": 1}"#,
            ],
        );
        let expected = [
            ("published_us", "INTEGER", "published_us"),
            ("token_2", "TEXT", "token_2"),
            ("i", "INTEGER", "i"),
            ("r", "REAL", "r"),
            ("t", "TEXT", "t"),
            ("b", "INTEGER", "b"),
            ("l", "TEXT", "l"),
            ("any", "ANY", "any"),
            ("n", "ANY", "n"),
            ("o_p", "INTEGER", "o_p"),
            ("order", "INTEGER", "order"),
            ("subject", "TEXT", "field_subject"),
            ("ID_2", "INTEGER", "ID"),
            ("a_b_c", "INTEGER", "a_b_c"),
        ];
        assert_eq!(columns(&table), expected);
        let bind: Vec<_> = table.bind().into_iter().collect();
        let pair = |name: &str, pointer: &str| (name.to_owned(), pointer.to_owned());
        assert_eq!(bind, [pair("a_b_c", "/a'b\"c"), pair("field_subject", "/subject"), pair("o_p", "/o/p")]);
        let sql = table.migration();
        assert!(
            sql.contains("\n    \"order\" INTEGER,") && sql.contains("-- /r, integer or real, always there"),
            "{sql}"
        );
        assert!(sql.contains("-- /n, always null, missing in 50 %, null in 50 %"), "{sql}");
    }

    #[test]
    fn payloads_that_are_no_objects_are_stored_whole() {
        let table = inferred(">", &["hello", "[1]", "{}"]);
        assert_eq!(columns(&table).last(), Some(&("payload", "ANY", "payload")));
        assert_eq!((table.name.as_str(), table.objects), ("messages", 1));
        assert_eq!(inferred("events.>", &["1"]).name, "events_fields");
        assert_eq!(inferred("Chat.Message-Log.*", &["1"]).name, "chat_message_log");
    }

    #[test]
    fn messagepack_is_recognised_without_a_content_type() {
        let packed = b"\x82\xa1a\x01\xa1b\xc4\x02\xff\x00";
        let messages = [message("a.b", packed), message("a.b", packed), message("a.b", b"{}")];
        let table = InferredTable::new(Some("t"), &"a.*".parse().expect("a subject"), &messages);
        assert_eq!(columns(&table)[2..], [("a", "INTEGER", "a"), ("b", "BLOB", "b")]);
        assert!(table.route().contains("\ncodec = \"messagepack\"\n"), "{}", table.route());
    }

    #[test]
    fn a_share_is_exact_at_its_ends() {
        let shares = [(0, 7), (7, 7), (1, 4), (1, 3), (1, 5_000), (4_999, 5_000)].map(|(count, of)| share(count, of));
        assert_eq!(shares, ["0 %", "100 %", "25 %", "33.3 %", "less than 0.1 %", "99.9 %"]);
    }
}
