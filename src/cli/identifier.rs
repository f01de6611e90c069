//! Names as they are written in SQL.

/// A name as an SQL identifier: in quotes if it must be.
pub fn identifier(name: &str) -> String {
    let is_plain = name.starts_with(|c: char| c.is_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_alphanumeric() || c == '_');
    let is_keyword = KEYWORDS.split_whitespace().any(|keyword| keyword.eq_ignore_ascii_case(name));
    if is_plain && !is_keyword { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
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
    fn what_is_no_plain_name_and_keywords_are_quoted() {
        let shown =
            ["order", "Group", "transaction", "name", "größe", "rowid", "a b", "a\"b", "7up", ""].map(identifier);
        let expected = [
            "\"order\"",
            "\"Group\"",
            "\"transaction\"",
            "name",
            "größe",
            "\"rowid\"",
            "\"a b\"",
            "\"a\"\"b\"",
            "\"7up\"",
            "\"\"",
        ];
        assert_eq!(shown, expected);
    }
}
