//! The partitions of a stream. Its `subject_transform` puts the number of the partition before each subject, `2.chat.hello`, in the layout
//! of Synadia's partitioned consumer groups. So a consumer of one partition filters by `2.>`, and the events of one subject are all in one
//! partition, in their order.
//!
//! Only this file adds that number to a filter and removes it from a subject. Everywhere else subjects are as published.

use super::api_types::{StreamConfig, SubjectTransform};
use super::obstacle::Obstacle;
use super::retention::INTEREST;
use crate::broker::connection::ServerInfo;
use crate::config::BrokerConfig;
use crate::hint;
use crate::subject::Filter;

/// The first server whose streams rename subjects, and the first with a partition of the whole subject.
/// <https://docs.nats.io/nats-concepts/subject_mapping>
const TRANSFORMS: (u32, u32) = (2, 10);
const OF_WHOLE_SUBJECT: (u32, u32) = (2, 12);

/// How a stream divides its events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// It does not.
    Undivided,
    /// It has this many partitions, and puts their numbers before the subjects.
    Partitions(u32),
    /// It has partitions that cannot be collected. The text says why.
    Unusable(String),
}

/// How a stream with these settings divides its events.
pub(super) fn layout(stream: &StreamConfig) -> Layout {
    let Some(transform) = &stream.subject_transform else { return Layout::Undivided };
    let (first, rest) = transform.dest.split_once('.').unwrap_or((&transform.dest, ""));
    let Some(partitions) = partitions_of(first) else { return Layout::Undivided };
    let source = transform.source();
    let shown = format!("its subject_transform from {source} to {}", transform.dest);
    if !is_unchanged(source, rest) {
        return Layout::Unusable(format!("{shown} changes subjects"));
    }
    let covers = |subject: &String| match (source.parse::<Filter>(), subject.parse::<Filter>()) {
        (Ok(source), Ok(subject)) => source.covers(&subject),
        _ => false,
    };
    match stream.subjects.iter().find(|subject| !covers(subject)) {
        Some(outside) => Layout::Unusable(format!("{shown} leaves out {outside}")),
        None => Layout::Partitions(partitions),
    }
}

/// The number of partitions, if a token of a destination is the server's function for that.
fn partitions_of(token: &str) -> Option<u32> {
    let call = token.strip_prefix("{{")?.strip_suffix("}}")?.trim();
    let (name, arguments) = call.split_once('(')?;
    let number = arguments.strip_suffix(')')?.split(',').next()?.trim().parse().ok()?;
    (name.trim().eq_ignore_ascii_case("partition") && number > 0).then_some(number)
}

/// Whether a destination gives the subjects of the source again.
fn is_unchanged(source: &str, destination: &str) -> bool {
    let mut wildcards = 0;
    let tokens: Vec<&str> = source.split('.').collect();
    let made: Vec<&str> = destination.split('.').collect();
    tokens.len() == made.len()
        && tokens.iter().zip(made).all(|(token, made)| {
            if *token != "*" {
                return *token == made;
            }
            wildcards += 1;
            let call = made.to_ascii_lowercase().replace(' ', "");
            call == format!("${wildcards}") || call == format!("{{{{wildcard({wildcards})}}}}") || call == "*"
        })
}

/// The transform that gives a new stream with these subjects so many partitions.
pub(super) fn transform(
    stream: &str,
    partitions: u32,
    subjects: &[String],
    server: &ServerInfo,
) -> Result<SubjectTransform, Obstacle> {
    if !server.is_at_least(TRANSFORMS) {
        let what = format!("stream {stream} cannot have partitions: nats-server {} has none", server.version);
        let remedy = "use nats-server 2.12 or later (2.10 partitions by a wildcard), or remove broker.partitions";
        return Err(Obstacle::new(what, remedy));
    }
    if server.is_at_least(OF_WHOLE_SUBJECT) {
        return Ok(of_whole_subject(partitions));
    }
    of_wildcards(partitions, subjects).ok_or_else(|| {
        let (version, subjects) = (&server.version, subjects.join(", "));
        let what = format!(
            "stream {stream} cannot have partitions on {subjects}: nats-server {version} partitions one subject, by its *"
        );
        Obstacle::new(what, "use nats-server 2.12 or later, or one subject with *, as chat.*.>")
    })
}

