//! The log on standard error, as text or JSON.

mod fields;
mod limiter;

use std::ffi::OsString;
use std::io::{self, Write};
use std::sync::OnceLock;
use std::time::Instant;

use clap::{Args, ValueEnum};
use env_logger::fmt::Formatter;
use log::{LevelFilter, Record};
use serde::Serialize;
use serde_json::{Map, Value};

use limiter::{Limiter, Verdict};
use parking_lot::{Mutex, RwLock};

use super::progress;
use super::values::{printable, shown_time};
use crate::unix_time::now_us;

/// How much is logged, and in which format.
#[derive(Args)]
pub struct LogArgs {
    /// Format of the log on standard error [env: CATCHMENT_LOG_FORMAT] [default: text]
    #[arg(long, global = true, value_name = "FORMAT", value_enum, ignore_case = true, help_heading = "General")]
    log_format: Option<LogFormat>,

    /// Log debug messages and their modules (finer control: CATCHMENT_LOG, else RUST_LOG)
    #[arg(short, long, global = true, conflicts_with = "quiet", help_heading = "General")]
    verbose: bool,

    /// Log errors only
    #[arg(short, long, global = true, help_heading = "General")]
    quiet: bool,
}

/// The format of the log, and of all else on standard error that is not for a person at a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Time, level and message
    Text,
    /// One object a line: time, level, target, message; event and its fields, see docs/logs.md
    Json,
}

/// The variables that have the levels of the log; the first one that is not empty counts.
const LEVEL_VARIABLES: [&str; 2] = ["CATCHMENT_LOG", "RUST_LOG"];

/// The variable that has the format of the log.
const FORMAT_VARIABLE: &str = "CATCHMENT_LOG_FORMAT";

/// The format that [`start`] was called with.
static FORMAT: OnceLock<LogFormat> = OnceLock::new();

impl LogFormat {
    /// The format that arguments ask for which cannot be parsed as a whole.
    pub fn asked_for(arguments: impl Iterator<Item = OsString>) -> Self {
        let words: Vec<String> = arguments.map(|word| word.to_string_lossy().into_owned()).collect();
        let flags = words.iter().take_while(|word| *word != "--").enumerate();
        let values = flags.filter_map(|(at, word)| match word.strip_prefix("--log-format")? {
            "" => words.get(at + 1).cloned(),
            value => value.strip_prefix('=').map(str::to_owned),
        });
        values.last().and_then(|value| Self::from_str(&value, true).ok()).unwrap_or_else(|| Self::of_variable().0)
    }

    /// The format that `CATCHMENT_LOG_FORMAT` names, else text. Also what is wrong with the variable.
    fn of_variable() -> (Self, Option<String>) {
        let value = std::env::var_os(FORMAT_VARIABLE).unwrap_or_default().to_string_lossy().into_owned();
        match Self::from_str(&value, true) {
            Ok(format) => (format, None),
            Err(_) if value.is_empty() => (Self::Text, None),
            Err(_) => {
                let mistake = format!("{FORMAT_VARIABLE}: {value:?} is no format; formats are text and json");
                (Self::Text, Some(mistake))
            }
        }
    }
}

/// The format of the log; text before the log is started.
pub fn format() -> LogFormat {
    FORMAT.get().copied().unwrap_or(LogFormat::Text)
}

