//! The subjects that a stream stores. They may differ from the subjects that it receives: a stream, a mirror or a
//! source may rename them (<https://docs.nats.io/nats-concepts/subject_mapping>). Consumers filter by the stored
//! subjects.

use super::api_types::{StreamConfig, SubjectTransform, UpstreamStream};
use super::obstacle::Obstacle;
use super::partition::{self, Layout};
use crate::config::BrokerConfig;
use crate::subject::Filter;

/// The subjects that a stream with these settings stores, as filters; `None` if a mirror or a source may copy any subject.
pub(super) fn subjects(config: &StreamConfig) -> Option<Vec<String>> {
    let mut taken: Vec<String> = config.subjects.clone();
    for upstream in config.mirror.iter().chain(config.sources.iter().flatten()) {
        taken.extend(upstream_subjects(upstream)?);
    }
    let mut stored = Vec::new();
    for subject in taken {
        let renamed = config.subject_transform.as_ref().map_or(Renamed::No, |transform| rename(transform, &subject));
        match renamed {
            Renamed::No => stored.push(subject),
            Renamed::Some(new) => stored.extend([subject, new]),
            Renamed::All(new) => stored.push(new),
        }
    }
    stored.dedup();
    Some(stored)
}

/// Filters for the events that are collected from a stream with these settings: if the configured ones say everything, the
/// subjects that the stream stores, if these are known. Without the numbers of partitions.
pub(super) fn collected(config: &BrokerConfig, stream: &StreamConfig) -> Vec<String> {
    let all = if config.takes_all_of_stream() { subjects(stream) } else { None };
    let published = |all: Vec<String>| {
        let mut all: Vec<String> = all.iter().map(|subject| partition::published(config, subject).to_owned()).collect();
        all.dedup();
        all
    };
    all.map_or_else(|| config.filters(), published)
}

/// The subjects that a mirror or a source copies; `None`: all.
fn upstream_subjects(upstream: &UpstreamStream) -> Option<Vec<String>> {
    let transforms = upstream.subject_transforms.as_deref().unwrap_or_default();
    if transforms.is_empty() {
        return (!upstream.filter_subject.is_empty()).then(|| vec![upstream.filter_subject.clone()]);
    }
    let upstream_subjects = transforms.iter().map(|transform| match rename(transform, transform.source()) {
        Renamed::No => transform.source().to_owned(),
        Renamed::Some(new) | Renamed::All(new) => new,
    });
    Some(upstream_subjects.collect())
}

/// Whether a transform renames the subjects of a filter.
#[derive(Debug, PartialEq, Eq)]
enum Renamed {
    No,
    /// Some subjects of the filter, to this one.
    Some(String),
    /// All subjects of the filter, to this one.
    All(String),
}

/// What a transform does to a filter.
fn rename(transform: &SubjectTransform, subject: &str) -> Renamed {
    let source = transform.source();
    let (Ok(from), Ok(taken)) = (source.parse::<Filter>(), subject.parse::<Filter>()) else { return Renamed::No };
    if transform.dest.is_empty() || !from.overlaps(&taken) {
        return Renamed::No;
    }
    let new = destination(source, subject, &transform.dest);
    if from.covers(&taken) { Renamed::All(new) } else { Renamed::Some(new) }
}

/// The destination of a subject that the source matches. It may match more than the real destination: the result of a
/// server's function becomes a wildcard, and `>` if it may be several tokens.
fn destination(source: &str, subject: &str, destination: &str) -> String {
    let (mut wildcards, mut rest) = (Vec::new(), vec![">"]);
    let mut given = subject.split('.').peekable();
    for token in source.split('.') {
        if token == ">" {
            rest = given.by_ref().collect();
            break;
        }
        // `>` matches all following tokens.
        let of_subject = match given.peek() {
            Some(&">") => "*",
            _ => given.next().unwrap_or("*"),
        };
        if token == "*" {
            wildcards.push(of_subject);
        }
    }
    let mut made = Vec::new();
    let mut used = 0;
    for token in destination.split('.') {
        match token {
            ">" => made.extend(rest.iter().copied()),
            // Same as `$1`, `$2` and so on.
            "*" => {
                made.push(wildcards.get(used).copied().unwrap_or("*"));
                used += 1;
            }
            _ => match function(token) {
                Function::None => made.push(token),
                Function::Wildcard(number) => {
                    let wildcard = number.checked_sub(1).and_then(|at| wildcards.get(at));
                    made.push(wildcard.copied().unwrap_or("*"));
                }
                Function::OneToken => made.push("*"),
                Function::Several => {
                    made.push(">");
                    break;
                }
            },
        }
    }
    made.join(".")
}