/// By all of the subject. It works for any subjects.
fn of_whole_subject(partitions: u32) -> SubjectTransform {
    SubjectTransform { src: ">".into(), dest: format!("{{{{partition({partitions})}}}}.>") }
}

/// By the tokens that the wildcards of the only subject match; `None` if it has none, or there are several subjects.
fn of_wildcards(partitions: u32, subjects: &[String]) -> Option<SubjectTransform> {
    let [subject] = subjects else { return None };
    let mut wildcards = 0;
    let tokens = subject.split('.').map(|token| {
        if token != "*" {
            return token.to_owned();
        }
        wildcards += 1;
        format!("{{{{wildcard({wildcards})}}}}")
    });
    let rest = tokens.collect::<Vec<_>>().join(".");
    let numbers = (1..=wildcards).map(|number| number.to_string()).collect::<Vec<_>>().join(",");
    let dest = format!("{{{{partition({partitions},{numbers})}}}}.{rest}");
    (wildcards > 0).then(|| SubjectTransform { src: subject.clone(), dest })
}

/// The same transform with another number of partitions; `None` if it is none of partitions.
pub(super) fn with_number(transform: &SubjectTransform, partitions: u32) -> Option<SubjectTransform> {
    let (first, rest) = transform.dest.split_once('.')?;
    partitions_of(first)?;
    let (name, arguments) = first.split_once('(')?;
    let others = arguments.find([',', ')']).map(|at| &arguments[at..])?;
    Some(SubjectTransform { src: transform.src.clone(), dest: format!("{name}({partitions}{others}.{rest}") })
}

/// Why this stream cannot be given partitions, or another number of them; `None` if it can.
pub(super) fn fixed(name: &str, stream: &StreamConfig) -> Option<Obstacle> {
    if stream.mirror.is_some() {
        let what = format!("stream {name} is a mirror: a mirror has no partitions");
        return Some(Obstacle::new(what, "give partitions to the stream that it mirrors"));
    }
    if stream.retention == INTEREST {
        let what =
            format!("stream {name} has interest retention: it would drop events of a partition without a collector");
        return Some(Obstacle::new(
            what,
            "make another stream with broker.partitions, or give this one limits retention",
        ));
    }
    let has_room = match layout(stream) {
        Layout::Partitions(_) => true,
        Layout::Undivided => stream.subject_transform.is_none(),
        Layout::Unusable(_) => false,
    };
    (!has_room).then(|| {
        let what = format!("stream {name} has a subject_transform of its own, and a stream can have only one");
        Obstacle::new(what, "remove it (nats stream edit), or make another stream with broker.partitions")
    })
}

/// Why a stream with these settings cannot be collected with the configured partitions; `None` if it can. Without `broker.partitions`
/// nothing is wrong here: its subjects are those that it stores.
pub(super) fn obstacle(config: &BrokerConfig, stream: &StreamConfig) -> Option<Obstacle> {
    let (name, wanted) = (&config.stream, config.partitions?);
    Some(match layout(stream) {
        Layout::Partitions(number) if number == wanted => return None,
        Layout::Partitions(number) => Obstacle::new(
            format!("stream {name} has {number} partitions, and broker.partitions is {wanted}"),
            match fixed(name, stream) {
                None => {
                    format!("set broker.partitions = {number}; to change the stream: {}", hint::command("repartition"))
                }
                Some(_) => format!("set broker.partitions = {number}"),
            },
        ),
        Layout::Undivided if stream.mirror.is_some() => Obstacle::new(
            format!("stream {name} is a mirror, and broker.partitions is {wanted}: a mirror has no partitions"),
            "collect the stream that it mirrors, or remove broker.partitions",
        ),
        Layout::Undivided => Obstacle::new(
            format!("stream {name} has no partitions, and broker.partitions is {wanted}"),
            match fixed(name, stream) {
                None => format!("remove broker.partitions, or give it partitions: {}", hint::command("repartition")),
                Some(fixed) => {
                    format!("remove broker.partitions; the stream cannot be given partitions: {}", fixed.what)
                }
            },
        ),
        Layout::Unusable(why) => Obstacle::new(
            format!("stream {name} cannot be collected by partitions: {why}"),
            "give it a destination that only puts the partition before the subject, as {{partition(4)}}.> for >",
        ),
    })
}

