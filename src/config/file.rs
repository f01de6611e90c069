//! Settings from TOML: the text of a program, or a file. Errors name the line, in the words of the file.

use std::io::ErrorKind;
use std::path::Path;

use serde::Deserialize;
use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

use super::{Config, PREFIX};
use crate::closest::closest;
use crate::error::Error;
use crate::input_format::without_byte_order_mark;

impl Config {
    /// The settings that this TOML gives, with the keys and the defaults of the file of `catchment run`. Checks them as
    /// [`validate`](Self::validate) does. Reads no variables and no other file; opens neither broker nor database.
    ///
    /// Relative paths start at the current directory of the process. `{prefix}` stays in the subjects until the settings are used.
    /// Needs the feature `toml`.
    ///
    /// ```
    /// use catchment::Config;
    ///
    /// let config = Config::from_toml(
    ///     r#"
    ///     [broker]
    ///     stream = "WEATHER"
    ///     subjects = ["weather.*"]
    ///
    ///     [database]
    ///     path = "weather.db"
    ///     "#,
    /// )?;
    /// assert_eq!(config.broker.stream, "WEATHER");
    ///
    /// let error = Config::from_toml("[broker]\nstraem = 'WEATHER'").unwrap_err().to_string();
    /// assert!(error.starts_with("configuration: line 2: unknown key `straem`"));
    /// # Ok::<(), catchment::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Config`] with the line of the text that is not TOML, has an unknown key or a value of the wrong type; or with the
    /// setting that cannot be used, and its line. A value that may be a secret is not in it.
    pub fn from_toml(text: &str) -> Result<Self, Error> {
        let place = |line| format!("line {line}");
        let (config, _) = parse(text, place)?;
        config.validate().map_err(|error| with_place(error, text, place))?;
        Ok(config)
    }

    /// The settings of a TOML file, as [`from_toml`](Self::from_toml) reads them. Errors name the file and the line. Needs the
    /// feature `toml`.
    ///
    /// # Errors
    ///
    /// As `from_toml`; also where the file cannot be read, or is not UTF-8.
    pub fn from_toml_file(file: impl AsRef<Path>) -> Result<Self, Error> {
        let file = file.as_ref();
        let (text, name) = (read_text(file, "check the file's name")?, file.display());
        let place = |line| format!("{name}:{line}");
        let (config, _) = parse(&text, place)?;
        config.validate().map_err(|error| with_place(error, &text, place))?;
        Ok(config)
    }
}

/// Reads a file as one source of settings among others: its keys and types are checked, its values are not. `remedy` says what to do
/// where it cannot be read.
pub(crate) fn table_of(file: &Path, remedy: &str) -> Result<Table, Error> {
    let name = file.display();
    parse(&read_text(file, remedy)?, |line| format!("{name}:{line}")).map(|(_, table)| table)
}

/// The line of a file that has this setting, if the file has it: `broker.stream`, `route` and a name.
pub(crate) fn line_in(file: &Path, setting: &str) -> Option<usize> {
    line_of(&read_text(file, "").ok()?, setting)
}

/// Reads settings that were merged from several sources. The reason of a refusal is in the words of the file.
pub(crate) fn from_table(table: Table) -> Result<Config, String> {
    Config::deserialize(Value::Table(table)).map_err(|error| in_words(error.message()))
}

/// The keys of a section, `["broker", "tls"]`; of all settings without one. Empty if there is no such section.
pub(crate) fn keys_of(section: &[&str]) -> Vec<String> {
    let inner = Table::from_iter([(String::new(), Value::Boolean(true))]);
    let outer = |table, name: &&str| Table::from_iter([((*name).to_owned(), Value::Table(table))]);
    let table = section.iter().rev().fold(inner, outer);
    let refused = Config::deserialize(Value::Table(table)).map_err(|error| error.message().to_owned());
    match refused {
        Err(reason) if reason.starts_with("unknown field ``,") => names_in(&reason),
        _ => Vec::new(),
    }
}