enum Function {
    None,
    /// The token that the wildcard with this number matched.
    Wildcard(usize),
    OneToken,
    Several,
}

fn function(token: &str) -> Function {
    if let Some(number) = token.strip_prefix('$').and_then(|number| number.parse().ok()) {
        return Function::Wildcard(number);
    }
    let Some(call) = token.strip_prefix("{{").and_then(|call| call.strip_suffix("}}")) else { return Function::None };
    let (name, arguments) = call.trim().split_once('(').unwrap_or((call, ""));
    match name.trim().to_ascii_lowercase().as_str() {
        "wildcard" => arguments.trim_end_matches(')').trim().parse().map_or(Function::OneToken, Function::Wildcard),
        "partition" | "left" | "right" | "random" => Function::OneToken,
        _ => Function::Several,
    }
}

/// Whether the stream stores nothing on some of the configured subjects, or stores events published on them under other
/// subjects.
pub(super) fn mismatch(config: &BrokerConfig, stream: &StreamConfig) -> Option<Obstacle> {
    if let Some(obstacle) = partition::obstacle(config, stream) {
        return Some(obstacle);
    }
    let name = &config.stream;
    let unset = match partition::layout(stream) {
        Layout::Partitions(number) if config.partitions.is_none() => {
            Some((number, format!("stream {name} has {number} partitions, and broker.partitions is not set")))
        }
        _ => None,
    };
    if let (true, Some((number, what))) = (config.takes_all_of_stream(), &unset) {
        let what = format!("{what}: each subject is collected with the number of its partition before it");
        let remedy = format!("set broker.partitions = {number}; to keep the numbers: broker.subjects = [\">\"]");
        return Some(Obstacle { what, remedy });
    }
    let (stored, filters) = (subjects(stream)?, partition::stored_filters(config));
    let empty: Vec<&str> = filters.iter().map(String::as_str).filter(|filter| !overlaps_any(filter, &stored)).collect();
    if !empty.is_empty() {
        let empty: Vec<&str> = empty.iter().map(|filter| partition::published(config, filter)).collect();
        let (empty, shown) = (empty.join(", "), stored.join(", "));
        return Some(if let Some((number, what)) = unset {
            Obstacle { what, remedy: format!("set broker.partitions = {number}") }
        } else if config.partitions.is_none() && renames(stream) {
            let what = format!("stream {name} stores nothing on {empty}: it renames subjects, and stores {shown}");
            Obstacle { what, remedy: format!("set broker.subjects to stored subjects: {shown}") }
        } else {
            let what = format!("stream {name} stores nothing on {empty}: its subjects are {shown}");
            let remedy = "add it to the stream (nats stream edit), or remove it from broker.subjects";
            Obstacle { what, remedy: remedy.into() }
        });
    }
    let transform = stream.subject_transform.as_ref().filter(|_| config.partitions.is_none())?;
    let source = transform.source();
    let wanted: Vec<&String> = filters.iter().filter(|filter| overlaps(filter, source)).collect();
    let taken = stream.subjects.iter().filter(|subject| wanted.iter().any(|filter| overlaps(filter, subject)));
    let lost = taken
        .filter_map(|subject| match rename(transform, subject) {
            Renamed::No => None,
            Renamed::Some(new) | Renamed::All(new) => Some(new),
        })
        .find(|new| !filters.iter().any(|filter| covers(filter, new)))?;
    let what = format!(
        "stream {name} acknowledges events on {source} and stores them on {lost}, which broker.subjects does not include"
    );
    let remedy = format!("add {lost} to broker.subjects, or edit the stream's subject_transform");
    Some(Obstacle { what, remedy })
}

