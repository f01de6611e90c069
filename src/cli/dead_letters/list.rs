//! `catchment dead-letters list`

use std::io::Write;

use crate::store::{DeadLetter, Json, Value};
use clap::Args;
use serde::Serialize;
use serde_json::value::RawValue;

use super::database::{Missing, open};
use super::selection::SelectionArgs;
use crate::cli::output::Output;
use crate::cli::settings::{DatabaseArgs, Settings};
use crate::cli::table::{Grid, GridCell};
use crate::cli::values::{printable, shown_time};
use crate::store::event_line;

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
        let missing = Missing::of(&letters, &selection)?;
        let mut output = Output::new();
        if self.json {
            for letter in letters.list(&selection)? {
                json_line(&mut output, &letter?)?;
            }
            output.flush()?;
            return missing.report();
        }
        let mut found = letters.list(&selection)?.peekable();
        if found.peek().is_none() {
            // The error says it otherwise.
            if missing.0.is_empty() {
                writeln!(output, "no dead letters")?;
            }
            output.flush()?;
            return missing.report();
        }
        let mut grid = Grid::new(["id", "tried", "subject", "route", "error"].map(str::to_owned).into());
        for letter in found {
            grid.row(&mut output, row(&letter?))?;
        }
        grid.finish(&mut output)?;
        output.flush()?;
        missing.report()
    }
}

fn row(letter: &DeadLetter) -> Vec<GridCell> {
    let text = |text: &str| GridCell::Text(printable(text).into_owned());
    let seconds = shown_time(letter.recorded_us - letter.recorded_us.rem_euclid(1_000_000)).replace(".000000", "");
    vec![
        GridCell::Number(letter.id.to_string()),
        GridCell::Text(seconds),
        text(&letter.subject),
        text(letter.route.as_deref().unwrap_or_default()),
        text(&letter.error),
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
