//! The dead letters of the database that the settings name.

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

/// Fails unless each letter that is selected by its number exists, before anything is changed: a mistyped number must not look
/// like success.
pub fn require_ids(letters: &DeadLetters, selection: &Selection) -> anyhow::Result<()> {
    for &id in selection.ids.iter().flatten() {
        let one = Selection { ids: Some(vec![id]), limit: None, ..selection.clone() };
        ensure!(letters.count(&one)? > 0, "no dead letter {id} meets the conditions; dead-letters list shows them");
    }
    Ok(())
}