pub(super) fn read_text(file: &Path, remedy: &str) -> Result<String, Error> {
    let name = file.display();
    let bytes = std::fs::read(file).map_err(|error| {
        let detail = match error.kind() {
            ErrorKind::NotFound if file.is_symlink() => "is a link to a file that does not exist".into(),
            ErrorKind::NotFound => "there is no such file".into(),
            ErrorKind::IsADirectory => "is a folder, not a file".into(),
            _ => format!("cannot be read: {error}"),
        };
        Error::config(name.to_string(), detail).with_remedy(remedy)
    })?;
    decode(&bytes).map(str::to_owned).map_err(|detail| Error::config(name.to_string(), detail))
}

/// The error with the line of its setting, if the text has that.
fn with_place(error: Error, text: &str, place: impl Fn(usize) -> String) -> Error {
    match error {
        Error::Config { key, detail, remedy } => {
            let key = line_of(text, &key).map(|line| format!("{}: {key}", place(line))).unwrap_or(key);
            Error::Config { key, detail, remedy }
        }
        other => other,
    }
}

/// The line of this setting in a text: `broker.stream`; or of the route or query of a name: `route` and the name.
fn line_of(text: &str, setting: &str) -> Option<usize> {
    let without_mark = without_byte_order_mark(text);
    let table = DeTable::parse(without_mark).ok()?;
    let at = match setting.split_once(' ') {
        Some((list @ ("route" | "query"), name)) => named(table.get_ref(), list, name)?,
        _ => span(table.get_ref(), setting)?,
    };
    Some(line_at(without_mark.as_bytes(), at))
}

/// Where a key begins: `broker.tls.ca`.
fn span(table: &DeTable<'_>, setting: &str) -> Option<usize> {
    let (first, rest) = setting.split_once('.').map_or((setting, None), |(first, rest)| (first, Some(rest)));
    let (key, value) = table.get_key_value(first)?;
    match (rest, value.get_ref()) {
        (None, _) => Some(key.span().start),
        (Some(rest), DeValue::Table(inner)) => span(inner, rest),
        (Some(_), _) => None,
    }
}

/// Where the table of the last route or query with this name begins: if two have it, the last one is refused.
fn named(table: &DeTable<'_>, list: &str, name: &str) -> Option<usize> {
    let text = |table: &DeTable<'_>, key: &str| match table.get(key)?.get_ref() {
        DeValue::String(text) => Some(text.to_string()),
        _ => None,
    };
    let prefix = text(table, "prefix");
    let DeValue::Array(tables) = table.get(list)?.get_ref() else { return None };
    let is_named = |one: &&Spanned<DeValue<'_>>| match one.get_ref() {
        DeValue::Table(one) => text(one, "name").or_else(|| text(one, "subject")).is_some_and(|given| {
            given == name || prefix.as_ref().is_some_and(|prefix| given.replace(PREFIX, prefix) == name)
        }),
        _ => false,
    };
    tables.iter().rev().find(is_named).map(|one| one.span().start)
}

/// The text of a file that should be UTF-8.
fn decode(bytes: &[u8]) -> Result<&str, String> {
    // A byte order mark; without one, every second byte of Latin letters is 0.
    let is_utf_16 = bytes.starts_with(b"\xff\xfe")
        || bytes.starts_with(b"\xfe\xff")
        || bytes.first_chunk().is_some_and(|[a, b]| (*a == 0) != (*b == 0));
    if is_utf_16 {
        return Err("is UTF-16 text; save it as UTF-8 (iconv -f UTF-16 -t UTF-8 converts it)".into());
    }
    std::str::from_utf8(bytes).map_err(|error| {
        let line = line_at(bytes, error.valid_up_to());
        format!("is not UTF-8 text: line {line} has other bytes; save it as UTF-8")
    })
}

pub(super) fn line_at(text: &[u8], at: usize) -> usize {
    text[..at.min(text.len())].split(|byte| *byte == b'\n').count()
}