/// Starts the log. For its level, flags precede the environment. In the format JSON a panic is a line of JSON too.
pub fn start(args: &LogArgs) {
    let (format, mistake) = args.log_format.map_or_else(LogFormat::of_variable, |format| (format, None));
    let _ = FORMAT.set(format);
    let given = LEVEL_VARIABLES
        .iter()
        .find_map(|name| Some((name, std::env::var_os(name)?)).filter(|(_, levels)| !levels.is_empty()));
    let mut builder = env_logger::Builder::new();
    builder.filter_level(LevelFilter::Warn).filter_module("catchment", LevelFilter::Info);
    let mut mistakes = Vec::from_iter(mistake);
    if args.quiet {
        builder.filter_level(LevelFilter::Error).filter_module("catchment", LevelFilter::Error);
    } else if let Some((name, levels)) = given {
        let levels = Levels::of(&levels.to_string_lossy());
        if let Some(level) = levels.of_all {
            builder.filter_level(level).filter_module("catchment", level);
        }
        builder.parse_filters(&levels.valid);
        mistakes.extend(levels.mistakes.into_iter().map(|mistake| format!("{name}: {mistake}")));
    }
    if args.verbose {
        builder.filter_module("catchment", LevelFilter::Debug);
    }
    let verbose = args.verbose;
    match format {
        LogFormat::Text => builder.format(move |to, record| text(to, record, verbose)),
        LogFormat::Json => {
            progress::hide();
            builder.format(json)
        }
    };
    let logger = builder.build();
    let limiter = (!verbose).then(Mutex::default);
    log::set_max_level(logger.filter());
    // This fails only if there is a logger already; the command installs no other.
    let _ = log::set_boxed_logger(Box::new(AboveProgress { logger, limiter }));
    if format == LogFormat::Json {
        std::panic::set_hook(Box::new(|panic| {
            let thread = std::thread::current();
            let one_line = panic.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
            // If standard error is closed, there is nobody to inform.
            let _ = write_error(&format!("thread {} {one_line}", thread.name().unwrap_or("without a name")));
        }));
    }
    for mistake in mistakes {
        log::warn!(event = "log.misconfigured", mistake = mistake; "{mistake}");
    }
}

/// Whether there may be further lines. Held while one is written.
static IS_OPEN: RwLock<bool> = RwLock::new(true);

/// Writes no more lines. Returns when those that are being written are complete.
pub fn end() {
    *IS_OPEN.write() = false;
}

/// Writes a line of JSON of level error to standard error, whatever the level of the log.
pub fn write_error(message: &str) -> io::Result<()> {
    let line = LogLine {
        time: shown_time(now_us()),
        level: log::Level::Error.as_str(),
        target: "catchment",
        message: message.to_owned(),
        fields: Map::new(),
    };
    let mut line = serde_json::to_vec(&line)?;
    line.push(b'\n');
    io::stderr().write_all(&line)
}

/// The levels of a variable: `warn,catchment=debug`, see
/// <https://docs.rs/env_logger/latest/env_logger/#enabling-logging>.
#[derive(Debug, Default, PartialEq, Eq)]
struct Levels {
    /// The level of all modules that are not named.
    of_all: Option<LevelFilter>,
    /// The parts that are valid.
    valid: String,
    /// What is wrong with the others.
    mistakes: Vec<String>,
}

impl Levels {
    fn of(text: &str) -> Self {
        let mut found = Self::default();
        let (parts, words) = match text.split_once('/') {
            Some((parts, words)) => (parts, Some(words)),
            None => (text, None),
        };
        let mut valid = Vec::new();
        for part in parts.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (module, level) = match part.split_once('=') {
                Some((module, level)) => (Some(module.trim()), level.trim()),
                None => (None, part),
            };
            match (module, level.parse::<LevelFilter>()) {
                (None, Ok(level)) => found.of_all = Some(level),
                (Some(""), _) | (Some(_), Err(_)) => {
                    found.mistakes.push(format!("{part:?} is not used: {level:?} is no level; {LEVELS}"));
                    continue;
                }
                // All messages of a module.
                (None, Err(_)) if is_module(part) => {}
                (None, Err(_)) => {
                    found.mistakes.push(format!("{part:?} is not used: it is no level and no module; {LEVELS}"));
                    continue;
                }
                (Some(_), Ok(_)) => {}
            }
            valid.push(part);
        }
        found.valid = valid.join(",");
        match words {
            Some(words) if words.contains('/') => found.mistakes.push(format!("{words:?} is not used: it has a /")),
            Some(words) => found.valid = format!("{}/{words}", found.valid),
            None => {}
        }
        found
    }
}

const LEVELS: &str = "levels are error, warn, info, debug, trace and off, as in warn,catchment=debug";

