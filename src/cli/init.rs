//! `catchment init`: writes settings to begin with, and their tables.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::store::migrations::number_of;
use crate::subject::is_prefix;
use anyhow::Context;
use clap::{Args, ValueEnum};

use super::failure::UsageError;
use super::logging::{self, LogFormat};
use super::output::Output;
use super::settings::UnusedFileArgs;
use super::shell;

/// Write a commented catchment.toml and its migrations
///
/// Presets: events stores every event unchanged in table events. chat stores messages and users of a chat, with queries for a bot.
/// telemetry stores measurements of devices, with queries for the latest ones and their history.
#[derive(Args)]
pub struct Init {
    #[command(flatten)]
    unused: UnusedFileArgs,

    /// Preset to begin with
    #[arg(short, long, value_name = "NAME", default_value = "events")]
    preset: Preset,

    /// Prefix of the subjects, for example chat or bots.echo; the stream is named after it [default: the preset's name]
    #[arg(long, value_name = "PREFIX")]
    prefix: Option<String>,

    /// Folder to write to; made if it is missing
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    dir: PathBuf,

    /// Overwrite existing files
    #[arg(long)]
    force: bool,

    /// Print JSON: {"written": [files]}
    #[arg(short, long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Preset {
    Events,
    Chat,
    Telemetry,
}

impl Init {
    /// Writes the files, or none of them if one exists already.
    pub fn run(&self) -> anyhow::Result<()> {
        let prefix = self.prefix.as_deref().unwrap_or(self.preset.prefix());
        validate(prefix)?;
        let folder = if self.dir == Path::new(".") { Path::new("") } else { &self.dir };
        let files = [
            (folder.join("catchment.toml"), self.preset.settings(prefix)),
            (folder.join("migrations/001_tables.sql"), self.preset.tables().to_owned()),
        ];
        for (path, _) in &files {
            must_be_in_a_folder(path)?;
        }
        must_have_the_number(&files[1].0)?;
        let existing = files.iter().find(|(path, _)| path.exists());
        if let Some((path, _)) = existing.filter(|_| !self.force) {
            anyhow::bail!("{} exists already; overwrite it with --force, or give another --dir", path.display());
        }
        for (path, text) in &files {
            self.write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
            match (self.json, logging::format()) {
                (true, _) => {}
                (false, LogFormat::Text) => eprintln!("wrote {}", path.display()),
                (false, LogFormat::Json) => log::info!("wrote {}", path.display()),
            }
        }
        if self.json {
            let written = files.map(|(path, _)| path.display().to_string());
            let mut output = Output::new();
            writeln!(output, "{}", serde_json::json!({ "written": written }))?;
            output.flush()?;
        } else if logging::format() == LogFormat::Text {
            self.print_next_steps(prefix);
        }
        Ok(())
    }

    fn write(&self, path: &Path, text: &str) -> io::Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        // A file that was made since then is not overwritten either.
        let mut file = match OpenOptions::new().write(true).create_new(true).open(path) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists && self.force => fs::File::create(path)?,
            opened => opened?,
        };
        file.write_all(text.as_bytes())
    }

    fn print_next_steps(&self, prefix: &str) {
        let is_here = self.dir == Path::new(".");
        let mut command = if is_here { shell::program() } else { shell::program_from_elsewhere() };
        // Otherwise the file in the current directory is used.
        if std::env::var_os("CATCHMENT_CONFIG").is_some_and(|file| !file.is_empty()) {
            command.push_str(" --config catchment.toml");
        }
        let (subject, payload) = self.preset.event();
        let example = self.preset.example_command(prefix);
        eprintln!("\nRead it and change what you like. Then:\n");
        if !is_here {
            eprintln!("  cd {}", shell::word(&self.dir.to_string_lossy()));
        }
        if cfg!(feature = "check") {
            eprintln!("  {command} check --offline      check the settings and the SQL");
        }
        eprintln!("  {command} run --with-server    run a nats-server and a collector until Ctrl-C\n");
        eprintln!("And in another terminal, in the same folder:\n");
        eprintln!("  {command} publish {prefix}.{subject} '{payload}'");
        eprintln!("  {command} {example}\n");
    }
}