/// Reads a text, whole: as settings and as a table. `place` names a line of it.
fn parse(text: &str, place: impl Fn(usize) -> String) -> Result<(Config, Table), Error> {
    let text = without_byte_order_mark(text);
    let refused = |error: &toml::de::Error| {
        let line = error.span().map_or(1, |span| line_at(text.as_bytes(), span.start));
        // The word at the mistake. The parser takes one that begins with n or i for a number: nan, inf.
        let rest = error.span().and_then(|span| text.get(span.start..)).unwrap_or_default();
        let word: String = rest.chars().take_while(|c| c.is_alphanumeric()).collect();
        let is_truth = |one: &&str| word.eq_ignore_ascii_case(one);
        let mut words = in_words(error.message());
        if words.starts_with("invalid boolean") {
            words = "expected true or false, or a string in quotes".into();
        } else if words == UNQUOTED || (words.starts_with("invalid float") && word.starts_with(char::is_alphabetic)) {
            let any = ["true", "false", "yes", "no", "on", "off"].iter().any(is_truth);
            words = if any { "expected true or false, or a string in quotes" } else { UNQUOTED }.into();
        }
        Error::config(place(line), words)
    };
    let config = toml::from_str(text).map_err(|error| refused(&error))?;
    let table = toml::from_str(text).map_err(|error| refused(&error))?;
    Ok((config, table))
}

/// What the parsers expect, and the words of the file for it.
const EXPECTED: [(&str, &str); 11] = [
    ("u32", "a whole number"),
    ("usize", "a whole number"),
    ("u64", "a whole number"),
    ("integer overflow", "a whole number"),
    ("a sequence", "a list"),
    ("a map", "a table"),
    ("a boolean", "true or false"),
    ("path string", "a path, as a string"),
    ("a duration", "a duration, as \"5s\""),
    ("an integer or string", "a size, as \"4MiB\""),
    ("parsable string", "a size, as \"4MiB\""),
];

/// What the parsers found, and the words of the file for it.
const FOUND: [(&str, &str); 7] = [
    ("string", "a string"),
    ("integer", "a whole number"),
    ("floating point", "a number with a fraction"),
    ("boolean", "true or false"),
    ("sequence", "a list"),
    ("map", "a table"),
    ("unit", "a value of another kind"),
];

/// The parsers' messages that have other words in the file, by their beginnings.
const BEGINNINGS: [(&str, &str); 4] = [
    ("unknown field", "unknown key"),
    ("unknown variant", "unknown value"),
    ("missing field", "missing key"),
    ("duplicate field", "duplicate key"),
];

/// Why a word without quotes was refused.
const UNQUOTED: &str = "a string must be in quotes";

/// Why TOML or a setting was refused, in one line and in the words of the file. A value of a wrong type is left out, because it may
/// be a secret: a password that looks like a number, a server's address outside a list.
fn in_words(message: &str) -> String {
    let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some(parts) = message.strip_prefix("invalid type: ") {
        return wrong_type(parts);
    }
    if let Some(parts) = message.strip_prefix("invalid value: ") {
        return wrong_value(parts);
    }
    for (theirs, ours) in BEGINNINGS {
        if let Some(rest) = message.strip_prefix(theirs) {
            return unknown(ours, rest).unwrap_or_else(|| format!("{ours}{rest}"));
        }
    }
    match message.as_str() {
        "integer number overflowed" => "a whole number is too large or has no digits".into(),
        "string values must be quoted, expected literal string" => UNQUOTED.into(),
        // Of settings that have a few possible values.
        message if message.starts_with("wanted ") => "expected a string, found a value of another kind".into(),
        _ => message,
    }
}

/// The earlier key of `broker.prefetch`. It still works, and is in no error.
pub(super) const EARLIER_KEY: &str = "ahead";

/// So few keys or values are all named.
const FEW: usize = 4;

