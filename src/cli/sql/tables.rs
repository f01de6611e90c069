//! The tables of a database, and the SQL that made them.

use std::io::Write;
use std::ops::ControlFlow;

use anyhow::ensure;

use super::output_format::{OutputFormat, run};
use crate::cli::output::Output;
use crate::cli::values::printable;
use crate::store::{Reader, StatementOutput, Value};

/// Tables and views, catchment's own last. Those that hold the content of virtual tables are left out.
const LIST: &str = r"SELECT DISTINCT name, type FROM pragma_table_list WHERE schema <> 'temp' AND type <> 'shadow'
    AND name NOT LIKE 'sqlite\_%' ESCAPE '\' ORDER BY name LIKE 'catchment\_%' ESCAPE '\', name";

/// Prints the tables and views.
pub fn print_list(reader: &Reader, format: OutputFormat, to: &mut Output) -> anyhow::Result<()> {
    run(reader, LIST, format, to)
}

/// Prints the SQL that made one table or view and what belongs to it, or all of them but SQLite's own. As a table it is plain SQL.
/// `list` is the command that lists the tables.
///
/// # Errors
///
/// There is no such table.
pub fn print_schema(
    reader: &Reader,
    table: Option<&str>,
    format: OutputFormat,
    list: &str,
    to: &mut Output,
) -> anyhow::Result<()> {
    let of = table.map_or_else(
        || r"AND name NOT LIKE 'sqlite\_%' ESCAPE '\'".to_owned(),
        |name| format!("AND tbl_name = '{}' COLLATE NOCASE", name.replace('\'', "''")),
    );
    let sql = format!(
        "SELECT type, name, tbl_name AS \"table\", sql FROM sqlite_schema WHERE sql IS NOT NULL {of}
         AND name NOT IN (SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'shadow')
         ORDER BY tbl_name LIKE 'catchment\\_%' ESCAPE '\\', tbl_name, type NOT IN ('table', 'view'), name"
    );
    let mut statements = Vec::new();
    let _: Option<()> = reader.run(&sql, |answer| {
        if let StatementOutput::Row(mut row) = answer
            && let Some(Value::Text(sql)) = row.pop()
        {
            statements.push(sql);
        }
        ControlFlow::Continue(())
    })?;
    if let Some(name) = table {
        ensure!(!statements.is_empty(), "there is no table or view {}; {list} lists them", printable(name));
    }
    if format != OutputFormat::Tables {
        return run(reader, &sql, format, to);
    }
    for sql in statements {
        let lines: Vec<_> = sql.lines().map(printable).collect();
        writeln!(to, "{};", lines.join("\n"))?;
    }
    Ok(())
}
