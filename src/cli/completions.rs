//! `catchment completions`: the script with which a shell completes commands and flags.

use std::io::Write;

use clap::Args;
use clap_complete::Shell;

use super::output::Output;
use super::settings::UnusedFileArgs;

/// Print the script with which a shell completes commands, flags and values
#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub struct Completions {
    #[command(flatten)]
    unused: UnusedFileArgs,

    /// The shell
    shell: Shell,
}

const AFTER_HELP: &str = "\
Examples, each for one user; a new shell then completes:
  catchment completions bash > ~/.local/share/bash-completion/completions/catchment
  catchment completions zsh > ~/.zfunc/_catchment     # with fpath+=~/.zfunc before compinit in ~/.zshrc
  catchment completions fish > ~/.config/fish/completions/catchment.fish";

impl Completions {
    /// Prints the script for these commands.
    pub fn run(&self, mut commands: clap::Command) -> anyhow::Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut commands, "catchment", &mut script);
        let mut output = Output::new();
        output.write_all(&script)?;
        Ok(output.flush()?)
    }
}
