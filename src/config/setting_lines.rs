//! Which line of a settings file has which setting.

use std::collections::BTreeMap;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::file::{EARLIER_KEY, line_at, read_text};
use crate::input_format::without_byte_order_mark;

/// The line of each setting that a file has: `broker.stream`, `route[0].sql`, and that of each table: `route[0]`. Empty if the file
/// cannot be read.
pub(crate) fn lines_of(file: &Path) -> BTreeMap<String, usize> {
    let mut lines = BTreeMap::new();
    let Ok(text) = read_text(file, "") else { return lines };
    let text = without_byte_order_mark(&text);
    if let Ok(table) = DeTable::parse(text) {
        add_lines(table.get_ref(), "", &mut |path, at| _ = lines.insert(path, line_at(text.as_bytes(), at)));
    }
    lines
}

/// Calls `add` with the path and the place of everything in a table.
fn add_lines(table: &DeTable<'_>, outer: &str, add: &mut dyn FnMut(String, usize)) {
    for (key, value) in table {
        let name = if outer == "broker." && key.get_ref() == EARLIER_KEY { "prefetch" } else { key.get_ref() };
        let path = format!("{outer}{name}");
        add(path.clone(), key.span().start);
        match value.get_ref() {
            DeValue::Table(inner) => add_lines(inner, &format!("{path}."), add),
            DeValue::Array(items) => {
                for (number, item) in items.iter().enumerate() {
                    if let DeValue::Table(inner) = item.get_ref() {
                        let path = format!("{path}[{number}]");
                        add(path.clone(), item.span().start);
                        add_lines(inner, &format!("{path}."), add);
                    }
                }
            }
            _ => {}
        }
    }
}
