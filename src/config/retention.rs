//! How long rows are kept: `[retention]`.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};

use crate::error::Error;

/// The shortest and the longest time that rows can be kept.
const KEPT: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(100 * 366 * 86_400);

/// The endings of archives that are SQLite databases, and of those that are lines of JSON.
const DATABASES: [&str; 3] = ["db", "sqlite", "sqlite3"];
const LINES: [&str; 2] = ["ndjson", "jsonl"];

/// How long rows are kept: `[retention]`. Each key is a table: `events`, `dead_letters`, a table of your own. Default none: everything
/// is kept.
///
/// A running collector deletes the rows that are too many or too old, every `upkeep.retain_every`, in small transactions between its
/// batches. Catchment's own tables cannot be named, except for `dead_letters`: the ledger is never pruned.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(transparent)]
#[cfg_attr(feature = "cli", schemars(transparent))]
#[non_exhaustive]
pub struct RetentionConfig {
    /// The rules of each table. A row that any of a table's rules names is deleted.
    pub tables: BTreeMap<String, RetentionRules>,
}

/// The rules of a table: one, or a list of them in a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetentionRules(pub Vec<RetentionRule>);

/// What is kept of a table. At least one of `rows`, `keep` and `bytes` is set. If several are, a row goes as soon as one of them says so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct RetentionRule {
    /// Keep this many rows, the newest. Default no limit.
    pub rows: Option<u64>,
    /// Keep rows that are not older than this: by `column`; in `events` by default by the time of publication, in `dead_letters` by the
    /// time when the event became a dead letter. From a second to 100 years. Default no limit.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "cli", schemars(with = "Option<crate::config::schema_types::Time>"))]
    pub keep: Option<Duration>,
    /// The column with a row's time: seconds, milliseconds, microseconds or nanoseconds since 1970, or text such as
    /// `2026-11-26 12:43:51`, in UTC. Its newest value shows which of them it is. Rows without a time are kept. `rows` and `bytes` delete
    /// in the order of this column too; without it, in the order in which the rows were added.
    pub column: Option<String>,
    /// Keep the table and its indexes below this size, as far as whole pages are concerned. At least 64 KiB. Default no limit.
    #[cfg_attr(feature = "cli", schemars(with = "Option<crate::config::schema_types::Size>"))]
    pub bytes: Option<ByteSize>,
    /// Only rows for which this SQL expression is true are counted, and deleted: `subject GLOB 'a.*'`. Default all rows.
    #[serde(rename = "where")]
    pub condition: Option<String>,
    /// A file to which rows are added before they are deleted: lines of JSON if its name ends in `.ndjson` or `.jsonl`, an SQLite
    /// database if it ends in `.db`, `.sqlite` or `.sqlite3`. Its folder must exist. Default none: the rows are gone.
    #[cfg_attr(feature = "cli", schemars(with = "Option<String>"))]
    pub archive: Option<PathBuf>,
}

/// What an archive is, by the ending of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ArchiveKind {
    Lines,
    Database,
}

impl RetentionRule {
    /// What its archive is; `None` if the ending is unknown.
    pub(crate) fn archive_kind(path: &std::path::Path) -> Option<ArchiveKind> {
        let ending = path.extension()?.to_str()?.to_ascii_lowercase();
        match ending.as_str() {
            ending if LINES.contains(&ending) => Some(ArchiveKind::Lines),
            ending if DATABASES.contains(&ending) => Some(ArchiveKind::Database),
            _ => None,
        }
    }

    /// Checks every setting. `key` is the rule's: `retention.events`.
    fn validate(&self, key: &str) -> Result<(), Error> {
        let refused = |setting: &str, detail: String, remedy: &str| {
            let key = if setting.is_empty() { key.to_owned() } else { format!("{key}.{setting}") };
            let error = Error::config(key, detail);
            Err(if remedy.is_empty() { error } else { error.with_remedy(remedy) })
        };
        if self.rows.is_none() && self.keep.is_none() && self.bytes.is_none() {
            let remedy = "give rows = 1000000, keep = \"30d\" or bytes = \"2GiB\"";
            return refused("", "says not what is kept".into(), remedy);
        }
        if let Some(keep) = self.keep.filter(|keep| !KEPT.contains(keep)) {
            return refused("keep", format!("is {keep:?}; from a second to 100 years"), "");
        }
        if let Some(bytes) = self.bytes.filter(|bytes| *bytes < ByteSize::kib(64)) {
            return refused("bytes", format!("is {bytes}; the least is 64 KiB"), "");
        }
        if let Some(archive) = &self.archive
            && Self::archive_kind(archive).is_none()
        {
            let detail = format!("{} is neither lines of JSON nor a database", archive.display());
            return refused("archive", detail, "give a file that ends in .ndjson, or in .db");
        }
        Ok(())
    }
}

