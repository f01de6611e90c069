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

/// Whether a route has a value of its own for a parameter of this name, so that it is no field of the payload.
pub fn is_reserved(parameter: &str) -> bool {
    ["subject", "stream", "sequence", "published_s", "published_us", "message_id", "payload"].contains(&parameter)
        || parameter.starts_with("token_")
        || parameter.starts_with("header_")
}

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
}
