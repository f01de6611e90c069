//! `catchment sql`: read-only SQL on the database.

use std::borrow::Cow;
use std::io::{IsTerminal, Read, Write};
use std::ops::ControlFlow;

use catchment::store::{Answer, Reader, Value};
use clap::Args;
use comfy_table::{Attribute, Cell, CellAlignment, Table};
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::failure::Usage;
use super::output::Output;
use super::settings::{DatabaseArgs, Settings};
use super::table::{ROWS_AT_A_TIME, empty_table};
use super::values::{Json, for_csv, for_eyes, printable};

/// Run read-only SQL on the database, also beside a running collector
#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub struct Sql {
    /// One statement or several; `-` reads them from standard input
    #[arg(value_name = "SQL")]
    statements: String,

    #[command(flatten)]
    database: DatabaseArgs,

    /// One JSON object a row and line
    #[arg(short, long, conflicts_with = "csv")]
    json: bool,

    /// CSV with a header line for each statement
    #[arg(long)]
    csv: bool,
}

const AFTER_HELP: &str = "\
JSON: a blob is {\"$blob\":\"<base64>\"}, an infinity null; a column whose name came before gets _2, _3, ... behind it.
CSV: NULL is empty, a blob is x'<hex>'. JSON and CSV are written as the rows are read; tables a thousand rows at a time.

Examples:
  catchment sql \"SELECT subject, count(*) FROM events GROUP BY subject\"
  catchment sql --json \"SELECT payload ->> '$.user' AS user FROM events ORDER BY id DESC LIMIT 10\"";

impl Sql {
    /// Runs the statements and prints what they answer.
    pub fn run(self, settings: &Settings) -> anyhow::Result<()> {
        let config = settings.for_database(&self.database)?;
        let sql = given(self.statements)?;
        let reader = Reader::open(&config.database.path)?;
        let mut output = Output::new();
        if self.json {
            print(&reader, &sql, JsonLines { to: &mut output, names: Vec::new() })?;
        } else if self.csv {
            let to = csv::WriterBuilder::new().flexible(true).from_writer(&mut output);
            print(&reader, &sql, Csv { to })?;
        } else {
            print(&reader, &sql, Tables { to: &mut output, open: None })?;
        }
        Ok(output.flush()?)
    }
}

fn given(argument: String) -> anyhow::Result<String> {
    let sql = if argument == "-" {
        let mut sql = String::new();
        std::io::stdin().read_to_string(&mut sql).map_err(|e| anyhow::anyhow!("standard input: {e}"))?;
        sql
    } else {
        argument
    };
    if sql.trim().is_empty() {
        return Err(Usage("the SQL is empty; give a statement, as \"SELECT count(*) FROM events\"".into()).into());
    }
    Ok(sql)
}

/// A form in which rows are printed.
trait Form {
    /// A statement's columns: at least one.
    fn columns(&mut self, names: &[String]) -> anyhow::Result<()>;
    fn row(&mut self, values: Vec<Value>) -> anyhow::Result<()>;
    /// Writes what is still held back.
    fn end(&mut self) -> anyhow::Result<()>;
}

/// Rows that were read before an error are printed too.
fn print(reader: &Reader, sql: &str, mut form: impl Form) -> anyhow::Result<()> {
    let ran = reader.run(sql, |answer| {
        let written = match answer {
            Answer::Columns([]) => Ok(()),
            Answer::Columns(names) => form.columns(names),
            Answer::Row(values) => form.row(values),
        };
        written.map_or_else(ControlFlow::Break, ControlFlow::Continue)
    });
    if let Ok(Some(unwritten)) = ran {
        return Err(unwritten);
    }
    form.end()?;
    ran?;
    Ok(())
}

struct JsonLines<'a, W> {
    to: &'a mut W,
    names: Vec<String>,
}

impl<W: Write> Form for JsonLines<'_, W> {
    fn columns(&mut self, names: &[String]) -> anyhow::Result<()> {
        self.names = told_apart(names);
        Ok(())
    }

    fn row(&mut self, values: Vec<Value>) -> anyhow::Result<()> {
        let object = Object { names: &self.names, values: &values };
        serde_json::to_writer(&mut *self.to, &object).map_err(std::io::Error::from)?;
        Ok(self.to.write_all(b"\n")?)
    }

    fn end(&mut self) -> anyhow::Result<()> {
        Ok(())
    }
}

/// A JSON object cannot have a name twice: the second `id` of a join becomes `id_2`.
fn told_apart(names: &[String]) -> Vec<String> {
    let mut apart: Vec<String> = Vec::with_capacity(names.len());
    for name in names {
        let numbered = (2..).map(|number| format!("{name}_{number}"));
        let free = std::iter::once(name.clone()).chain(numbered).find(|name| !apart.contains(name));
        apart.extend(free);
    }
    apart
}