/// An unknown key or value, with the known ones: of many, those that are most like it. `None` if the message lists none.
fn unknown(what: &str, rest: &str) -> Option<String> {
    let given = rest.split('`').nth(1).filter(|_| what.starts_with("unknown"))?;
    let known = names_in(rest);
    let quoted = |names: &[&str]| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>();
    let all: Vec<&str> = known.iter().map(String::as_str).collect();
    let likely = if all.len() > FEW { closest(given, all.iter().copied()) } else { Vec::new() };
    Some(match &quoted(&likely)[..] {
        [] if all.is_empty() => return None,
        [] => match &quoted(&all)[..] {
            [one] => format!("{what} `{given}`, expected {one}"),
            [one, other] => format!("{what} `{given}`, expected {one} or {other}"),
            all => format!("{what} `{given}`, expected one of {}", all.join(", ")),
        },
        [one] => format!("{what} `{given}`; the closest one is {one}"),
        several => format!("{what} `{given}`; the closest ones are {}", several.join(", ")),
    })
}

/// The names that a parser's message lists as the known ones.
fn names_in(message: &str) -> Vec<String> {
    let known = message.split_once(", expected ").map_or("", |(_, known)| known);
    let names = known.split('`').skip(1).step_by(2).filter(|name| *name != EARLIER_KEY);
    names.map(str::to_owned).collect()
}

fn wrong_type(parts: &str) -> String {
    let (found, expected) = parts.rsplit_once(", expected ").unwrap_or((parts, "something else"));
    let kind = match FOUND.iter().find(|(theirs, _)| found.starts_with(theirs)) {
        _ if found.ends_with(" as i128") => "a whole number that is too large",
        Some((_, ours)) => ours,
        None => "something else",
    };
    let hint = match (found, expected) {
        ("map", "a sequence") => " (a table of a list has a name in double brackets, as [[route]])",
        _ => "",
    };
    format!("expected {}, found {kind}{hint}", words_for(expected))
}

fn wrong_value(parts: &str) -> String {
    let (found, expected) = parts.rsplit_once(", expected ").unwrap_or((parts, "something else"));
    let value = found.trim_start_matches("string ").trim_start_matches("integer ");
    match words_for(expected) {
        "a whole number" => format!("{value} is too small or too large; expected a whole number, at least 0"),
        words => format!("{value} is not valid; expected {words}"),
    }
}

