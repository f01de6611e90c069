//! Subjects that are given twice, and routes and queries that receive nothing.

use super::finding::ReportBuilder;
use crate::config::Config;

pub(super) fn check(config: &Config, report: &mut ReportBuilder<'_>) {
    for redundant in config.broker.redundant_subjects() {
        report.ok("settings", redundant.to_string());
    }
    for unreachable in config.unreachable() {
        report.warning(unreachable.section, unreachable.what, unreachable.remedy);
    }
}