/// A row, its columns in the statement's order.
struct Object<'a> {
    names: &'a [String],
    values: &'a [Value],
}

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.values.len()))?;
        for (name, value) in self.names.iter().zip(self.values) {
            map.serialize_entry(name, &Json(value))?;
        }
        map.end()
    }
}

struct Csv<W: Write> {
    to: csv::Writer<W>,
}

impl<W: Write> Form for Csv<W> {
    fn columns(&mut self, names: &[String]) -> anyhow::Result<()> {
        self.to.write_record(names).map_err(written)
    }

    fn row(&mut self, values: Vec<Value>) -> anyhow::Result<()> {
        self.to.write_record(values.iter().map(for_csv).map(Cow::into_owned)).map_err(written)
    }

    fn end(&mut self) -> anyhow::Result<()> {
        Ok(self.to.flush()?)
    }
}

/// The csv crate hides the error of the writer beneath it, by which a broken pipe is known.
fn written(error: csv::Error) -> anyhow::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error.into(),
        kind => anyhow::anyhow!("CSV: {kind:?}"),
    }
}

struct Tables<'a, W> {
    to: &'a mut W,
    open: Option<Table>,
}

impl<W: Write> Form for Tables<'_, W> {
    fn columns(&mut self, names: &[String]) -> anyhow::Result<()> {
        self.end()?;
        self.open = Some(empty_table(names.iter().map(|name| Cell::new(printable(name))).collect()));
        Ok(())
    }

    fn row(&mut self, values: Vec<Value>) -> anyhow::Result<()> {
        let Some(table) = &mut self.open else { return Ok(()) };
        table.add_row(values.iter().map(cell).collect::<Vec<_>>());
        if table.row_count() < ROWS_AT_A_TIME {
            return Ok(());
        }
        let next = table.header().map(|header| empty_table(header.cell_iter().cloned().collect()));
        self.end()?;
        self.open = next;
        Ok(())
    }

    fn end(&mut self) -> anyhow::Result<()> {
        match self.open.take() {
            Some(table) => Ok(writeln!(self.to, "{table}")?),
            None => Ok(()),
        }
    }
}

fn cell(value: &Value) -> Cell {
    match value {
        Value::Null if styled() => Cell::new("NULL").add_attribute(Attribute::Dim),
        Value::Integer(_) | Value::Real(_) => Cell::new(for_eyes(value)).set_alignment(CellAlignment::Right),
        _ => Cell::new(for_eyes(value)),
    }
}

fn styled() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed<'a>(form: impl FnOnce(&'a mut Vec<u8>) -> Box<dyn Form + 'a>, to: &'a mut Vec<u8>, rows: &[Value]) {
        let mut form = form(to);
        form.columns(&["b".into(), "a".into(), "b".into()]).unwrap();
        for row in rows.chunks(3) {
            form.row(row.to_vec()).unwrap();
        }
        form.end().unwrap();
    }

    fn row() -> Vec<Value> {
        vec![Value::Integer(1), Value::Null, Value::Text("x,\ny".into())]
    }

    #[test]
    fn json_keeps_the_order_and_tells_equal_names_apart() {
        let mut to = Vec::new();
        printed(|to| Box::new(JsonLines { to, names: Vec::new() }), &mut to, &row());
        assert_eq!(String::from_utf8(to).unwrap(), "{\"b\":1,\"a\":null,\"b_2\":\"x,\\ny\"}\n");
        assert_eq!(told_apart(&["a".into(), "a_2".into(), "a".into()]), ["a", "a_2", "a_3"]);
    }

    #[test]
    fn csv_has_a_header_and_quotes() {
        let mut to = Vec::new();
        printed(|to| Box::new(Csv { to: csv::Writer::from_writer(to) }), &mut to, &row());
        assert_eq!(String::from_utf8(to).unwrap(), "b,a,b\n1,,\"x,\ny\"\n");
    }

    #[test]
    fn a_long_answer_is_several_tables() {
        let mut to = Vec::new();
        let rows: Vec<Value> = std::iter::repeat_with(row).take(ROWS_AT_A_TIME + 1).flatten().collect();
        printed(|to| Box::new(Tables { to, open: None }), &mut to, &rows);
        let text = String::from_utf8(to).unwrap();
        assert_eq!(text.lines().filter(|line| line.contains("x,\\ny")).count(), ROWS_AT_A_TIME + 1);
        assert_eq!(text.lines().filter(|line| line.contains(" a ")).count(), 2);
    }

    #[test]
    fn empty_sql_is_wrong_usage() {
        assert!(given(" \n".into()).expect_err("must be refused").is::<Usage>());
    }
}
