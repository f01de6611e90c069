//! The permissions of the present user at the broker.

use super::finding::{Finding, Report, ReportBuilder};
use crate::broker::{Access, Permission, Verdict, probe};
use crate::config::Config;

/// Finds out which of these permissions the present user has. Calls `on_finding` with each finding. Changes nothing, and blocks twice for
/// `broker.timeout` at most.
pub fn check_permissions(config: &Config, permissions: &[Permission], on_finding: &mut dyn FnMut(&Finding)) -> Report {
    let mut report = ReportBuilder::new(on_finding);
    match probe(&config.broker, permissions) {
        Ok(verdicts) => {
            for (permission, verdict) in permissions.iter().zip(verdicts) {
                add(permission, verdict, &mut report);
            }
        }
        Err(error) => report.error("broker", &error),
    }
    report.finish()
}

fn add(permission: &Permission, verdict: Verdict, report: &mut ReportBuilder<'_>) {
    let Permission { access, subject, purpose, only_if, .. } = permission;
    let access = match access {
        Access::Publish => "publish",
        Access::Subscribe => "subscribe",
    };
    let of = format!("{access} {subject}");
    match (verdict, only_if) {
        (Verdict::Allowed, None) => report.ok("permissions", format!("{of}: allowed ({purpose})")),
        (Verdict::Allowed, Some(case)) => {
            report.ok("permissions", format!("{of}: allowed ({purpose}); needed only if {case}"));
        }
        (Verdict::Denied, Some(case)) => {
            report.ok("permissions", format!("{of}: denied ({purpose}); needed only if {case}"));
        }
        (Verdict::Denied, None) => {
            report.critical("permissions", format!("{of}: denied ({purpose})"), "allow it in the server's settings");
        }
        (Verdict::NotTested, _) => {
            let why = "a test would be an event or a request";
            report.ok("permissions", format!("{of}: not tested, because {why} ({purpose})"));
        }
    }
}