/// A filter for events as published, as the stream stores them.
fn stored_filter(config: &BrokerConfig, filter: &str) -> String {
    match (config.partitions, config.partition) {
        (None, _) => filter.to_owned(),
        (Some(_), Some(partition)) => format!("{partition}.{filter}"),
        (Some(_), None) => format!("*.{filter}"),
    }
}

/// These filters as the stream stores subjects.
pub(super) fn stored(config: &BrokerConfig, filters: &[Filter]) -> Vec<String> {
    filters.iter().map(|filter| stored_filter(config, filter.as_str())).collect()
}

/// Filters for the events that are collected, as the stream stores their subjects.
pub(super) fn stored_filters(config: &BrokerConfig) -> Vec<String> {
    config.filters().iter().map(|filter| stored_filter(config, filter)).collect()
}

/// A subject or a filter of the stream as it was published.
pub(super) fn published<'s>(config: &BrokerConfig, stored: &'s str) -> &'s str {
    let is_partition =
        |token: &str| token == "*" || !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_digit());
    match stored.split_once('.') {
        Some((token, published)) if config.partitions.is_some() && is_partition(token) => published,
        _ => stored,
    }
}

/// Removes the number of the partition from a stored subject. Allocates nothing.
pub(super) fn remove_from(subject: &mut String, config: &BrokerConfig) {
    let published = published(config, subject).len();
    subject.drain(..subject.len() - published);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn stream(subjects: &[&str], source: &str, destination: &str) -> StreamConfig {
        let config = json!({
            "retention": "limits", "subjects": subjects, "subject_transform": { "src": source, "dest": destination },
        });
        serde_json::from_value(config).expect("a configuration")
    }

    fn broker(partitions: u32, partition: Option<u32>, subjects: &[&str]) -> BrokerConfig {
        let subjects = subjects.iter().map(|&subject| subject.to_owned()).collect();
        BrokerConfig {
            stream: "S".into(),
            partitions: Some(partitions),
            partition,
            subjects,
            ..BrokerConfig::default()
        }
    }

    #[test]
    fn a_layout_is_recognised_however_it_is_written() {
        for (subjects, source, destination, expected) in [
            (&["a.>", "b"][..], ">", "{{partition(4)}}.>", 4),
            (&["a.>"], "", "{{Partition( 16 )}}.>", 16),
            (&["a.*.>"], "a.*.>", "{{partition(3,1)}}.a.{{Wildcard(1)}}.>", 3),
            (&["a.*.b.*"], "a.*.b.*", "{{ partition(3, 1, 2) }}.a.$1.b.{{wildcard( 2 )}}", 3),
            (&["a.b"], "a.*", "{{partition(1,1)}}.a.*", 1),
        ] {
            assert_eq!(layout(&stream(subjects, source, destination)), Layout::Partitions(expected), "{destination}");
        }
        for (source, destination) in
            [("a.>", "b.>"), ("", "p.>"), (">", "{{random(4)}}.>"), (">", "{{partition(0)}}.>")]
        {
            assert_eq!(layout(&stream(&["a.>"], source, destination)), Layout::Undivided, "{destination}");
        }
        for (source, destination, why) in [
            ("a.*", "{{partition(2,1)}}.b.{{wildcard(1)}}", "changes subjects"),
            ("a.*.*", "{{partition(2,1)}}.a.$2.$1", "changes subjects"),
            ("a.*", "{{partition(2,1)}}", "changes subjects"),
            ("a.*", "{{partition(2,1)}}.a.$1", "leaves out a.>"),
        ] {
            let Layout::Unusable(said) = layout(&stream(&["a.>"], source, destination)) else {
                panic!("{destination}")
            };
            assert!(said.ends_with(why), "{said}");
        }
    }

    #[test]
    fn a_new_stream_is_partitioned_by_all_of_the_subject_or_by_its_wildcards() {
        let by_wildcards = |subjects: &[&str]| {
            let subjects: Vec<String> = subjects.iter().map(|&subject| subject.to_owned()).collect();
            of_wildcards(4, &subjects).map(|transform| (transform.src, transform.dest))
        };
        let made = by_wildcards(&["chat.*.line.*"]).expect("it has wildcards");
        let expected =
            ("chat.*.line.*".to_owned(), "{{partition(4,1,2)}}.chat.{{wildcard(1)}}.line.{{wildcard(2)}}".to_owned());
        assert_eq!(made, expected);
        assert_eq!(by_wildcards(&["chat.*.>"]).expect("it has one").1, "{{partition(4,1)}}.chat.{{wildcard(1)}}.>");
        for none in [&["chat.>"][..], &["chat"], &["a.*", "b.*"], &[]] {
            assert_eq!(by_wildcards(none), None, "{none:?}");
        }
        for transform in [of_whole_subject(7), of_wildcards(7, &["a.*.>".into()]).expect("it has one")] {
            let made = stream(&["a.*.>"], &transform.src, &transform.dest);
            assert_eq!(layout(&made), Layout::Partitions(7), "{transform:?}");
        }
    }

    #[test]
    fn the_number_changes_and_the_way_to_divide_stays() {
        let changed = |destination: &str| {
            let transform = SubjectTransform { src: "a.*".into(), dest: destination.into() };
            with_number(&transform, 12).map(|changed| changed.dest)
        };
        assert_eq!(changed("{{partition(4)}}.>").as_deref(), Some("{{partition(12)}}.>"));
        assert_eq!(changed("{{Partition( 4 , 1,2)}}.a.$1").as_deref(), Some("{{Partition(12, 1,2)}}.a.$1"));
        assert_eq!((changed("b.$1"), changed("{{split(1,-)}}.a")), (None, None));
    }

    #[test]
    fn another_number_of_partitions_is_refused_by_name() {
        let of = |wanted: u32, stream: &StreamConfig| {
            obstacle(&broker(wanted, Some(0), &[]), stream).map(|obstacle| obstacle.to_string())
        };
        let four = stream(&["a.>"], ">", "{{partition(4)}}.>");
        assert_eq!(of(4, &four), None);
        assert_eq!(
            of(2, &four).as_deref(),
            Some(
                "stream S has 4 partitions, and broker.partitions is 2; set broker.partitions = 4; to change the stream: catchment repartition"
            )
        );
        let undivided = StreamConfig { subject_transform: None, ..four.clone() };
        assert!(
            of(2, &undivided)
                .is_some_and(|said| said.starts_with("stream S has no partitions, and broker.partitions is 2"))
        );
        let renamed = stream(&["a.>"], "a.>", "b.>");
        let said = of(2, &renamed).expect("refused");
        assert!(said.contains("remove broker.partitions; the stream cannot be given partitions: stream S has a subject_transform of its own"), "{said}");
        let kept = StreamConfig { retention: INTEREST.into(), ..four.clone() };
        assert!(of(2, &kept).is_some_and(|said| said.ends_with("set broker.partitions = 4")), "no repartition");
        let changed = stream(&["a.>"], "a.>", "{{partition(2)}}.b.>");
        assert!(of(2, &changed).is_some_and(|said| said.contains("changes subjects; give it a destination")));
        assert_eq!(obstacle(&BrokerConfig::default(), &four), None, "without the setting");
    }

    #[test]
    fn the_number_is_added_to_filters_and_removed_from_subjects() {
        assert_eq!(stored_filters(&broker(4, Some(2), &["a.>", "b"])), ["2.a.>", "2.b"]);
        assert_eq!(stored_filters(&broker(4, Some(0), &[])), ["0.>"]);
        assert_eq!(stored_filters(&broker(4, None, &["a.*"])), ["*.a.*"]);
        assert_eq!(stored_filters(&BrokerConfig::default()), [">"]);
        for (stored, expected) in [("2.a.b", "a.b"), ("12.7.b", "7.b"), ("*.a.>", "a.>"), ("a.b", "a.b"), ("7", "7")] {
            assert_eq!(published(&broker(4, Some(2), &[]), stored), expected);
            let mut subject = stored.to_owned();
            remove_from(&mut subject, &broker(4, None, &[]));
            assert_eq!(subject, expected);
            assert_eq!(published(&BrokerConfig::default(), stored), stored, "without partitions");
        }
    }
}