fn renames(stream: &StreamConfig) -> bool {
    let mut upstream = stream.mirror.iter().chain(stream.sources.iter().flatten());
    stream.subject_transform.is_some() || upstream.any(|upstream| upstream.subject_transforms.is_some())
}

/// Whether a stream with these settings stores none of the configured subjects.
pub(super) fn stores_none_of(config: &BrokerConfig, stream: &StreamConfig) -> bool {
    let filters = partition::stored_filters(config);
    subjects(stream).is_some_and(|stored| !filters.iter().any(|filter| overlaps_any(filter, &stored)))
}

fn overlaps_any(filter: &str, subjects: &[String]) -> bool {
    subjects.iter().any(|subject| overlaps(filter, subject))
}

fn overlaps(one: &str, other: &str) -> bool {
    both(one, other).is_some_and(|(one, other)| one.overlaps(&other))
}

fn covers(wide: &str, narrow: &str) -> bool {
    both(wide, narrow).is_some_and(|(wide, narrow)| wide.covers(&narrow))
}

fn both(one: &str, other: &str) -> Option<(Filter, Filter)> {
    Some((one.parse().ok()?, other.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn stream(settings: &Value) -> StreamConfig {
        let mut all = json!({ "retention": "limits" });
        for (key, value) in settings.as_object().expect("an object") {
            all[key] = value.clone();
        }
        serde_json::from_value(all).expect("a configuration")
    }

    fn stored(settings: &Value) -> Option<Vec<String>> {
        subjects(&stream(settings))
    }

    fn is(settings: &Value, expected: &[&str]) {
        assert_eq!(stored(settings).as_deref(), Some(&expected.iter().map(|&s| s.to_owned()).collect::<Vec<_>>()[..]));
    }

    fn mismatch_of(subjects: &[&str], settings: &Value) -> Option<String> {
        let subjects = subjects.iter().map(|&subject| subject.to_owned()).collect();
        mismatch(&BrokerConfig { subjects, ..BrokerConfig::default() }, &stream(settings))
            .map(|mismatch| mismatch.to_string())
    }

    #[test]
    fn a_stream_without_a_transform_stores_what_it_takes() {
        is(&json!({ "subjects": ["a.>", "b"] }), &["a.>", "b"]);
    }

    #[test]
    fn a_stream_with_a_transform_stores_its_destination() {
        let with = |subjects: &[&str], src: &str, dest: &str| json!({ "subjects": subjects, "subject_transform": { "src": src, "dest": dest } });
        is(&with(&["events.>"], "events.>", "stored.>"), &["stored.>"]);
        is(&with(&["events.a"], "events.>", "stored.>"), &["stored.a"]);
        is(&with(&["events.>"], "events.a", "stored.a"), &["events.>", "stored.a"]);
        is(&with(&["events.>"], "", "p.>"), &["p.events.>"]);
        is(&with(&["events.>"], ">", "p.>"), &["p.events.>"]);
        is(&with(&["u.x.>"], "u.*.*", "o.{{wildcard(2)}}.{{Wildcard(1)}}"), &["u.x.>", "o.*.x"]);
        is(&with(&["u.x.y"], "u.*.*", "o.$2.$1"), &["o.y.x"]);
        is(&with(&["u.*"], "u.*", "o.{{partition(3,1)}}.z"), &["o.*.z"]);
        is(&with(&["u.*"], "u.*", "o.{{left(1,2)}}"), &["o.*"]);
        is(&with(&["u.*"], "u.*", "o.{{split(1,-)}}.z"), &["o.>"]);
        is(&with(&["a.>", "b.>"], "c.>", "d.>"), &["a.>", "b.>"]);
    }

    #[test]
    fn mirrors_and_sources_store_what_they_rename_it_to() {
        assert_eq!(stored(&json!({ "mirror": { "name": "M" } })), None);
        assert_eq!(stored(&json!({ "subjects": ["a"], "sources": [{ "name": "M" }] })), None);
        is(&json!({ "mirror": { "name": "M", "filter_subject": "a.b" } }), &["a.b"]);
        let transforms = json!([{ "src": "a.>", "dest": "copy.>" }, { "src": "b.*", "dest": "" }]);
        is(&json!({ "mirror": { "name": "M", "subject_transforms": transforms } }), &["copy.>", "b.*"]);
        let sources = json!([{ "name": "M", "subject_transforms": [{ "src": "a.>", "dest": "mid.>" }] }]);
        let renamed_twice = json!({
            "subjects": ["t.>"], "sources": sources, "subject_transform": { "src": "mid.>", "dest": "x.>" }
        });
        is(&renamed_twice, &["t.>", "x.>"]);
    }

    #[test]
    fn filters_that_fit_are_passed() {
        assert_eq!(mismatch_of(&["events.>"], &json!({ "subjects": ["events.>"] })), None);
        assert_eq!(mismatch_of(&["events.a", "events.b"], &json!({ "subjects": ["events.>"] })), None);
        assert_eq!(mismatch_of(&["events.>"], &json!({ "mirror": { "name": "M" } })), None);
        let renamed = json!({ "subjects": ["raw.>"], "subject_transform": { "src": "raw.>", "dest": "clean.>" } });
        assert_eq!(mismatch_of(&["clean.>"], &renamed), None);
        assert_eq!(mismatch_of(&[">"], &renamed), None);
        let aside = json!({ "subjects": ["e.>", "raw.>"], "subject_transform": { "src": "raw.>", "dest": "clean.>" } });
        assert_eq!(mismatch_of(&["e.>"], &aside), None, "renamed events are not collected");
    }

    #[test]
    fn partitions_are_told_if_all_of_the_stream_is_collected_without_them() {
        let divided = json!({ "subjects": ["a.>"], "subject_transform": { "src": ">", "dest": "{{partition(3)}}.>" } });
        let config = BrokerConfig { stream: "S".into(), ..BrokerConfig::default() };
        let of = |config: &BrokerConfig| mismatch(config, &stream(&divided)).map(|mismatch| mismatch.to_string());
        let said = of(&config).expect("told");
        let expected =
            "stream S has 3 partitions, and broker.partitions is not set: each subject is collected with the number";
        assert!(said.starts_with(expected) && said.contains("set broker.partitions = 3"), "{said}");
        assert_eq!(of(&BrokerConfig { partitions: Some(3), ..config.clone() }), None);
        assert_eq!(mismatch(&config, &stream(&json!({ "subjects": ["a.>"] }))), None, "a stream without partitions");
        assert_eq!(mismatch_of(&[">"], &divided), None, "the way out that it names");
    }

    #[test]
    fn filters_on_what_is_renamed_are_told() {
        let renamed =
            json!({ "subjects": ["events.>"], "subject_transform": { "src": "events.>", "dest": "stored.>" } });
        let said = mismatch_of(&["events.>"], &renamed).expect("nothing is stored there");
        assert!(said.contains("stores nothing on events.>: it renames subjects, and stores stored.>"), "{said}");
        let branch =
            json!({ "subjects": ["events.>"], "subject_transform": { "src": "events.a", "dest": "stored.a" } });
        let said = mismatch_of(&["events.>"], &branch).expect("a branch is renamed away");
        assert!(said.contains("acknowledges events on events.a and stores them on stored.a"), "{said}");
        assert_eq!(mismatch_of(&["events.>", "stored.a"], &branch), None);
        let said = mismatch_of(&["events.>"], &json!({ "subjects": ["other.>"] })).expect("another stream");
        assert!(said.contains("stores nothing on events.>: its subjects are other.>"), "{said}");
        let mirror =
            json!({ "mirror": { "name": "T", "subject_transforms": [{ "src": "clean.>", "dest": "copy.>" }] } });
        assert!(mismatch_of(&["clean.>"], &mirror).is_some_and(|said| said.contains("stores copy.>")));
    }
}
