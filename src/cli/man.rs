//! `catchment man`: manual pages, from the help texts.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use clap_mangen::Man as Page;
use roff::{Roff, bold, roman};
use time::OffsetDateTime;

use super::failure::UsageError;
use super::output::Output;
use super::settings::UnusedFileArgs;
use crate::closest::did_you_mean;

/// Print the manual page of a command, or write all pages into a folder
#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub struct Man {
    #[command(flatten)]
    unused: UnusedFileArgs,

    /// The command, as in: dead-letters retry [default: catchment itself]
    #[arg(value_name = "COMMAND", conflicts_with = "dir")]
    command: Vec<String>,

    /// Write a page for each command into this folder, which is made if it is missing
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
}

const AFTER_HELP: &str = "\
The date of the pages is today, or that of SOURCE_DATE_EPOCH, so that packages can be built twice with the same result.

Examples:
  catchment man run | man -l -
  catchment man --dir ~/.local/share/man/man1";

impl Man {
    /// Prints or writes pages of these commands.
    pub fn run(&self, commands: clap::Command) -> anyhow::Result<()> {
        let mut commands = commands.disable_help_subcommand(true);
        commands.build();
        let date = date(std::env::var("SOURCE_DATE_EPOCH").ok().as_deref())?;
        if let Some(folder) = &self.dir {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
            return write_all(&commands, None, folder, &date);
        }
        let (mut parent, mut command) = (None, &commands);
        for name in &self.command {
            let inner = command.find_subcommand(name).ok_or_else(|| {
                let meant = did_you_mean(name, command.get_subcommands().map(clap::Command::get_name));
                let of = command.get_bin_name().unwrap_or_else(|| command.get_name());
                UsageError(format!("{of} has no command {name:?}{meant}"))
            })?;
            (parent, command) = (Some(command), inner);
        }
        let mut output = Output::new();
        output.write_all(&page(command, parent, &date)?)?;
        Ok(output.flush()?)
    }
}

fn write_all(command: &clap::Command, parent: Option<&clap::Command>, folder: &Path, date: &str) -> anyhow::Result<()> {
    let file = folder.join(format!("{}.1", name(command)));
    std::fs::write(&file, page(command, parent, date)?).with_context(|| format!("cannot write {}", file.display()))?;
    command.get_subcommands().try_for_each(|inner| write_all(inner, Some(command), folder, date))
}

/// The name of a command's page: `catchment-dead-letters-retry`.
fn name(command: &clap::Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}

/// The page in the language of man.
fn page(command: &clap::Command, parent: Option<&clap::Command>, date: &str) -> std::io::Result<Vec<u8>> {
    let source = concat!("catchment ", env!("CARGO_PKG_VERSION"));
    let page = Page::new(command.clone()).title(name(command)).date(date).source(source).manual("catchment");
    let mut text = Vec::new();
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    if command.get_arguments().any(|argument| !argument.is_hide_set()) {
        page.render_options_section(&mut text)?;
    }
    if command.has_subcommands() {
        page.render_subcommands_section(&mut text)?;
    }
    let after = command.get_after_long_help().or_else(|| command.get_after_help());
    if let Some(after) = after {
        after_help(&after.to_string()).to_writer(&mut text)?;
    }
    see_also(command, parent).to_writer(&mut text)?;
    Ok(as_one_page(&String::from_utf8_lossy(&text)).into_bytes())
}

/// The text after the options: prose as notes, indented lines unchanged, and examples in a section of their own.
fn after_help(text: &str) -> Roff {
    let mut page = Roff::new();
    let (notes, examples) = match text.split_once("Examples:\n").or_else(|| text.split_once("Example:\n")) {
        Some((notes, examples)) => (notes, examples),
        // Of an "Examples, each for …:" the first line stays.
        None => match text.find("Examples") {
            Some(at) => text.split_at(at),
            None => (text, ""),
        },
    };
    for (title, part) in [("NOTES", notes), ("EXAMPLES", examples)] {
        if part.trim().is_empty() {
            continue;
        }
        page.control("SH", [title]);
        let mut is_example = false;
        for line in part.trim_end().lines() {
            let indented = line.starts_with("  ");
            match (is_example, indented) {
                (false, true) => _ = page.control("PP", []).control("RS", ["4"]).control("nf", []),
                (true, false) => _ = page.control("fi", []).control("RE", []),
                _ => {}
            }
            is_example = indented;
            if line.trim().is_empty() {
                page.control("PP", []);
            } else {
                page.text([roman(line.trim_start())]);
                if !indented {
                    page.control("br", []);
                }
            }
        }
        if is_example {
            page.control("fi", []).control("RE", []);
        }
    }
    page
}

