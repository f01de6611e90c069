//! The command line, one file a command: the only place that knows a terminal.
//!
//! A command is a struct of its arguments with `run(self, settings)`; [`Command`] names it. Results go to standard output
//! through [`output::Output`], everything else to standard error through the log.

#![allow(clippy::doc_markdown, reason = "the comments on arguments are help texts, where backticks would show")]

mod compare;
mod context;
mod dead_letters;
mod event_line;
pub mod failure;
mod forms;
mod init;
mod lines;
mod logging;
mod output;
mod progress;
mod publish;
mod query;
mod run;
mod settings;
mod signals;
mod sql;
mod table;
mod tail;
mod values;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use settings::Settings;

/// Records events from NATS `JetStream` in SQLite.
#[derive(Parser)]
#[command(name = "catchment", version, about = "Records events from NATS JetStream in SQLite", after_help = AFTER_HELP)]
pub struct Cli {
    /// Settings, as TOML [env: CATCHMENT_CONFIG] [default: none, every setting has a default]
    #[arg(short, long, global = true, value_name = "FILE", help_heading = "General")]
    config: Option<PathBuf>,

    #[command(flatten)]
    log: logging::LogArgs,

    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Settings: flags > --context > CATCHMENT_* variables (CATCHMENT_DATABASE__PATH is database.path) > file > NATS_* variables
> NATS_CONTEXT, else the selected context where nothing else names a server > defaults.
Exit status: 0 done, 1 failed, 2 wrong usage or configuration.";

#[derive(Subcommand)]
enum Command {
    Init(init::Init),
    Run(run::Run),
    Publish(publish::Publish),
    Query(query::Query),
    Sql(sql::Sql),
    Tail(tail::Tail),
    DeadLetters(dead_letters::DeadLetters),
    Compare(Box<compare::Compare>),
    #[command(hide = true)]
    CompareApplication(compare::Application),
}

impl Cli {
    /// Runs the command that was named, until it is done.
    pub fn run(self) -> anyhow::Result<()> {
        logging::start(&self.log);
        let settings = Settings::new(self.config)?;
        match self.command {
            Command::Init(init) => init.run(),
            Command::Run(run) => run.run(&settings),
            Command::Publish(publish) => publish.run(&settings),
            Command::Query(query) => query.run(&settings),
            Command::Sql(sql) => sql.run(&settings),
            Command::Tail(tail) => tail.run(&settings),
            Command::DeadLetters(letters) => letters.run(&settings),
            Command::Compare(compare) => compare.run(),
            Command::CompareApplication(application) => application.run(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_of_all_commands_fit_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn general_options_stand_before_or_behind_the_command() {
        for line in [["catchment", "-v", "-c", "a.toml", "tail"], ["catchment", "tail", "-v", "-c", "a.toml"]] {
            let cli = Cli::try_parse_from(line).expect("must parse");
            assert_eq!(cli.config, Some("a.toml".into()));
        }
    }
}
