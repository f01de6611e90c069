//! The paths in a payload that parameters need, as a tree, so that a payload is read once from front to back.

use super::fields::Cell;

/// A node of the tree: parameters need its own value, values within it, or both.
#[derive(Clone, Debug, Default)]
pub(super) struct PathTree {
    /// The number of its field, if its own value is needed.
    pub(super) field: Option<usize>,
    children: Vec<Child>,
}

/// A named value in an object, or an element of an array.
#[derive(Clone, Debug)]
struct Child {
    name: Box<str>,
    /// The name as the index of an element, counted from 0.
    index: Option<usize>,
    node: PathTree,
}

impl PathTree {
    /// Adds the value at this JSON Pointer. The number of its field is `next`, unless it has one already.
    pub(super) fn add_pointer(&mut self, pointer: &str, next: usize) -> usize {
        let names = pointer.split('/').skip(1).map(|name| name.replace("~1", "/").replace("~0", "~"));
        let node = names.fold(self, |node, name| node.child(&name));
        *node.field.get_or_insert(next)
    }

    /// Adds the field of this name.
    pub(super) fn add_name(&mut self, name: &str, next: usize) -> usize {
        *self.child(name).field.get_or_insert(next)
    }

    fn child(&mut self, name: &str) -> &mut Self {
        let at = self.children.iter().position(|child| &*child.name == name).unwrap_or_else(|| {
            self.children.push(Child { name: name.into(), index: index(name), node: Self::default() });
            self.children.len() - 1
        });
        &mut self.children[at].node
    }

    /// Whether no value within it is needed.
    pub(super) fn is_leaf(&self) -> bool {
        self.children.is_empty()
    }

    /// The node of this name. Names often come in the order of the statements' parameters: `expected` is where to search first.
    pub(super) fn named(&self, name: &[u8], expected: &mut usize) -> Option<&Self> {
        let mut at = *expected;
        for _ in 0..self.children.len() {
            let child = self.children.get(at).or_else(|| {
                at = 0;
                self.children.first()
            })?;
            at += 1;
            if child.name.as_bytes() == name {
                *expected = at;
                return Some(&child.node);
            }
        }
        None
    }

    /// The node of the element with this index.
    pub(super) fn element(&self, index: usize) -> Option<&Self> {
        self.children.iter().find(|child| child.index == Some(index)).map(|child| &child.node)
    }

    /// Sets the cells of all values within it to NULL: of several fields with one name, the last counts.
    pub(super) fn clear(&self, cells: &mut [Cell]) {
        for Child { node, .. } in &self.children {
            if let Some(field) = node.field {
                cells[field] = Cell::Null;
            }
            node.clear(cells);
        }
    }
}

/// An index as RFC 6901 defines it: digits without a leading zero.
fn index(name: &str) -> Option<usize> {
    let digits = name.bytes().all(|c| c.is_ascii_digit()) && (name == "0" || !name.starts_with('0'));
    if digits { name.parse().ok() } else { None }
}