fn see_also(command: &clap::Command, parent: Option<&clap::Command>) -> Roff {
    let mut page = Roff::new();
    let pages: Vec<&str> = parent.into_iter().chain(command.get_subcommands()).map(name).collect();
    if pages.is_empty() {
        return page;
    }
    page.control("SH", ["SEE ALSO"]);
    for (number, name) in pages.iter().enumerate() {
        page.text([bold(*name), roman(if number + 1 == pages.len() { "(1)" } else { "(1)," })]);
    }
    page
}

/// One page of parts that each begin with a definition for apostrophes: the first is enough. Leaves out requests for space beside a heading
/// or beside more space: they mean nothing, and mandoc warns of them.
fn as_one_page(text: &str) -> String {
    let is_definition = |line: &str| line.starts_with(".ie ") || line.starts_with(".el ");
    let is_space = |line: &str| [".PP", ".br", ".sp"].contains(&line);
    let definitions = text.lines().take_while(|line| is_definition(line)).count();
    let lines = text.lines().enumerate().filter(|(number, line)| *number < definitions || !is_definition(line));
    let mut page: Vec<&str> = Vec::new();
    for (_, line) in lines {
        // An empty line is space too.
        let line = if line.is_empty() { ".sp" } else { line };
        let before = page.last().copied().unwrap_or_default();
        let is_needless = match line {
            ".br" => before.starts_with(".SH") || before == ".RE" || is_space(before),
            ".PP" => before.starts_with(".SH"),
            _ => false,
        };
        if is_needless {
            continue;
        }
        if line.starts_with(".SH") || is_space(line) {
            while page.last().is_some_and(|last| *last == ".br" || (line.starts_with(".SH") && is_space(last))) {
                page.pop();
            }
        }
        page.push(line);
    }
    while page.last().is_some_and(|last| is_space(last)) {
        page.pop();
    }
    page.join("\n") + "\n"
}

/// Today, or the day of these seconds since 1970: `2026-01-31`.
fn date(epoch: Option<&str>) -> anyhow::Result<String> {
    let day = match epoch.filter(|epoch| !epoch.is_empty()) {
        Some(epoch) => epoch
            .parse()
            .ok()
            .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
            .ok_or_else(|| {
                UsageError(format!("SOURCE_DATE_EPOCH {epoch:?}: expected seconds since 1970, for example 1767225600"))
            })?,
        None => OffsetDateTime::now_utc(),
    };
    let (year, month, day) = (day.year(), u8::from(day.month()), day.day());
    Ok(format!("{year}-{month:02}-{day:02}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_is_that_of_a_reproducible_build() {
        assert_eq!(date(Some("1767225600")).expect("a date"), "2026-01-01");
        assert_eq!(date(Some("")).expect("today"), date(None).expect("today"));
        let refused = date(Some("soon")).expect_err("no number").to_string();
        assert!(refused.contains("SOURCE_DATE_EPOCH \"soon\": expected seconds since 1970"), "{refused}");
    }

    #[test]
    fn text_behind_the_options_becomes_notes_and_examples() {
        let mut text = Vec::new();
        after_help("One.\nTwo:\n  a\n  b\nThree.\n\nExamples:\n  .c 'd'").to_writer(&mut text).expect("writes");
        let page = as_one_page(&String::from_utf8(text).expect("UTF-8"));
        let body: Vec<&str> = page.lines().skip_while(|line| !line.starts_with(".SH")).collect();
        let notes = [".SH NOTES", "One.", ".br", "Two:", ".PP", ".RS 4", ".nf", "a", "b", ".fi", ".RE", "Three."];
        let examples = [".SH EXAMPLES", ".RS 4", ".nf", "\\&.c \\*(Aqd\\*(Aq", ".fi", ".RE"];
        assert_eq!(body, [&notes[..], &examples].concat());
    }
}
