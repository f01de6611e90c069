//! Which fields payloads have: how often, and with which types.

use std::collections::BTreeMap;

use super::document::{Document, Kind};

/// How deep objects are taken apart. Deeper ones are one value.
const DEPTH: usize = 5;

/// An object with more names than this is a map with names that are data: it is one value.
const MOST_NAMES: usize = 64;

/// The names of a payload that are counted. Each is a field.
const MOST_TOP_NAMES: usize = 2_000;

/// The most fields in all.
const MOST_FIELDS: usize = 200;

/// The longest example, in characters.
const EXAMPLE: usize = 40;

/// What was seen at one place of the payloads.
#[derive(Debug, Default)]
struct Node {
    present: usize,
    nulls: usize,
    kinds: BTreeMap<Kind, usize>,
    example: Option<String>,
    /// In the order in which they were first seen.
    children: Vec<(String, Node)>,
}

/// A value of the payloads that becomes a column.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// The names that lead to it, from the outside in.
    pub path: Vec<String>,
    /// In how many payloads it is, null included.
    pub present: usize,
    /// In how many it is null.
    pub nulls: usize,
    /// How often it has each type.
    pub kinds: BTreeMap<Kind, usize>,
    /// A value, shortened.
    pub example: Option<String>,
}

impl Field {
    /// Its JSON Pointer (RFC 6901).
    pub fn pointer(&self) -> String {
        self.path
            .iter()
            .fold(String::new(), |pointer, name| pointer + "/" + &name.replace('~', "~0").replace('/', "~1"))
    }
}

/// The fields of many payloads.
#[derive(Debug, Default)]
pub struct Fields {
    root: Node,
}

impl Fields {
    /// Adds a payload.
    pub fn add(&mut self, document: &Document) {
        self.root.add(document, 0);
    }

    /// How many payloads are objects.
    pub fn objects(&self) -> usize {
        self.root.kinds.get(&Kind::Object).copied().unwrap_or_default()
    }

    /// The fields, in the order in which they were first seen, and how many more there are than a table should have columns.
    pub fn list(&self) -> (Vec<Field>, usize) {
        let mut fields = Vec::new();
        for (name, node) in &self.root.children {
            node.list(&mut vec![name.clone()], &mut fields);
        }
        let more = fields.len().saturating_sub(MOST_FIELDS);
        fields.truncate(MOST_FIELDS);
        (fields, more)
    }
}

impl Node {
    fn add(&mut self, document: &Document, depth: usize) {
        self.present += 1;
        match document.kind() {
            None => self.nulls += 1,
            Some(kind) => *self.kinds.entry(kind).or_default() += 1,
        }
        if self.example.is_none() {
            self.example = example(document);
        }
        let Document::Object(fields) = document else { return };
        let most = if depth == 0 { MOST_TOP_NAMES } else { MOST_NAMES };
        for (at, (name, value)) in fields.iter().enumerate() {
            // Of several fields with one name, the first counts, as for a route.
            if depth < DEPTH
                && !fields[..at].iter().any(|(earlier, _)| earlier == name)
                && let Some(child) = self.child(name, most)
            {
                child.add(value, depth + 1);
            }
        }
    }

    /// The child of this name; `None` if there are too many. One more than the most shows that.
    fn child(&mut self, name: &str, most: usize) -> Option<&mut Self> {
        let known = self.children.iter().position(|(known, _)| known == name);
        let at = known.or_else(|| {
            let has_room = self.children.len() <= most;
            has_room.then(|| {
                self.children.push((name.to_owned(), Self::default()));
                self.children.len() - 1
            })
        })?;
        Some(&mut self.children[at].1)
    }

    /// Whether it is always an object with few names, so that its fields become columns.
    fn is_taken_apart(&self) -> bool {
        !self.children.is_empty()
            && self.children.len() <= MOST_NAMES
            && self.kinds.keys().all(|kind| *kind == Kind::Object)
    }

