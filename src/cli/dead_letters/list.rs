//! `catchment dead-letters list`

use std::io::Write;

use crate::store::{DeadLetter, Json, Value};
use clap::Args;
use comfy_table::{Cell, CellAlignment, Table};
use serde::Serialize;
use serde_json::value::RawValue;

use super::database::open;
use super::selection::SelectionArgs;
use crate::cli::event_line;
use crate::cli::output::Output;
use crate::cli::settings::{DatabaseArgs, Settings};
use crate::cli::table::{ROWS_AT_A_TIME, empty_table};
use crate::cli::values::{printable, shown_time};

/// List dead letters, the oldest first
#[derive(Args)]
#[command(after_help = "\
JSON: {\"id\", \"recorded_us\", \"published_us\", \"stream\", \"epoch\", \"sequence\", \"subject\", \"headers\", \"raw_headers\", \
\"payload\", \"route\", \"statement\", \"error\"}. Headers are an object or null; raw_headers is the raw header block if it could \
not be read; bytes are {\"$blob\":\"<base64>\"}.")]
pub struct List {
    #[command(flatten)]
    database: DatabaseArgs,

    #[command(flatten)]
    selection: SelectionArgs,

    /// List the newest first; --limit counts from the newest
    #[arg(short, long)]
    newest: bool,

    /// Print one JSON object a line with all data of the letter
    #[arg(short, long)]
    json: bool,
}

impl List {
    pub fn run(self, settings: &Settings) -> anyhow::Result<()> {
        let mut selection = self.selection.selection();
        selection.newest_first = self.newest;
        let letters = open(settings, &self.database)?;
        let mut output = Output::new();
        if self.json {
            for letter in letters.list(&selection)? {
                json_line(&mut output, &letter?)?;
            }
            return Ok(output.flush()?);
        }
        let mut table = new_table();
        let mut count = 0;
        for letter in letters.list(&selection)? {
            table.add_row(row(&letter?));
            count += 1;
            if count % ROWS_AT_A_TIME == 0 {
                writeln!(output, "{table}")?;
                table = new_table();
            }
        }
        if count == 0 {
            writeln!(output, "no dead letters")?;
        } else if !table.is_empty() {
            writeln!(output, "{table}")?;
        }
        Ok(output.flush()?)
    }
}

fn new_table() -> Table {
    empty_table(["id", "tried", "subject", "route", "error"].map(Cell::new).into())
}

fn row(letter: &DeadLetter) -> Vec<Cell> {
    let seconds = shown_time(letter.recorded_us - letter.recorded_us.rem_euclid(1_000_000)).replace(".000000", "");
    vec![
        Cell::new(letter.id).set_alignment(CellAlignment::Right),
        Cell::new(seconds),
        Cell::new(printable(&letter.subject)),
        Cell::new(printable(letter.route.as_deref().unwrap_or_default())),
        Cell::new(printable(&letter.error)),
    ]
}

/// All data of a letter.
pub fn json_line(to: &mut Output, letter: &DeadLetter) -> std::io::Result<()> {
    let raw_headers = letter.raw_headers.clone().map(Value::Blob);
    let line = LetterLine {
        id: letter.id,
        recorded_us: letter.recorded_us,
        published_us: letter.published_us,
        stream: letter.stream.as_deref(),
        epoch: letter.epoch,
        sequence: letter.sequence,
        subject: &letter.subject,
        headers: event_line::headers(letter.headers.as_deref()),
        raw_headers: raw_headers.as_ref().map(|raw| Json(raw.borrowed())),
        payload: Json(letter.payload.borrowed()),
        route: letter.route.as_deref(),
        statement: letter.statement.as_deref(),
        error: &letter.error,
    };
    serde_json::to_writer(&mut *to, &line)?;
    to.write_all(b"\n")
}

#[derive(Serialize)]
struct LetterLine<'a> {
    id: i64,
    recorded_us: i64,
    published_us: i64,
    stream: Option<&'a str>,
    epoch: Option<u32>,
    sequence: Option<u64>,
    subject: &'a str,
    headers: Option<&'a RawValue>,
    raw_headers: Option<Json<'a>>,
    payload: Json<'a>,
    route: Option<&'a str>,
    statement: Option<&'a str>,
    error: &'a str,
}
