//! The `catchment` command. Exit status: 0 done, 1 failed, 2 wrong usage or configuration; `check` has those of monitoring
//! plug-ins.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match cli::Cli::parse_arguments() {
        Ok(cli) => cli,
        Err(status) => return status,
    };
    match cli.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => cli::failure::report(&error),
    }
}
