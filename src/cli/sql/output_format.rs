//! Runs SQL and prints its rows in one of the formats.

use std::ops::ControlFlow;

use crate::cli::output::Output;
use crate::cli::row_writers::{Csv, JsonLines, RowWriter, Tables};
use crate::store::{Reader, StatementOutput};

/// The format of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputFormat {
    Tables,
    Json,
    Csv,
}

impl OutputFormat {
    /// The format with this name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "table" => Some(Self::Tables),
            "json" => Some(Self::Json),
            "csv" => Some(Self::Csv),
            _ => None,
        }
    }
}

/// Runs the statements in turn and prints their rows, including those that were read before an error.
pub fn run(reader: &Reader, sql: &str, format: OutputFormat, to: &mut Output) -> anyhow::Result<()> {
    match format {
        OutputFormat::Tables => {
            to.allow_styles();
            print(reader, sql, Tables::new(to))
        }
        OutputFormat::Json => print(reader, sql, JsonLines::new(to)),
        OutputFormat::Csv => print(reader, sql, Csv::new(to)),
    }
}

fn print(reader: &Reader, sql: &str, mut writer: impl RowWriter) -> anyhow::Result<()> {
    let ran = reader.run(sql, |answer| {
        let written = match answer {
            StatementOutput::Columns([]) => Ok(()),
            StatementOutput::Columns(names) => writer.columns(names),
            StatementOutput::Row(values) => writer.row(values),
            StatementOutput::End => writer.finish(),
        };
        written.map_or_else(ControlFlow::Break, ControlFlow::Continue)
    });
    if let Ok(Some(unwritten)) = ran {
        return Err(unwritten);
    }
    if ran.is_ok() {
        writer.finish()?;
    } else {
        writer.finish_early()?;
    }
    ran?;
    Ok(())
}
