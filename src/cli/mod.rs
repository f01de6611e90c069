//! The command line, one file a command. Only this module uses the terminal.
//!
//! A command is a struct of its arguments with `run(self, settings)`; [`Command`] lists the commands. Results go to standard
//! output through [`output::Output`], everything else to standard error through the log.

#![allow(clippy::doc_markdown, reason = "comments on arguments are help texts, which show backticks")]

#[cfg(not(all(feature = "check", feature = "compare")))]
mod absent;
mod adopt;
mod backup;
#[cfg(feature = "check")]
mod check;
mod committed;
mod compact;
#[cfg(feature = "compare")]
mod compare;
mod completions;
mod config;
mod context;
mod dead_letters;
mod export;
mod failure;
mod figures;
mod flags;
mod forward;
mod gaps;
mod health;
mod hyphens;
mod identifier;
mod import;
mod infer;
mod init;
mod lines;
mod logging;
mod man;
mod output;
mod profiling;
mod progress;
mod publish;
mod quantities;
mod query;
mod reload;
mod reloading;
mod repartition;
mod replay;
mod restore;
mod retain;
mod row_writers;
mod run;
mod server_program;
mod service_manager;
mod settings;
mod shell;
mod signals;
mod spool;
mod sql;
mod starting;
mod status;
mod stream_messages;
mod table;
mod tail;
mod task_progress;
mod terminal_filter;
mod test;
mod top;
mod usage;
mod values;
mod verify;
mod version;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

use failure::UsageError;
use logging::LogFormat;
use settings::{FileArgs, Settings};

/// Records events from NATS `JetStream` in SQLite.
#[derive(Parser)]
#[command(name = "catchment", version, long_version = version::LONG.as_str(), about = "Records events from NATS JetStream in SQLite", after_help = AFTER_HELP)]
struct Cli {
    #[command(flatten)]
    file: FileArgs,

    #[command(flatten)]
    log: logging::LogArgs,

    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
To begin, run a broker and a collector in one terminal, and send an event in another:
  catchment run --with-server
  catchment publish events.hello '{\"from\": \"me\"}'
  catchment sql \"SELECT subject, payload FROM events\"

Precedence of settings, highest first: flags, --context, CATCHMENT_* variables (CATCHMENT_DATABASE__PATH is database.path), \
settings file (--config, else CATCHMENT_CONFIG, else catchment.toml in the current directory), the server that run --with-server has started for the database, NATS_* variables, NATS_CONTEXT, the selected nats context (only if nothing else names a server), defaults.
Exit status: 0 done, 1 failed, 2 wrong usage or configuration (SQL and migrations included), 130 or 143 ended by a signal. \
Of check: 0 ok, 1 warning, 2 critical, 3 unknown. Of status: 0 well, 1 degraded, 2 failed, 3 no collector runs.";

#[derive(Subcommand)]
enum Command {
    // Collect.
    Init(init::Init),
    Run(run::Run),
    Reload(reload::Reload),
    Repartition(repartition::Repartition),
    // Publish.
    Publish(publish::Publish),
    Forward(forward::Forward),
    Spool(spool::Spool),
    // Read.
    Sql(sql::Sql),
    Tail(tail::Tail),
    Query(query::Query),
    Export(export::Export),
    // Watch.
    Health(health::Health),
    Status(status::Status),
    Top(top::Top),
    #[cfg(feature = "check")]
    Check(check::Check),
    /// Not in this program: build it with the feature check, which is a default
    #[cfg(not(feature = "check"))]
    #[command(hide = true)]
    Check(absent::Absent),
    // Repair and compare.
    DeadLetters(dead_letters::DeadLetters),
    Gaps(gaps::Gaps),
    Verify(verify::Verify),
    Replay(replay::Replay),
    Import(import::Import),
    // Keep.
    Backup(backup::Backup),
    Restore(restore::Restore),
    Retain(retain::Retain),
    Compact(compact::Compact),
    Adopt(adopt::Adopt),
    // Settings.
    Config(config::Config),
    Test(test::Test),
    Infer(infer::Infer),
    // The tool itself.
    Completions(completions::Completions),
    Man(man::Man),
    #[cfg(feature = "compare")]
    Compare(Box<compare::Compare>),
    /// Not in this program: build it with the feature compare, which is a default
    #[cfg(not(feature = "compare"))]
    #[command(hide = true)]
    Compare(absent::Absent),
    #[cfg(feature = "compare")]
    #[command(hide = true)]
    CompareApplication(compare::Application),
}

/// What `check` exits with when it could not check, as monitoring plug-ins do.
const UNKNOWN: u8 = 3;

/// Runs the command that the process's arguments name, and returns its exit status.
#[must_use]
pub fn run_command() -> ExitCode {
    signals::survive_file_size_limit();
    let cli = match Cli::parse_arguments() {
        Ok(cli) => cli,
        Err(status) => return status,
    };
    match cli.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The error is the last line. Threads that are left might log something after it.
            logging::end();
            failure::report(&error)
        }
    }
}

