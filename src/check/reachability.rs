//! Routes and queries that receive nothing: their subject is not collected, or an earlier one takes it.

use super::finding::ReportBuilder;
use crate::config::Config;
use crate::subject::Filter;

pub(super) fn check(config: &Config, report: &mut ReportBuilder<'_>) {
    let collected = filters(config.broker.subjects.iter().map(|subject| (subject.as_str(), subject.as_str())));
    let routes = filters(config.routes.iter().map(|route| (route.name(), route.subject.as_str())));
    for (name, filter) in &routes {
        if !collected.iter().any(|(_, collected)| collected.overlaps(filter)) {
            let what = format!("route {name} receives no events: {} is not in broker.subjects", filter.as_str());
            report.warning("routes", what, "add it to broker.subjects, or change the route's subject");
        }
    }
    for (earlier, later) in shadowed(&routes) {
        let what = format!("route {later} receives no events: the earlier route {earlier} takes all of them");
        report.warning("routes", what, format!("move route {later} before route {earlier}"));
    }
    let queries = filters(config.queries.iter().map(|query| (query.name(), query.subject.as_str())));
    for (earlier, later) in shadowed(&queries) {
        let what = format!("query {later} receives no requests: the earlier query {earlier} takes all of them");
        report.warning("queries", what, format!("move query {later} before query {earlier}"));
    }
}

/// Names and subjects. The subjects were validated before.
fn filters<'c>(named: impl Iterator<Item = (&'c str, &'c str)>) -> Vec<(&'c str, Filter)> {
    named.filter_map(|(name, subject)| Some((name, subject.parse().ok()?))).collect()
}

/// Pairs of an earlier filter and a later one that it covers.
fn shadowed<'c>(all: &[(&'c str, Filter)]) -> Vec<(&'c str, &'c str)> {
    let pair = |(at, (later, filter)): (usize, &(&'c str, Filter))| {
        let (earlier, _) = all[..at].iter().find(|(_, earlier)| earlier.covers(filter))?;
        Some((*earlier, *later))
    };
    all.iter().enumerate().filter_map(pair).collect()
}