/// Whether a word names a module that this program may have: `catchment`, `nats::proto`.
fn is_module(word: &str) -> bool {
    let is_name = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    word.split("::").all(is_name) && (word.contains("::") || ["catchment", "nats", "r2d2", "rustls"].contains(&word))
}

/// Hides messages of level info, unless --verbose or a variable asks for more.
pub fn hide_information() {
    if log::max_level() == LevelFilter::Info {
        log::set_max_level(LevelFilter::Warn);
    }
}

/// Hides the progress while a line is logged, so that the two do not share a line.
struct AboveProgress {
    logger: env_logger::Logger,
    /// None with --verbose.
    limiter: Option<Mutex<Limiter>>,
}

impl log::Log for AboveProgress {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        self.logger.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        let is_open = IS_OPEN.read_recursive();
        if !*is_open || !self.logger.matches(record) {
            return;
        }
        let Some(limiter) = &self.limiter else { return progress::aside(|| self.logger.log(record)) };
        let Verdict { is_logged, left_out } = limiter.lock().judge(record, Instant::now());
        progress::aside(|| {
            for left_out in left_out {
                left_out.log(&self.logger);
            }
            if is_logged {
                self.logger.log(record);
            }
        });
    }

    fn flush(&self) {
        self.logger.flush();
    }
}

fn text(to: &mut Formatter, record: &Record<'_>, verbose: bool) -> io::Result<()> {
    let style = to.default_level_style(record.level());
    let (time, message) = (to.timestamp_seconds(), record.args().to_string());
    write!(to, "{time} {style}{:<5}{style:#} ", record.level())?;
    if verbose {
        write!(to, "[{}] ", record.target())?;
    }
    writeln!(to, "{}", printable(&message))
}

fn json(to: &mut Formatter, record: &Record<'_>) -> io::Result<()> {
    let line = LogLine {
        time: to.timestamp_micros().to_string(),
        level: record.level().as_str(),
        target: record.target(),
        message: record.args().to_string(),
        fields: fields::of(record),
    };
    serde_json::to_writer(&mut *to, &line)?;
    writeln!(to)
}

#[derive(Serialize)]
struct LogLine<'a> {
    time: String,
    level: &'a str,
    target: &'a str,
    message: String,
    /// `event`, and the fields of the event.
    #[serde(flatten)]
    fields: Map<String, Value>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_found_among_arguments_that_are_wrong() {
        let asked = |line: &str| LogFormat::asked_for(line.split(' ').map(OsString::from));
        assert_eq!(asked("catchment run --nonsense --log-format json"), LogFormat::Json);
        assert_eq!(asked("catchment --log-format=json rum"), LogFormat::Json);
        assert_eq!(asked("catchment run --log-format"), LogFormat::Text);
        assert_eq!(asked("catchment run --log-format xml"), LogFormat::Text);
        assert_eq!(asked("catchment publish -- --log-format json"), LogFormat::Text);
    }

    #[test]
    fn levels_that_are_valid_count_and_the_others_are_named() {
        let of = |text| {
            let Levels { of_all, valid, mistakes } = Levels::of(text);
            (of_all, valid, mistakes.join(" | "))
        };
        let none = String::new;
        assert_eq!(of("debug"), (Some(LevelFilter::Debug), "debug".into(), none()));
        assert_eq!(of("warn, catchment=debug"), (Some(LevelFilter::Warn), "warn,catchment=debug".into(), none()));
        assert_eq!(of("nats=trace/word"), (None, "nats=trace/word".into(), none()));
        assert_eq!(of("catchment::broker,OFF"), (Some(LevelFilter::Off), "catchment::broker,OFF".into(), none()));
        let (of_all, valid, mistakes) = of("inof,catchment=lots,=debug,warn");
        assert_eq!((of_all, &*valid), (Some(LevelFilter::Warn), "warn"));
        for words in ["\"inof\" is not used: it is no level and no module", "\"lots\" is no level", "\"=debug\""] {
            assert!(mistakes.contains(words), "{mistakes}");
        }
        assert!(of("debug/a/b").2.contains("\"a/b\" is not used"));
    }
}
