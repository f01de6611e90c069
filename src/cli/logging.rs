//! The log on standard error, for eyes or as JSON.

use std::io::{self, Write};

use clap::{Args, ValueEnum};
use env_logger::fmt::Formatter;
use log::{LevelFilter, Record};
use serde::Serialize;

use super::progress;
use super::values::printable;

/// How much is logged, and how it looks.
#[derive(Args)]
pub struct LogArgs {
    /// How log lines on standard error look
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

    /// Log more, and where in the program it comes from (finer: RUST_LOG, or CATCHMENT_LOG above it)
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

/// Starts the log. What flags say about its level outranks the environment.
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
        LogFormat::Json => builder.format(json),
    };
    let logger = builder.build();
    log::set_max_level(logger.filter());
    // The first logger stays; there is no second one in this program.
    let _ = log::set_boxed_logger(Box::new(AboveProgress(logger)));
}

/// Leaves out what is only told for information, unless more was asked for.
pub fn quieten() {
    if log::max_level() == LevelFilter::Info {
        log::set_max_level(LevelFilter::Warn);
    }
}

/// Takes the progress line away while a line is logged, so that the two do not stand on one line.
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
