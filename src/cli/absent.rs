//! A command that this build does not have. It is known by name, so that the error can say how to get it.

use std::ffi::OsString;

use clap::Args;

use super::failure::{self, ExitStatus};

/// The arguments of a command that is not here
#[derive(Args)]
#[command(disable_help_flag = true)]
pub struct Absent {
    /// Whatever the command would take
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

impl Absent {
    /// Prints which feature has the command; fails with this exit status.
    pub fn refuse(&self, feature: &str, status: u8) -> anyhow::Result<()> {
        // The arguments may hold secrets.
        log::debug!("{feature} was called with {} arguments", self.arguments.len());
        failure::print(&format!(
            "this program was built without the command {feature}; build it with the feature {feature}, which is a default"
        ));
        Err(ExitStatus(status).into())
    }
}
