//! Whether the collector that uses the database makes progress.

use std::time::Duration;

use super::finding::ReportBuilder;
use crate::config::Config;
use crate::observe::{AskError, State, ask_snapshot, may_ask};

/// How long it may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Asks the collector on its socket. A process that has none, such as a recorder, is not asked, and neither is
/// that of another user.
pub(super) fn check(config: &Config, report: &mut ReportBuilder<'_>) {
    // Another user's collector tells only that user.
    if !may_ask(&config.database.path) {
        return;
    }
    let remedy = "catchment status shows its figures";
    match ask_snapshot(&config.database.path, TIMEOUT) {
        Ok(snapshot) if snapshot.state == State::Starting => {}
        Ok(snapshot) => {
            let what = snapshot
                .reasons
                .first()
                .or(snapshot.troubles.first())
                .map(|trouble| format!("{}, for {:.0} s: {}", trouble.part, trouble.for_seconds, trouble.reason));
            match (snapshot.ready, what) {
                (false, what) => report.critical("readiness", what.unwrap_or_default(), remedy),
                (true, Some(what)) => report.warning("readiness", what, remedy),
                (true, None) => report.ok("readiness", "makes progress"),
            }
        }
        Err(AskError::NobodyRuns(_)) => {}
        Err(AskError::NoAnswer(why)) => {
            let remedy =
                "it hangs or is stopped: see its log and its state (ps); after a restart it reads on in the stream";
            report.critical("readiness", why, remedy);
        }
        Err(AskError::Failed(why)) => {
            report.warning("readiness", why, "run this as the user who runs the collector");
        }
    }
}