impl Cli {
    /// The command that the arguments name. If they cannot be used, prints the reason and returns the exit status.
    fn parse_arguments() -> Result<Self, ExitCode> {
        let arguments: Vec<OsString> = std::env::args_os().collect();
        hyphens::parse(&arguments).map_err(|error| {
            let format = LogFormat::asked_for(arguments.iter().cloned());
            let commands = commands(arguments.iter().cloned());
            let is_help = error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
            if error.use_stderr() && (format == LogFormat::Json || !is_help) {
                let command = [&["catchment".to_owned()], &commands[..]].concat().join(" ");
                failure::print_as(format, &usage::line(&error, &command));
            } else {
                // If standard error is closed, the exit status is still set.
                if let Err(unwritten) = error.print()
                    && !error.use_stderr()
                    && unwritten.kind() != std::io::ErrorKind::BrokenPipe
                {
                    failure::print_as(format, &format!("standard output: {unwritten}"));
                    return ExitCode::FAILURE;
                }
            }
            let status = u8::try_from(error.exit_code()).unwrap_or(2);
            let of_check = status != 0 && commands.first().is_some_and(|name| name == "check");
            ExitCode::from(if of_check { UNKNOWN } else { status })
        })
    }

    /// Runs the command to its end.
    fn run(self) -> anyhow::Result<()> {
        logging::start(&self.log);
        let settings = self.settings();
        #[cfg(feature = "check")]
        if let (Command::Check(check), Err(error)) = (&self.command, &settings)
            && let Some(error) = error.downcast_ref()
        {
            return check.report_invalid_settings(error);
        }
        let settings = settings?;
        match self.command {
            Command::Init(init) => init.run(),
            Command::Run(run) => run.run(&settings),
            Command::Reload(reload) => reload.run(&settings),
            Command::Repartition(repartition) => repartition.run(&settings),
            Command::Publish(publish) => publish.run(&settings),
            Command::Forward(forward) => forward.run(&settings),
            Command::Spool(spool) => spool.run(&settings),
            Command::Query(query) => query.run(&settings),
            Command::Sql(sql) => sql.run(&settings),
            Command::Tail(tail) => tail.run(&settings),
            Command::Health(health) => health.run(&settings),
            Command::Test(test) => test.run(&settings),
            Command::Infer(infer) => infer.run(&settings),
            Command::DeadLetters(letters) => letters.run(&settings),
            Command::Export(export) => export.run(&settings),
            Command::Import(import) => import.run(&settings),
            Command::Backup(backup) => backup.run(&settings),
            Command::Restore(restore) => restore.run(&settings),
            Command::Status(status) => status.run(&settings),
            Command::Top(top) => top.run(&settings),
            #[cfg(feature = "check")]
            Command::Check(check) => check.run(&settings),
            #[cfg(not(feature = "check"))]
            Command::Check(absent) => absent.refuse("check", UNKNOWN),
            Command::Config(config) => config.run(&settings),
            Command::Retain(retain) => retain.run(&settings),
            Command::Compact(compact) => compact.run(&settings),
            Command::Replay(replay) => replay.run(&settings),
            Command::Gaps(gaps) => gaps.run(&settings),
            Command::Verify(verify) => verify.run(&settings),
            Command::Adopt(adopt) => adopt.run(&settings),
            Command::Completions(completions) => completions.run(shown_commands()),
            Command::Man(man) => man.run(shown_commands()),
            #[cfg(feature = "compare")]
            Command::Compare(compare) => compare.run(),
            #[cfg(not(feature = "compare"))]
            Command::Compare(absent) => absent.refuse("compare", 2),
            #[cfg(feature = "compare")]
            Command::CompareApplication(application) => application.run(),
        }
    }

    /// The settings of the command; of one that reads none, nothing.
    fn settings(&self) -> anyhow::Result<Settings> {
        let command = match &self.command {
            Command::Init(_) => "init",
            Command::Config(config::Config { action: config::Action::Schema(_) }) => "config schema",
            Command::Completions(_) => "completions",
            Command::Man(_) => "man",
            #[cfg(feature = "compare")]
            Command::Compare(_) => "compare",
            #[cfg(feature = "compare")]
            Command::CompareApplication(_) => "compare-application",
            #[cfg(not(feature = "compare"))]
            Command::Compare(_) => return Ok(Settings::default()),
            #[cfg(not(feature = "check"))]
            Command::Check(_) => return Ok(Settings::default()),
            // What they do depends on the whole file. The others would repeat the line for every event and every look.
            #[cfg(feature = "check")]
            Command::Check(_) => return Ok(Settings::new(&self.file, log::Level::Info)?),
            Command::Run(_) | Command::Forward(_) => return Ok(Settings::new(&self.file, log::Level::Info)?),
            _ => return Ok(Settings::new(&self.file, log::Level::Debug)?),
        };
        if self.file.is_named() {
            return Err(UsageError(format!("{command} reads no settings file; leave out --config")).into());
        }
        Ok(Settings::default())
    }
}

