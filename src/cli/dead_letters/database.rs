//! The dead letters of the database that the settings name.

use crate::hint;
use crate::store::{DeadLetters, Selection};
use anyhow::ensure;

use crate::cli::settings::{DatabaseArgs, Settings};
use crate::cli::starting::wait_for_database;

/// Opens the dead letters.
pub fn open(settings: &Settings, database: &DatabaseArgs) -> anyhow::Result<DeadLetters> {
    let path = settings.for_database(database)?.database.path;
    wait_for_database(&path);
    Ok(DeadLetters::open(&path)?)
}

/// The letters that were named by their numbers and are not there, or do not meet the other conditions.
pub struct Missing(pub Vec<i64>);

impl Missing {
    /// Looks for each letter that is selected by its number. To be called before anything is changed.
    pub fn of(letters: &DeadLetters, selection: &Selection) -> anyhow::Result<Self> {
        let mut missing = Vec::new();
        for &id in selection.ids.iter().flatten() {
            let one = Selection { ids: Some(vec![id]), limit: None, ..selection.clone() };
            if !missing.contains(&id) && letters.count(&one)? == 0 {
                missing.push(id);
            }
        }
        Ok(Self(missing))
    }

    /// Fails if there are any, once the others are done: a mistyped number must not look like success.
    pub fn report(&self) -> anyhow::Result<()> {
        let numbers: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        ensure!(
            numbers.is_empty(),
            "there is no such dead letter: {}; {} shows them",
            numbers.join(", "),
            hint::command("dead-letters list")
        );
        Ok(())
    }
}
