//! Routes and queries that nothing comes to: their subject is not collected, or one before them takes it.

use super::finding::Notebook;
use crate::config::Config;
use crate::subject::Filter;

pub(super) fn look(config: &Config, notes: &mut Notebook<'_>) {
    let collected = filters(config.broker.subjects.iter().map(|subject| (subject.as_str(), subject.as_str())));
    let routes = filters(config.routes.iter().map(|route| (route.name(), route.subject.as_str())));
    for (name, filter) in &routes {
        if !collected.iter().any(|(_, collected)| collected.overlaps(filter)) {
            let what = format!("route {name} gets no event: {} is not among broker.subjects", filter.as_str());
            notes.warning("routes", what, "add it there, or change the route's subject");
        }
    }
    for (before, behind) in hidden(&routes) {
        let what = format!("route {behind} gets no event: route {before} stands before it and takes all of them");
        notes.warning("routes", what, "put the wider one behind it");
    }
    let queries = filters(config.queries.iter().map(|query| (query.name(), query.subject.as_str())));
    for (before, behind) in hidden(&queries) {
        let what = format!("query {behind} gets no request: query {before} stands before it and takes all of them");
        notes.warning("queries", what, "put the wider one behind it");
    }
}

/// Names and subjects, which were checked.
fn filters<'c>(named: impl Iterator<Item = (&'c str, &'c str)>) -> Vec<(&'c str, Filter)> {
    named.filter_map(|(name, subject)| Some((name, subject.parse().ok()?))).collect()
}

/// Those that come too late, each behind the one that is in its way.
fn hidden<'c>(all: &[(&'c str, Filter)]) -> Vec<(&'c str, &'c str)> {
    let hider = |(at, (behind, filter)): (usize, &(&'c str, Filter))| {
        let (before, _) = all[..at].iter().find(|(_, before)| before.covers(filter))?;
        Some((*before, *behind))
    };
    all.iter().enumerate().filter_map(hider).collect()
}