/// All commands that help lists, for completions and pages.
fn shown_commands() -> clap::Command {
    let all = Cli::command();
    let shown: Vec<clap::Command> = all.get_subcommands().filter(|one| !one.is_hide_set()).cloned().collect();
    let arguments: Vec<clap::Arg> = all.get_arguments().cloned().collect();
    let mut commands = clap::Command::new("catchment").args(arguments).subcommands(shown).subcommand_required(true);
    commands = commands.version(env!("CARGO_PKG_VERSION")).after_help(AFTER_HELP);
    if let Some(about) = all.get_about() {
        commands = commands.about(about.clone());
    }
    commands
}

/// The command that arguments name which cannot be parsed as a whole: `["dead-letters", "drop"]`.
fn commands(arguments: impl Iterator<Item = OsString>) -> Vec<String> {
    let parsed = Cli::command().ignore_errors(true).try_get_matches_from(arguments).ok();
    let mut matches = parsed.as_ref();
    std::iter::from_fn(|| {
        let (name, inner) = matches?.subcommand()?;
        matches = Some(inner);
        Some(name.to_owned())
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_of_all_commands_fit_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_command_of_wrong_arguments_is_known() {
        let named = |line: &str| commands(line.split(' ').map(OsString::from)).join(" ");
        assert_eq!(named("catchment check --format xml"), "check");
        assert_eq!(named("catchment -c check.toml check --nonsense"), "check");
        assert_eq!(named("catchment publish check --nonsense"), "publish");
        assert_eq!((named("catchment -c check run -x"), named("catchment")), ("run".into(), String::new()));
        assert_eq!(named("catchment dead-letters drop --nonsense"), "dead-letters drop");
    }

    /// The line for these arguments.
    fn refused(words: &[&str]) -> String {
        let arguments: Vec<OsString> = ["catchment"].iter().chain(words).map(OsString::from).collect();
        let error = hyphens::parse::<Cli>(&arguments).err().unwrap_or_else(|| panic!("{words:?} must be refused"));
        let mut command = vec!["catchment".to_owned()];
        command.extend(commands(arguments.into_iter()));
        usage::line(&error, &command.join(" "))
    }

    #[test]
    fn wrong_usage_is_one_line_with_the_argument_and_the_way_out() {
        for (words, said) in [
            (&["run", "--nonsense"][..], "there is no option --nonsense; catchment run --help lists the options"),
            (&["sql", "--jsn", "SELECT 1"], "there is no option --jsn; did you mean --json?"),
            (&["run", "--pasword=hunter2"], "there is no option --pasword; did you mean --password?"),
            (&["run", "--nope"], "there is no option --nope; catchment run --help lists the options"),
            (&["run", "--databse", "a"], "there is no option --databse; did you mean --database?"),
            (&["run", "now"], "\"now\" is one argument too many; catchment run --help describes the arguments"),
            (&["publsh"], "there is no command \"publsh\"; did you mean publish?"),
            (&["frobnicate"], "there is no command \"frobnicate\"; catchment --help lists the commands"),
            (&["dead-letters", "dorp"], "there is no command \"dorp\"; did you mean drop?"),
            (&["test"], "FILE is missing; catchment test --help describes the arguments"),
            (&["run", "--stream"], "--stream needs a value; catchment run --help describes the arguments"),
            (&["sql", "--csv", "--json", "x"], "--csv cannot be combined with --json; leave one of them out"),
            (&["run", "--drain", "--drain"], "--drain is given twice; give it once"),
            (&["run", "--timeout", "5"], "--timeout \"5\": expected a time with its unit, for example 5s or 5ms"),
            (&["publish", "a", "--rate", "0"], "--rate \"0\": expected a whole number of at least 1, for example 1000"),
            (&["dead-letters", "show", "x"], "ID \"x\": expected a whole number, for example 17"),
            (
                &["dead-letters", "list", "--subject", "a..b"],
                "--subject \"a..b\": expected a subject, for example chat",
            ),
            (&["tail", "--log-format", "xml"], "--log-format \"xml\": expected text or json"),
            (&["init", "-p", "x"], "--preset \"x\": expected events, chat or telemetry"),
        ] {
            let line = refused(words);
            assert!(line.starts_with(said), "{words:?}: {line}");
        }
    }

    /// Every command with its subcommands, each with the words that lead to it.
    fn all_commands(command: &clap::Command, path: &[String]) -> Vec<(Vec<String>, clap::Command)> {
        let inner = command.get_subcommands().flat_map(|inner| {
            let path = [path, &[inner.get_name().to_owned()]].concat();
            all_commands(inner, &path)
        });
        std::iter::once((path.to_vec(), command.clone())).chain(inner).collect()
    }

    #[test]
    fn no_value_is_refused_in_the_words_of_a_parser() {
        let mut refused_values = 0;
        for (path, command) in all_commands(&Cli::command(), &[]) {
            for argument in command.get_arguments().filter(|argument| argument.get_action().takes_values()) {
                let value = argument.get_long().map_or("?!".to_owned(), |long| format!("--{long}=?!"));
                let words: Vec<&str> = path.iter().map(String::as_str).chain([&*value]).collect();
                let arguments: Vec<OsString> = ["catchment"].iter().chain(&words).map(OsString::from).collect();
                let kind = hyphens::parse::<Cli>(&arguments).err().map(|error| error.kind());
                if !matches!(kind, Some(ErrorKind::ValueValidation | ErrorKind::InvalidValue)) {
                    continue;
                }
                refused_values += 1;
                let line = refused(&words);
                assert!(line.contains("\"?!\": expected "), "{words:?}: {line}");
                assert!(line.contains("for example ") || line.contains(" or ") || line.contains("one of "), "{line}");
            }
        }
        assert!(refused_values > 25, "{refused_values}");
    }

    #[test]
    fn help_has_no_line_break_within_a_sentence() {
        for (path, command) in all_commands(&Cli::command(), &[]) {
            let texts = [command.get_after_help(), command.get_long_about()];
            for text in texts.into_iter().flatten().map(ToString::to_string) {
                for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with("  ")) {
                    assert!(line.ends_with(['.', ':', '}', ')']) || text.starts_with(line), "{path:?}: {line}");
                }
            }
        }
    }

    #[test]
    fn commands_that_read_no_settings_have_no_option_for_them() {
        for name in ["init", "compare"] {
            let arguments = ["catchment", name, "--help"].map(OsString::from);
            let help = hyphens::parse::<Cli>(&arguments).err().expect("help").to_string();
            assert!(!help.contains("--config") && help.contains("--log-format"), "{help}");
        }
    }

    #[cfg(not(feature = "compare"))]
    #[test]
    fn a_command_that_was_left_out_is_known_by_name() {
        for line in ["catchment compare", "catchment compare --help", "catchment compare --arms jetstream x"] {
            let cli = Cli::try_parse_from(line.split(' ')).expect("must parse");
            assert!(matches!(cli.command, Command::Compare(absent::Absent { .. })), "{line}");
        }
        let help = Cli::command()
            .find_subcommand("compare")
            .and_then(|command| command.get_about())
            .expect("help")
            .to_string();
        assert!(help.contains("build it with the feature compare"), "{help}");
    }

    #[test]
    fn values_may_begin_with_a_hyphen_and_options_are_still_checked() {
        let parsed = |line: &[&str]| {
            let arguments: Vec<OsString> = ["catchment"].iter().chain(line).map(OsString::from).collect();
            hyphens::parse::<Cli>(&arguments).map(|cli| cli.command)
        };
        for payload in ["-3.5", "-10", "-1e-05", "-.5", "-5,3", "-12°C", "- a", "-", "", "-- a"] {
            let command = parsed(&["publish", "events.a", payload, "-H", "A:-1"]).expect(payload);
            assert!(matches!(command, Command::Publish(publish) if publish.payload().is_some_and(|of| of == payload)));
        }
        assert!(matches!(parsed(&["publish", "a", "--", "-x"]), Ok(Command::Publish(of)) if of.payload().is_some()));
        assert!(parsed(&["sql", "-- how many\nSELECT 1", "--json"]).is_ok());
        for (line, refused) in [
            (&["publish", "events.a", "--idd", "7"][..], "'--idd'"),
            (&["publish", "events.a", "-1e-05", "--idd", "7"], "'--idd'"),
            (&["publish", "events.a", "-x"], "'-x'"),
            (&["sql", "--jsn", "SELECT 1"], "'--jsn'"),
            (&["tail", "-7"], "'-7'"),
        ] {
            let error = parsed(line).err().expect("must be refused").to_string();
            assert!(error.contains(&format!("unexpected argument {refused} found")), "{error}");
        }
    }

    #[test]
    fn general_options_are_accepted_before_and_after_the_command() {
        for line in [["catchment", "-v", "-c", "a.toml", "tail"], ["catchment", "tail", "-v", "-c", "a.toml"]] {
            let cli = Cli::try_parse_from(line).expect("must parse");
            assert!(cli.file.is_named());
        }
    }
}
