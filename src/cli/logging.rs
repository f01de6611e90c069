//! The log on standard error, as text or JSON.

use std::io::{self, Write};

use clap::{Args, ValueEnum};
use env_logger::fmt::Formatter;
use log::{LevelFilter, Record};
use serde::Serialize;

use super::progress;
use super::values::printable;

/// How much is logged, and in which format.
#[derive(Args)]
pub struct LogArgs {
    /// Format of the log on standard error
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        value_enum,
        default_value = "text",
        env = "CATCHMENT_LOG_FORMAT",
        help_heading = "General"
    )]
    log_format: LogFormat,

    /// Log debug messages and their modules (finer control: CATCHMENT_LOG, else RUST_LOG)
    #[arg(short, long, global = true, conflicts_with = "quiet", help_heading = "General")]
    verbose: bool,

    /// Log errors only
    #[arg(short, long, global = true, help_heading = "General")]
    quiet: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// Time, level and message
    Text,
    /// One object a line: time, level, target, message
    Json,
}

/// Starts the log. For its level, flags precede the environment.
pub fn start(args: &LogArgs) {
    let filters = ["CATCHMENT_LOG", "RUST_LOG"].iter().find_map(|name| std::env::var(name).ok());
    let mut builder = env_logger::Builder::new();
    match filters.filter(|filters| !filters.is_empty() && !args.quiet) {
        Some(filters) => builder.parse_filters(&filters),
        None => builder.filter_level(LevelFilter::Warn).filter_module("catchment", LevelFilter::Info),
    };
    if args.quiet {
        builder.filter_level(LevelFilter::Error).filter_module("catchment", LevelFilter::Error);
    }
    if args.verbose {
        builder.filter_module("catchment", LevelFilter::Debug);
    }
    let verbose = args.verbose;
    match args.log_format {
        LogFormat::Text => builder.format(move |to, record| text(to, record, verbose)),
        LogFormat::Json => {
            progress::hide();
            builder.format(json)
        }
    };
    let logger = builder.build();
    log::set_max_level(logger.filter());
    // This fails only if there is a logger already; the command installs no other.
    let _ = log::set_boxed_logger(Box::new(AboveProgress(logger)));
}

/// Hides messages of level info, unless --verbose or a variable asks for more.
pub fn hide_information() {
    if log::max_level() == LevelFilter::Info {
        log::set_max_level(LevelFilter::Warn);
    }
}

/// Hides the progress while a line is logged, so that the two do not share a line.
struct AboveProgress(env_logger::Logger);

impl log::Log for AboveProgress {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        self.0.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if self.0.matches(record) {
            progress::aside(|| self.0.log(record));
        }
    }

    fn flush(&self) {
        self.0.flush();
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
}
