//! The paths in a payload that parameters need, as a tree, so that a payload is read once from front to back.

/// A node of the tree: parameters need its own value, values within it, or both.
#[derive(Clone, Debug, Default)]
pub(super) struct PathTree {
    /// The number of its field, if its own value is needed.
    pub(super) field: Option<usize>,
    children: Vec<Child>,
    /// Refuse an object with a name that has no node.
    pub(super) closed: bool,
    /// Refuse any value but an object, null, and an array of which an element is needed. It is the JSON Pointer of the value.
    pub(super) expects_object: Option<Box<str>>,
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

    /// Whether nothing within it is looked at.
    pub(super) fn is_leaf(&self) -> bool {
        self.children.is_empty() && !self.closed
    }

    /// Refuses names that have no node, in this object and in those within it, except within values that are needed whole.
    pub(super) fn close(&mut self) {
        self.closed = self.field.is_none();
        if self.closed {
            self.children.iter_mut().for_each(|child| child.node.close());
        }
    }

    /// Refuses values without names where a value within is needed, at any depth. `pointer` is that of this node.
    pub(super) fn expect_objects(&mut self, pointer: &str) {
        if self.is_leaf() {
            return;
        }
        self.expects_object = Some(pointer.into());
        for child in &mut self.children {
            let name = child.name.replace('~', "~0").replace('/', "~1");
            child.node.expect_objects(&format!("{pointer}/{name}"));
        }
    }

    /// Whether an element of an array is needed.
    pub(super) fn has_elements(&self) -> bool {
        self.children.iter().any(|child| child.index.is_some())
    }

    /// The node of the element with this index.
    pub(super) fn element(&self, index: usize) -> Option<&Self> {
        self.children.iter().find(|child| child.index == Some(index)).map(|child| &child.node)
    }
}

/// The names of one object while it is read: finds their nodes. Of several fields with one name, the first counts.
#[derive(Debug)]
pub(super) struct Names<'p> {
    node: &'p PathTree,
    /// Names often come in the order of the statements' parameters: this is the child to compare first.
    expected: usize,
    /// The children that were found, one bit each.
    found: u64,
    /// The same for further children.
    found_later: Vec<u64>,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Named<'p> {
    /// A needed value, or one with needed values in it.
    Node(&'p PathTree),
    /// The same, but an earlier field has the name.
    Repeated,
    /// Nothing that is needed.
    Unknown,
}

impl<'p> Names<'p> {
    pub(super) fn of(node: &'p PathTree) -> Self {
        Self { node, expected: 0, found: 0, found_later: Vec::new() }
    }

    pub(super) fn find(&mut self, name: &[u8]) -> Named<'p> {
        let children = &self.node.children;
        let mut at = self.expected;
        for _ in 0..children.len() {
            if at >= children.len() {
                at = 0;
            }
            if children[at].name.as_bytes() == name {
                self.expected = at + 1;
                return if self.is_first(at) { Named::Node(&children[at].node) } else { Named::Repeated };
            }
            at += 1;
        }
        Named::Unknown
    }

    /// Whether a child is found for the first time.
    fn is_first(&mut self, child: usize) -> bool {
        const BITS: usize = u64::BITS as usize;
        let found = if child < BITS {
            &mut self.found
        } else {
            let at = child / BITS - 1;
            if self.found_later.len() <= at {
                self.found_later.resize(at + 1, 0);
            }
            &mut self.found_later[at]
        };
        let bit = 1 << (child % BITS);
        let first = *found & bit == 0;
        *found |= bit;
        first
    }
}

/// An index as RFC 6901 defines it: digits without a leading zero.
fn index(name: &str) -> Option<usize> {
    let digits = name.bytes().all(|c| c.is_ascii_digit()) && (name == "0" || !name.starts_with('0'));
    if digits { name.parse().ok() } else { None }
}