fn words_for(expected: &str) -> &str {
    match EXPECTED.iter().find(|(theirs, _)| *theirs == expected) {
        Some((_, ours)) => ours,
        None if expected.starts_with("struct ") => "a table",
        None => expected.strip_suffix(" only").unwrap_or(expected),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        Config::from_toml(text).expect_err(text).to_string().replace("configuration: ", "")
    }

    #[test]
    fn settings_come_from_text() {
        let text = "\u{feff}unmatched = 'drop'\r\n[broker]\r\nsubjects = ['a.>']\r\n[database]\r\npath = 'c.db'\r\n";
        let config = Config::from_toml(text).expect("BOM and CRLF");
        assert_eq!((config.broker.subjects, config.database.path), (vec!["a.>".to_owned()], "c.db".into()));
        assert_eq!(Config::from_toml("").expect("empty").broker.stream, "EVENTS");
        let config = Config::from_toml("prefix = 'x'\n[broker]\nsubjects = ['{prefix}.>']").expect("a prefix");
        assert_eq!(config.broker.subjects, ["{prefix}.>"], "it is replaced where the settings are used");
    }

    #[test]
    fn a_mistake_is_named_with_its_line() {
        assert!(refusal("\n[database]\npth = 'x'").starts_with("line 3: unknown key `pth`; the closest one is `path`"));
        assert!(refusal("\r\n[broker]\r\nstream = 'A").starts_with("line 3: "));
        assert!(refusal("[broker]\nstream = A").ends_with("line 2: a string must be in quotes"));
        for word in ["yes", "no", "On", "off", "True", "FALSE", "tru", "falsch"] {
            let said = refusal(&format!("[broker]\ncreate_stream = {word} # or not\nstream = 'A'"));
            assert_eq!(said, "line 2: expected true or false, or a string in quotes", "{word}");
        }
        for word in ["name", "info", "A"] {
            assert_eq!(refusal(&format!("[broker]\nstream = {word}")), "line 2: a string must be in quotes", "{word}");
        }
        // What only the whole shows is named by its setting.
        for (text, words) in [
            ("[batch]\nmax_events = 0", "line 2: batch.max_events: is 0"),
            ("batch.max_events = 0", "line 1: batch.max_events: is 0"),
            ("[broker]\n\ntls = { cert = 'c' }", "line 3: broker.tls.cert: needs broker.tls.key"),
            ("[broker]\nsubjects = ['{prefix}.a']", "line 2: broker.subjects: \"{prefix}.a\" needs the setting prefix"),
            ("\u{feff}\n[[route]]\nsubject = 'a'\n[[route]]\nname = 'b'\nsubject = 'c'", "line 2: route a: has no sql"),
            (
                "prefix = 'p'\n[[query]]\nsubject = '{prefix}.q'\nsql = 'x'\nmax_rows = 0",
                "line 2: query p.q: max_rows is 0",
            ),
            (
                "[[route]]\nsubject='a'\nsql='x'\n[[route]]\nname='a'\nsubject='b'\nsql='x'",
                "line 4: route a: is used twice",
            ),
            ("[broker]\nuser = 'a'\ntoken = 'b'", "line 1: broker: give only one of"),
        ] {
            assert!(refusal(text).starts_with(words), "{text}: {}", refusal(text));
        }
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(&file, "\n[batch]\nmax_events = 0").expect("writes");
        let said = Config::from_toml_file(file.path()).expect_err("is 0").to_string();
        let place = format!("configuration: {}:3: batch.max_events: is 0", file.path().display());
        assert!(said.starts_with(&place), "{said}");
    }

    #[test]
    fn an_unknown_word_is_refused_with_the_known_ones() {
        for (text, words) in [
            ("[broker]\nserver = ['a']", "line 2: unknown key `server`; the closest one is `servers`"),
            ("[[queries]]", "line 1: unknown key `queries`; the closest one is `query`"),
            ("[[routes]]", "line 1: unknown key `routes`; the closest one is `route`"),
            ("[brokr]", "line 1: unknown key `brokr`; the closest one is `broker`"),
            ("delete_markers = 'kepe'", "unknown value `kepe`, expected one of `store`, `skip`, `dead_letter`"),
            ("delete_markers = 'skpi'", "unknown value `skpi`, expected one of `store`, `skip`, `dead_letter`"),
            ("delete_markers = 'only'", "line 1: delete_markers: is only, which is for routes"),
            ("delete_markers = 1", "expected a string, found a whole number"),
        ] {
            assert!(refusal(text).contains(words), "{text}: {}", refusal(text));
        }
        let all = refusal("[broker]\nno-setting = 1");
        assert!(all.contains("`prefetch`") && !all.contains("ahead"), "{all}");
        assert_eq!(keys_of(&["broker", "tls"]), ["required", "ca", "cert", "key"]);
        assert!(keys_of(&[]).contains(&"unmatched".to_owned()) && keys_of(&["prefix"]).is_empty());
        assert!(keys_of(&["nothing"]).is_empty());
    }

    #[test]
    fn a_file_is_read_as_the_text_in_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("a.toml");
        let name = file.display();
        let refusal = |bytes: &[u8]| {
            std::fs::write(&file, bytes).expect("writes");
            Config::from_toml_file(&file).expect_err("must be refused").to_string()
        };
        let missing = Config::from_toml_file(&file).expect_err("no such file").to_string();
        assert_eq!(missing, format!("configuration: {name}: there is no such file; check the file's name"));
        assert!(refusal(b"[broker]\nx = 1").starts_with(&format!("configuration: {name}:2: unknown key `x`")));
        let utf_16: Vec<u8> = "[broker]\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        for bytes in [&[b"\xff\xfe", &utf_16[..]].concat()[..], &utf_16, b"\xfe\xff\0[\0b", b"\0[\0b"] {
            assert!(refusal(bytes).contains(": is UTF-16 text; save it as UTF-8 (iconv"), "{bytes:?}");
        }
        assert!(refusal(b"# a\n# gr\xfc\xdfe\n").contains("is not UTF-8 text: line 2"));
        std::fs::write(&file, b"\xef\xbb\xbf[broker]\r\nstream = 'A'\r\n").expect("writes");
        assert_eq!(Config::from_toml_file(&file).expect("BOM and CRLF").broker.stream, "A");
        let dangling = folder.path().join("link.toml");
        std::os::unix::fs::symlink("nowhere", &dangling).expect("a link");
        let refusal = Config::from_toml_file(&dangling).expect_err("leads nowhere").to_string();
        assert!(refusal.contains("link.toml: is a link to a file that does not exist"), "{refusal}");
        let no_file = Config::from_toml_file(folder.path()).expect_err("a folder").to_string();
        assert!(no_file.contains(": is a folder, not a file"), "{no_file}");
    }

    #[test]
    fn no_refusal_has_the_words_of_a_parser() {
        let keys = "prefix unmatched broker broker.partitions broker.servers broker.user broker.creds broker.mode broker.create_stream \
                    broker.timeout broker.tls broker.tls.ca broker.prefetch.events broker.prefetch.bytes \
                    broker.core.overflow database.writers batch.max_bytes service.threads route query";
        let values =
            "99999999999999999999 -1 1.5 true 'many' '' [] [1] {} {a=1} 2026-01-01 nan 0x 'a 9223372036854775807";
        let parsers = "usize u32 u64 i64 i128 struct sequence map parsable overflow variant field path only Config floating \
                       wanted element";
        let mut refused = 0;
        for key in keys.split(' ') {
            for text in values.split(' ').map(|value| format!("{key} = {value}")) {
                let merged = text.parse::<Table>().ok().and_then(|table| from_table(table).err());
                let read = Config::from_toml(&text).err().map(|error| error.to_string());
                for said in read.into_iter().chain(merged) {
                    refused += 1;
                    // The list of keys may have any word.
                    let said = said.split(", expected one of").next().expect("a part").replace("a path,", "");
                    let words: Vec<&str> = said.split([' ', ',', ';', '(']).collect();
                    assert!(!parsers.split(' ').any(|word| words.contains(&word)), "{text}: {said}");
                    assert!(!said.contains('\n'), "{text}: {said}");
                }
            }
        }
        assert!(refused > 300, "{refused}");
    }

    #[test]
    fn refusals_are_in_the_words_of_the_file() {
        for (text, words) in [
            ("[broker]\ntimeout = 5", "line 2: expected a duration, as \"5s\", found a whole number"),
            ("[broker]\ntimeout = 'soon'", "line 2: \"soon\" is not valid; expected a duration, as \"5s\""),
            ("[batch]\nmax_bytes = 'many'", "line 2: \"many\" is not valid; expected a size, as \"4MiB\""),
            ("[batch]\nmax_bytes = -1", "line 2: `-1` is too small or too large; expected a whole number, at least 0"),
            (
                "[broker]\npartitions = -1",
                "line 2: `-1` is too small or too large; expected a whole number, at least 0",
            ),
            ("[database]\nwriters = 'x'", "line 2: expected a whole number, found a string"),
            ("[database]\npath = 1", "line 2: expected a path, as a string, found a whole number"),
            ("[broker]\npassword = 1234", "line 2: expected a string, found a whole number"),
            ("[broker]\nservers = 'a, expected b'", "line 2: expected a list, found a string"),
            ("[broker]\nmode = 1", "line 2: expected a string, found a value of another kind"),
            ("unmatched = 'x'", "line 1: unknown value `x`, expected `store` or `drop`"),
            ("[[route]]\nname = 'x'", "line 1: missing key `subject`"),
            ("a = 1\na = 2", "line 2: duplicate key"),
        ] {
            assert_eq!(refusal(text), words);
        }
        assert!(refusal("[route]\nsubject = 'a'").starts_with("line 1: expected a list, found a table (a table of"));
    }
}
