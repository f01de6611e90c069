//! Names of tables, columns and parameters from names in payloads and subjects, which may be anything.

use std::collections::BTreeSet;

/// The longest name, in characters.
const LONGEST: usize = 60;

/// Names that are given once. SQL does not distinguish `a` and `A`.
#[derive(Default)]
pub struct Names(BTreeSet<String>);

impl Names {
    /// A name like this one that was not given before: letters, digits and `_`, not beginning with a digit.
    pub fn unique(&mut self, like: &str) -> String {
        let name = plain(like);
        let mut given = name.clone();
        let mut number = 2;
        while !self.0.insert(given.to_lowercase()) {
            given = format!("{name}_{number}");
            number += 1;
        }
        given
    }
}

/// The text with `_` for everything that needs quotes in SQL.
pub fn plain(text: &str) -> String {
    let mut name = String::new();
    for c in text.chars().take(LONGEST) {
        let c = if c.is_ascii_alphanumeric() { c } else { '_' };
        if c != '_' || !name.ends_with('_') {
            name.push(c);
        }
    }
    let name = if text.starts_with('_') { &name } else { name.trim_start_matches('_') };
    let name = if text.ends_with('_') { name } else { name.trim_end_matches('_') };
    match name.chars().next() {
        None => "field".into(),
        Some(first) if first.is_ascii_digit() => format!("_{name}"),
        Some(_) => name.to_owned(),
    }
}

/// A plain name as an SQL identifier: in quotes if it is a keyword.
pub fn identifier(name: &str) -> String {
    let is_plain = !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let is_keyword = KEYWORDS.split_whitespace().any(|keyword| keyword.eq_ignore_ascii_case(name));
    if is_plain && !is_keyword { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// Whether a route has a value of its own for a parameter of this name, so that it is no field of the payload.
pub fn is_reserved(parameter: &str) -> bool {
    ["subject", "stream", "sequence", "published_s", "published_us", "message_id", "payload"].contains(&parameter)
        || parameter.starts_with("token_")
        || parameter.starts_with("header_")
}

/// SQLite's keywords: <https://sqlite.org/lang_keywords.html>.
const KEYWORDS: &str = "abort action add after all alter always analyze and as asc attach autoincrement before begin between by
    cascade case cast check collate column commit conflict constraint create cross current current_date current_time current_timestamp
    database default deferrable deferred delete desc detach distinct do drop each else end escape except exclude exclusive exists
    explain fail filter first following for foreign from full generated glob group groups having if ignore immediate in index indexed
    initially inner insert instead intersect into is isnull join key last left like limit match materialized natural no not nothing
    notnull null nulls of offset on or order others outer over partition plan pragma preceding primary query raise range recursive
    references regexp reindex release rename replace restrict returning right rollback row rows savepoint select set table temp
    temporary then ties to transaction trigger unbounded union unique update using vacuum values view virtual when where window with
    without rowid oid _rowid_ true false";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_becomes_a_name() {
        for (text, name) in [
            ("userName", "userName"),
            ("user-name", "user_name"),
            ("\"; DROP TABLE x; --", "DROP_TABLE_x"),
            ("größe", "gr_e"),
            ("7up", "_7up"),
            ("", "field"),
            ("…", "field"),
            ("_id", "_id"),
            ("$type", "type"),
        ] {
            assert_eq!(plain(text), name, "{text}");
        }
        assert_eq!(plain(&"x".repeat(500)).len(), LONGEST);
        let mut names = Names::default();
        assert_eq!(["id", "ID", "i d", "id"].map(|name| names.unique(name)), ["id", "ID_2", "i_d", "id_3"]);
    }

    #[test]
    fn keywords_are_quoted() {
        let shown = ["order", "Group", "name", "rowid", "a b", "a\"b", ""].map(identifier);
        assert_eq!(shown, ["\"order\"", "\"Group\"", "name", "\"rowid\"", "\"a b\"", "\"a\"\"b\"", "\"\""]);
    }
}