impl RetentionConfig {
    /// Whether nothing is ever deleted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// Checks what can be checked without the database.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        let mut archives: BTreeMap<&std::path::Path, &str> = BTreeMap::new();
        for (table, RetentionRules(rules)) in &self.tables {
            let key = format!("retention.{table}");
            if rules.is_empty() {
                return Err(
                    Error::config(key, "has no rule").with_remedy("give one, as { keep = \"30d\" }, or remove it")
                );
            }
            for rule in rules {
                rule.validate(&key)?;
                let lines = |path: &&PathBuf| RetentionRule::archive_kind(path) == Some(ArchiveKind::Lines);
                if let Some(archive) = rule.archive.as_ref().filter(lines)
                    && let Some(other) = archives.insert(archive, table).filter(|other| other != table)
                {
                    let detail = format!("{} has the rows of {other} too", archive.display());
                    let error = Error::config(format!("{key}.archive"), detail);
                    return Err(error.with_remedy("give each table a file of its own, or a database"));
                }
            }
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for RetentionRules {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrSeveral;
        impl<'de> Visitor<'de> for OneOrSeveral {
            type Value = RetentionRules;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RetentionRules, A::Error> {
                let rule = RetentionRule::deserialize(MapAccessDeserializer::new(map))?;
                Ok(RetentionRules(vec![rule]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, rules: A) -> Result<RetentionRules, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(rules)).map(RetentionRules)
            }
        }
        deserializer.deserialize_any(OneOrSeveral)
    }
}

#[cfg(feature = "cli")]
impl schemars::JsonSchema for RetentionRules {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "RetentionRules".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let rule = generator.subschema_for::<RetentionRule>();
        schemars::json_schema!({ "anyOf": [rule, { "type": "array", "items": rule, "minItems": 1 }] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(keep: u64) -> RetentionRule {
        RetentionRule { keep: Some(Duration::from_secs(keep)), ..RetentionRule::default() }
    }

    fn refused(table: &str, rules: Vec<RetentionRule>) -> String {
        let tables = [(table.to_owned(), RetentionRules(rules))].into();
        RetentionConfig { tables }.validate().expect_err("must be refused").to_string()
    }

    #[test]
    fn rules_that_keep_nothing_or_everything_are_refused_by_table() {
        let none = refused("events", vec![RetentionRule::default()]);
        assert!(none.starts_with("configuration: retention.events: says not what is kept; give rows"), "{none}");
        assert!(refused("t", vec![]).contains("retention.t: has no rule"));
        assert!(refused("t", vec![rule(0)]).contains("retention.t.keep: is 0ns; from a second"));
        let bytes = RetentionRule { bytes: Some(ByteSize::b(5)), ..RetentionRule::default() };
        assert!(refused("t", vec![bytes]).contains("retention.t.bytes: is 5 B; the least is 64 KiB"));
        let archive = RetentionRule { archive: Some("old.txt".into()), ..rule(9) };
        assert!(refused("t", vec![archive]).contains("retention.t.archive: old.txt is neither"));
    }

    #[test]
    fn lines_of_two_tables_do_not_share_a_file() {
        let archived = |file: &str| RetentionRules(vec![RetentionRule { archive: Some(file.into()), ..rule(9) }]);
        let config =
            |file| RetentionConfig { tables: [("a".into(), archived(file)), ("b".into(), archived(file))].into() };
        let error = config("old.ndjson").validate().expect_err("must be refused").to_string();
        assert!(error.contains("retention.b.archive: old.ndjson has the rows of a too"), "{error}");
        config("old.db").validate().expect("a database has tables");
    }

    #[cfg(feature = "toml")]
    #[test]
    fn a_table_has_one_rule_or_a_list() {
        let read = crate::Config::from_toml;
        let text = "[retention]\nevents = { rows = 5 }\nt = [{ keep = '30d', column = 'at' }, { bytes = '2GiB', where = 'a = 1' }]";
        let config = read(text).expect("is valid").retention;
        assert_eq!(config.tables["events"].0, [RetentionRule { rows: Some(5), ..RetentionRule::default() }]);
        assert_eq!(config.tables["t"].0[1].condition.as_deref(), Some("a = 1"));
        for (text, said) in [
            ("events = 5", "expected a table"),
            ("events = { row = 5 }", "unknown key `row`"),
            ("events = [{ keep = 5 }]", "a duration"),
        ] {
            let error = read(&format!("[retention]\n{text}")).expect_err(text).to_string();
            assert!(error.contains(said) && error.contains("line 2"), "{error}");
        }
    }
}