impl Preset {
    /// The default prefix of its subjects.
    fn prefix(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Chat => "chat",
            Self::Telemetry => "telemetry",
        }
    }

    /// Its settings, for subjects with this prefix.
    fn settings(self, prefix: &str) -> String {
        let template = match self {
            Self::Events => include_str!("init/presets/events/catchment.toml"),
            Self::Chat => include_str!("init/presets/chat/catchment.toml"),
            Self::Telemetry => include_str!("init/presets/telemetry/catchment.toml"),
        };
        // Tokens of a subject are counted from its beginning, so the prefix counts too.
        let tokens = prefix.split('.').count();
        template
            .replace("@prefix@", prefix)
            .replace("@stream@", &prefix.replace('.', "_").to_uppercase())
            .replace("@first@", &(tokens + 1).to_string())
            .replace("@second@", &(tokens + 2).to_string())
    }

    fn tables(self) -> &'static str {
        match self {
            Self::Events => include_str!("init/presets/events/001_tables.sql"),
            Self::Chat => include_str!("init/presets/chat/001_tables.sql"),
            Self::Telemetry => include_str!("init/presets/telemetry/001_tables.sql"),
        }
    }

    /// An event to try it with: the subject after the prefix, and the payload.
    fn event(self) -> (&'static str, &'static str) {
        match self {
            Self::Events => ("hello", r#"{"from": "me"}"#),
            Self::Chat => ("message.log", r#"{"username": "ada", "message": "hello"}"#),
            Self::Telemetry => ("boiler.temperature", r#"{"value": 21.5, "unit": "°C"}"#),
        }
    }

    /// The command that shows this event.
    fn example_command(self, prefix: &str) -> String {
        match self {
            Self::Events => "sql \"SELECT * FROM latest\"".into(),
            Self::Chat => format!("query {prefix}.messages.recent limit=20"),
            Self::Telemetry => format!("query {prefix}.latest device=boiler"),
        }
    }
}

/// Refuses a path below a file that is no folder.
fn must_be_in_a_folder(path: &Path) -> anyhow::Result<()> {
    let is_no_folder = |path: &&Path| path.exists() && !path.is_dir();
    match path.ancestors().skip(1).find(is_no_folder) {
        Some(file) => anyhow::bail!("{} is no folder; give another --dir", file.display()),
        None => Ok(()),
    }
}

/// Refuses a folder that has another migration with the number of this one: a collector would refuse both.
fn must_have_the_number(migration: &Path) -> anyhow::Result<()> {
    let number = number_of(migration);
    let Some(Ok(folder)) = migration.parent().map(fs::read_dir) else { return Ok(()) };
    let is_other = |path: &PathBuf| path.file_name() != migration.file_name() && number_of(path) == number;
    match folder.filter_map(|entry| Some(entry.ok()?.path())).find(is_other) {
        Some(other) => anyhow::bail!(
            "{} has the number of {}; give another --dir, or rename that file if it was not applied yet",
            other.display(),
            migration.file_name().unwrap_or_default().to_string_lossy()
        ),
        None => Ok(()),
    }
}

/// Checks that the prefix is valid in subjects and in the name of a stream.
fn validate(prefix: &str) -> anyhow::Result<()> {
    if !is_prefix(prefix) {
        return Err(UsageError(format!("--prefix {prefix:?}: expected a prefix, for example chat or bots.echo")).into());
    }
    if let Some(bad) = prefix.chars().find(|c| !(c.is_alphanumeric() || ['.', '_', '-'].contains(c))) {
        return Err(
            UsageError(format!("--prefix {prefix:?} contains {bad:?}; use letters, digits, -, _ and dots")).into()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    #[test]
    fn every_preset_is_valid_for_every_prefix() {
        for preset in Preset::value_variants() {
            for prefix in [preset.prefix(), "my.own-bot_7.x"] {
                let settings = preset.settings(prefix);
                assert!(!settings.contains('@'), "{settings}");
                let config = Config::from_toml(&settings).expect("valid").resolved().expect("a prefix");
                assert!(config.broker.subjects.iter().all(|subject| subject.starts_with(prefix)));
                let (subject, payload) = preset.event();
                let examples: Vec<_> = config.routes.iter().filter_map(|route| route.example.as_ref()).collect();
                assert_eq!(examples.is_empty(), config.routes.is_empty());
                for example in examples {
                    let shown = (format!("{prefix}.{subject}"), payload);
                    assert_eq!((&example.subject, example.payload.as_str()), (&shown.0, shown.1));
                }
            }
        }
    }

    #[test]
    fn token_numbers_of_telemetry_follow_the_prefix() {
        for (prefix, tokens) in [("a", ":token_2, :token_3"), ("a.b.c", ":token_4, :token_5")] {
            assert!(Preset::Telemetry.settings(prefix).contains(tokens));
        }
    }

    #[test]
    fn an_invalid_prefix_is_refused() {
        for prefix in ["", "a.", "a b", "a.*", "a\"b", "a/b", "{prefix}"] {
            let refused = validate(prefix).expect_err(prefix).to_string();
            assert!(refused.starts_with(&format!("--prefix {prefix:?}")), "{refused}");
        }
    }
}
