//! `catchment dead-letters show`

use std::io::{self, Write};

use crate::store::{DeadLetter, Value};
use clap::Args;
use data_encoding::HEXLOWER;

use super::database::{Missing, open};
use super::list::json_line;
use super::selection::ExplicitSelectionArgs;
use crate::cli::output::Output;
use crate::cli::settings::{DatabaseArgs, Settings};
use crate::cli::values::{counted, printable, shown_time};

/// Show all data of dead letters
#[derive(Args)]
pub struct Show {
    #[command(flatten)]
    database: DatabaseArgs,

    #[command(flatten)]
    selection: ExplicitSelectionArgs,

    /// Print only the payload, unchanged
    #[arg(long, conflicts_with = "json")]
    payload: bool,

    /// Print JSON as list --json does
    #[arg(short, long)]
    json: bool,
}

impl Show {
    pub fn run(self, settings: &Settings) -> anyhow::Result<()> {
        let selection = self.selection.selection()?;
        let letters = open(settings, &self.database)?;
        let missing = Missing::of(&letters, &selection)?;
        let mut output = Output::new();
        for (at, letter) in letters.list(&selection)?.enumerate() {
            let letter = letter?;
            if self.json {
                json_line(&mut output, &letter)?;
            } else if self.payload {
                output.write_all(bytes(&letter.payload))?;
            } else {
                if at > 0 {
                    writeln!(output)?;
                }
                write_page(&mut output, &letter)?;
            }
        }
        output.flush()?;
        missing.report()
    }
}

fn write_page(to: &mut impl Write, letter: &DeadLetter) -> io::Result<()> {
    writeln!(to, "dead letter {}", letter.id)?;
    let mut field = |name: &str, value: Option<&str>| match value {
        Some(value) => writeln!(to, "  {name:<10}{}", printable(value)),
        None => Ok(()),
    };
    field("error", Some(&letter.error))?;
    field("route", letter.route.as_deref())?;
    field("statement", letter.statement.as_deref())?;
    field("tried", Some(&shown_time(letter.recorded_us)))?;
    field("published", Some(&shown_time(letter.published_us)))?;
    if let (Some(stream), Some(sequence)) = (&letter.stream, letter.sequence) {
        field("stream", Some(&format!("{stream}, sequence {sequence}, epoch {}", letter.epoch.unwrap_or_default())))?;
    }
    field("subject", Some(&letter.subject))?;
    field("headers", letter.headers.as_deref())?;
    if let Some(raw) = &letter.raw_headers {
        writeln!(to, "  headers that cannot be read, {}:", counted(raw.len() as u64, "byte"))?;
        text_or_hex(to, raw)?;
    }
    let payload = bytes(&letter.payload);
    writeln!(to, "  payload, {}:", counted(payload.len() as u64, "byte"))?;
    text_or_hex(to, payload)
}

fn bytes(payload: &Value) -> &[u8] {
    match payload {
        Value::Text(text) => text.as_bytes(),
        Value::Blob(bytes) => bytes,
        _ => b"",
    }
}

/// Text with control characters escaped, or lines of 32 bytes in hexadecimal.
fn text_or_hex(to: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.lines().try_for_each(|line| writeln!(to, "{}", printable(line))),
        Err(_) => bytes.chunks(32).try_for_each(|chunk| writeln!(to, "{}", HEXLOWER.encode(chunk))),
    }
}
