//! Writers of rows: JSON, CSV, tables.

use std::borrow::Cow;
use std::io::Write;

use crate::store::{Json, JsonRowWriter, Value};

use super::table::{Grid, GridCell};
use super::values::{for_csv, for_display, printable};

/// Writes rows in one format.
pub trait RowWriter {
    /// Begins the rows of a statement, which has at least one column.
    fn columns(&mut self, names: &[String]) -> anyhow::Result<()>;
    fn row(&mut self, values: Vec<Value>) -> anyhow::Result<()>;
    /// Writes what is still buffered.
    fn finish(&mut self) -> anyhow::Result<()>;
    /// The same after an error: a statement whose rows were not read has no header.
    fn finish_early(&mut self) -> anyhow::Result<()> {
        self.finish()
    }
}

/// One JSON object a line for each row.
pub struct JsonLines<'a, W> {
    to: &'a mut W,
    objects: JsonRowWriter,
    line: Vec<u8>,
}

impl<'a, W: Write> JsonLines<'a, W> {
    pub fn new(to: &'a mut W) -> Self {
        Self { to, objects: JsonRowWriter::new([]), line: Vec::new() }
    }
}

impl<W: Write> RowWriter for JsonLines<'_, W> {
    fn columns(&mut self, names: &[String]) -> anyhow::Result<()> {
        self.objects = JsonRowWriter::new(names.iter().map(String::as_str));
        Ok(())
    }

    fn row(&mut self, values: Vec<Value>) -> anyhow::Result<()> {
        self.line.clear();
        self.objects.write(values.iter().map(|value| Json(value.borrowed())), &mut self.line);
        self.line.push(b'\n');
        Ok(self.to.write_all(&self.line)?)
    }

    fn finish(&mut self) -> anyhow::Result<()> {
        Ok(())
    }
}

/// CSV with a header line for each statement.
pub struct Csv<W: Write> {
    to: csv::Writer<W>,
    /// The header of a statement without a row so far.
    header: Option<Vec<String>>,
}

impl<W: Write> Csv<W> {
    pub fn new(to: W) -> Self {
        Self { to: csv::WriterBuilder::new().flexible(true).from_writer(to), header: None }
    }

    fn header(&mut self) -> anyhow::Result<()> {
        self.header.take().map_or(Ok(()), |names| self.to.write_record(names).map_err(unwrapped))
    }
}

impl<W: Write> RowWriter for Csv<W> {
    fn columns(&mut self, names: &[String]) -> anyhow::Result<()> {
        self.header()?;
        self.header = Some(names.to_owned());
        Ok(())
    }

    fn row(&mut self, values: Vec<Value>) -> anyhow::Result<()> {
        self.header()?;
        self.to.write_record(values.iter().map(for_csv).map(Cow::into_owned)).map_err(unwrapped)
    }

    fn finish(&mut self) -> anyhow::Result<()> {
        self.header()?;
        Ok(self.to.flush()?)
    }

    fn finish_early(&mut self) -> anyhow::Result<()> {
        self.header = None;
        self.finish()
    }
}

/// Unwraps the writer's own error, to detect that the reader has left.
fn unwrapped(error: csv::Error) -> anyhow::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error.into(),
        kind => anyhow::anyhow!("CSV: {kind:?}"),
    }
}

/// Tables for people.
pub struct Tables<'a, W> {
    to: &'a mut W,
    open: Option<Grid>,
}

impl<'a, W: Write> Tables<'a, W> {
    pub fn new(to: &'a mut W) -> Self {
        Self { to, open: None }
    }
}

impl<W: Write> RowWriter for Tables<'_, W> {
    fn columns(&mut self, names: &[String]) -> anyhow::Result<()> {
        self.finish()?;
        self.open = Some(Grid::new(names.iter().map(|name| printable(name).into_owned()).collect()));
        Ok(())
    }

    fn row(&mut self, values: Vec<Value>) -> anyhow::Result<()> {
        let Some(grid) = &mut self.open else { return Ok(()) };
        Ok(grid.row(self.to, values.iter().map(cell).collect())?)
    }

    fn finish(&mut self) -> anyhow::Result<()> {
        match self.open.take() {
            Some(grid) => Ok(grid.finish(self.to)?),
            None => Ok(()),
        }
    }

    fn finish_early(&mut self) -> anyhow::Result<()> {
        self.open = self.open.take().filter(|grid| !grid.is_empty());
        self.finish()
    }
}

fn cell(value: &Value) -> GridCell {
    match value {
        Value::Null => GridCell::Null,
        Value::Integer(_) | Value::Real(_) => GridCell::Number(for_display(value).into_owned()),
        _ => GridCell::Text(for_display(value).into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed<'a>(
        writer: impl FnOnce(&'a mut Vec<u8>) -> Box<dyn RowWriter + 'a>,
        to: &'a mut Vec<u8>,
        rows: &[Value],
    ) {
        let mut writer = writer(to);
        writer.columns(&["b".into(), "a".into(), "b".into()]).unwrap();
        for row in rows.chunks(3) {
            writer.row(row.to_vec()).unwrap();
        }
        writer.finish().unwrap();
    }

    fn row() -> Vec<Value> {
        vec![Value::Integer(1), Value::Null, Value::Text("x,\ny".into())]
    }

    #[test]
    fn json_keeps_the_order_and_numbers_equal_names() {
        let mut to = Vec::new();
        printed(|to| Box::new(JsonLines::new(to)), &mut to, &row());
        assert_eq!(String::from_utf8(to).unwrap(), "{\"b\":1,\"a\":null,\"b_2\":\"x,\\ny\"}\n");
    }

    #[test]
    fn csv_has_a_header_and_quotes() {
        let mut to = Vec::new();
        printed(|to| Box::new(Csv::new(to)), &mut to, &row());
        assert_eq!(String::from_utf8(to).unwrap(), "b,a,b\n1,,\"x,\ny\"\n");
    }

    #[test]
    fn after_an_error_only_rows_have_a_header() {
        fn ended<'a>(mut writer: Box<dyn RowWriter + 'a>) {
            writer.columns(&["one".into()]).unwrap();
            writer.row(vec![Value::Integer(1)]).unwrap();
            writer.columns(&["empty".into()]).unwrap();
            writer.columns(&["failed".into()]).unwrap();
            writer.finish_early().unwrap();
        }
        let (mut csv, mut tables) = (Vec::new(), Vec::new());
        ended(Box::new(Csv::new(&mut csv)));
        ended(Box::new(Tables::new(&mut tables)));
        assert_eq!(String::from_utf8(csv).unwrap(), "one\n1\nempty\n");
        let tables = String::from_utf8(tables).unwrap();
        assert!(tables.contains("one") && tables.contains("empty") && !tables.contains("failed"), "{tables}");
    }

    #[test]
    fn many_rows_are_several_tables() {
        let mut to = Vec::new();
        let rows: Vec<Value> = std::iter::repeat_with(row).take(1_001).flatten().collect();
        printed(|to| Box::new(Tables::new(to)), &mut to, &rows);
        let text = String::from_utf8(to).unwrap();
        assert_eq!(text.lines().filter(|line| line.contains("x,\\ny")).count(), 1_001);
        assert_eq!(text.lines().filter(|line| line.contains(" a ")).count(), 2);
    }
}
