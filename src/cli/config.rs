//! `catchment config`: the effective settings, and their schema.

mod schema;
mod show;

use clap::{Args, Subcommand};

use super::settings::Settings;

/// Show the effective settings and where they come from, or the schema of the settings file
#[derive(Args)]
pub struct Config {
    #[command(subcommand)]
    pub action: Action,
}

#[derive(Subcommand)]
pub enum Action {
    Show(Box<show::Show>),
    Schema(schema::Schema),
}

impl Config {
    pub fn run(self, settings: &Settings) -> anyhow::Result<()> {
        match self.action {
            Action::Show(show) => show.run(settings),
            Action::Schema(_) => schema::run(),
        }
    }
}
