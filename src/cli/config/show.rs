//! `catchment config show`: every setting as a command would use it.

use std::borrow::Cow;
use std::io::Write;

use clap::Args;
use serde_json::Map;
use unicode_width::UnicodeWidthStr;

use crate::cli::output::Output;
use crate::cli::settings::{BrokerArgs, DatabaseArgs, Explained, Settings};
use crate::config::{Section, sections};

/// Print every setting that is in effect, as a settings file; secrets are shown as ***
///
/// These are the settings of run (without --with-server), publish and the other commands with the same flags, variables and files. A
/// setting that has no value is left out.
#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub struct Show {
    #[command(flatten)]
    database: DatabaseArgs,

    #[command(flatten)]
    broker: BrokerArgs,

    /// Add where each value comes from, as a comment; JSON has it in any case
    #[arg(long)]
    origin: bool,

    /// Print one JSON object: the settings, and where each comes from
    #[arg(short, long)]
    json: bool,
}

const AFTER_HELP: &str = "\
Origins: a flag, a variable, FILE:LINE, a context of the nats command, DATABASE.server (the server that run --with-server started), default.
JSON: {\"settings\": {as in the file}, \"origins\": {\"broker.stream\": {\"source\", \"name\", \"line\"}}}. Sources: flag, variable, file, \
context, address_file, default.
If the settings contradict each other, they are printed all the same, and the command ends with status 2 and the error.

Examples:
  catchment config show --origin
  catchment config show --context production --origin
  CATCHMENT_BROKER__STREAM=CHAT catchment config show --json";

/// Wider values push their comment to the right on their own.
const WIDEST: usize = 48;

impl Show {
    pub fn run(&self, settings: &Settings) -> anyhow::Result<()> {
        let explained = settings.explained(&self.database, &self.broker)?;
        let sections = sections(&explained.config);
        let mut output = Output::new();
        if self.json {
            serde_json::to_writer(&mut output, &as_json(&explained, &sections))?;
            writeln!(output)?;
        } else {
            output.write_all(self.as_file(&explained, &sections).as_bytes())?;
        }
        output.flush()?;
        explained.error.map_or(Ok(()), |error| Err(error.into()))
    }

    fn as_file(&self, explained: &Explained<'_>, sections: &[Section]) -> String {
        let mut text = String::new();
        for section in sections.iter().filter(|section| !section.settings.is_empty()) {
            if !text.is_empty() {
                text.push('\n');
            }
            match (section.name, section.number) {
                ("", _) => {}
                (name, None) => text.extend(["[", name, "]\n"]),
                (name, Some(_)) => text.extend(["[[", name, "]]\n"]),
            }
            let lines: Vec<String> =
                section.settings.iter().map(|(key, value)| format!("{} = {value}", bare(key))).collect();
            let last_width = |line: &String| line.lines().last().unwrap_or_default().width();
            let width = lines.iter().map(last_width).filter(|width| *width <= WIDEST).max().unwrap_or_default();
            for ((key, _), line) in section.settings.iter().zip(&lines) {
                text += line;
                if self.origin {
                    let gap = width.saturating_sub(last_width(line)) + 2;
                    // A file may have any name.
                    let origin = explained.origins.of(section, key).to_string().replace(['\n', '\r'], "?");
                    text.extend([" ".repeat(gap).as_str(), "# ", &origin]);
                }
                text.push('\n');
            }
        }
        text
    }
}

/// A key as TOML has it: in quotes unless it is a bare one. A table of the database may have any name.
fn bare(key: &str) -> Cow<'_, str> {
    let is_bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if is_bare { key.into() } else { toml::Value::String(key.to_owned()).to_string().into() }
}

fn as_json(explained: &Explained<'_>, sections: &[Section]) -> serde_json::Value {
    let (mut settings, mut origins) = (Map::new(), Map::new());
    for section in sections {
        let mut inner = Map::new();
        for (key, value) in &section.settings {
            inner.insert(key.to_string(), serde_json::to_value(value).unwrap_or_default());
            origins.insert(section.path(key), explained.origins.of(section, key).json());
        }
        if section.number.is_some() {
            let list = settings.entry(section.name).or_insert_with(|| serde_json::json!([]));
            list.as_array_mut().expect("a list of the settings").push(inner.into());
            continue;
        }
        let mut at = &mut settings;
        for name in section.name.split('.').filter(|name| !name.is_empty()) {
            let entry = at.entry(name).or_insert_with(|| serde_json::json!({}));
            at = entry.as_object_mut().expect("a table of the settings");
        }
        at.append(&mut inner);
    }
    serde_json::json!({ "settings": settings, "origins": origins })
}