    fn list(&self, path: &mut Vec<String>, fields: &mut Vec<Field>) {
        if !self.is_taken_apart() || path.len() >= DEPTH {
            let Self { present, nulls, kinds, example, .. } = self;
            let (path, kinds, example) = (path.clone(), kinds.clone(), example.clone());
            return fields.push(Field { path, present: *present, nulls: *nulls, kinds, example });
        }
        for (name, node) in &self.children {
            path.push(name.clone());
            node.list(path, fields);
            path.pop();
        }
    }
}

fn example(document: &Document) -> Option<String> {
    let text = match document {
        Document::Null => return None,
        Document::Scalar { text, .. } => text.as_str(),
        Document::Array => "[…]",
        Document::Object(_) => "{…}",
    };
    let short: String = text.chars().take(EXAMPLE).collect();
    Some(if short.len() < text.len() { short + "…" } else { short })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(payloads: &[&str]) -> Vec<Field> {
        let mut fields = Fields::default();
        for payload in payloads {
            fields.add(&Document::read(payload.as_bytes()).expect(payload));
        }
        fields.list().0
    }

    #[test]
    fn values_are_counted_by_place_and_type() {
        let found = fields(&[
            r#"{"z": 1, "a": {"b/c": "x", "d": {}}, "l": [1]}"#,
            r#"{"z": 2.5, "a": {"b/c": null}, "z": "twice"}"#,
            r#"{"z": "text", "a": null, "m": {"k": 1}}"#,
            r#"{"m": 7}"#,
        ]);
        let pointers: Vec<_> = found.iter().map(Field::pointer).collect();
        assert_eq!(pointers, ["/z", "/a/b~1c", "/a/d", "/l", "/m"]);
        let counts: Vec<_> = found.iter().map(|field| (field.present, field.nulls)).collect();
        assert_eq!(counts, [(3, 0), (2, 1), (1, 0), (1, 0), (2, 0)]);
        let kinds = |at: usize| found[at].kinds.iter().map(|(kind, count)| (*kind, *count)).collect::<Vec<_>>();
        assert_eq!(kinds(0), [(Kind::Integer, 1), (Kind::Real, 1), (Kind::Text, 1)]);
        assert_eq!(kinds(4), [(Kind::Integer, 1), (Kind::Object, 1)]);
        assert_eq!(found[1].example.as_deref(), Some("\"x\""));
    }

    #[test]
    fn an_object_with_names_that_are_data_is_one_value() {
        let names: Vec<String> = (0..100).map(|number| format!("\"user-{number}\": {{\"x\": 1}}")).collect();
        let found = fields(&[&format!("{{\"seen\": {{{}}}}}", names.join(", "))]);
        assert_eq!(found.iter().map(Field::pointer).collect::<Vec<_>>(), ["/seen"]);
        let deep = r#"{"a": {"a": {"a": {"a": {"a": {"a": 1}}}}}}"#;
        assert_eq!(fields(&[deep])[0].pointer(), "/a/a/a/a/a");
        let wide: Vec<String> = (0..60).map(|number| format!("\"f{number}\": {number}")).collect();
        let of = |at: usize| format!("\"g{at}\": {{{}}}", wide.join(", "));
        let mut many = Fields::default();
        many.add(&Document::read(format!("{{{}, {}, {}, {}}}", of(0), of(1), of(2), of(3)).as_bytes()).expect("JSON"));
        let (listed, more) = many.list();
        assert_eq!((listed.len(), more), (200, 40));
        let flat: Vec<String> = (0..300).map(|number| format!("\"f{number}\": {number}")).collect();
        let mut many = Fields::default();
        many.add(&Document::read(format!("{{{}}}", flat.join(", ")).as_bytes()).expect("JSON"));
        let (listed, more) = many.list();
        assert!(listed.iter().all(|field| field.present == 1));
        assert_eq!((listed.len(), more, listed[199].pointer()), (200, 100, "/f199".into()));
    }
}
