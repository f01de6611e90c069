//! Which places of a payload are asked for: a tree, so that a payload is read once, from front to back.

use super::fields::Cell;

/// A place that is asked for itself, or for places within it, or both.
#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    /// The number of its field, where it is asked for itself.
    pub(super) field: Option<usize>,
    steps: Vec<Step>,
}

/// From an object or an array to a place in it.
#[derive(Clone, Debug)]
struct Step {
    name: Box<str>,
    /// The name as the index of an array's element, counted from 0.
    index: Option<usize>,
    place: Place,
}

impl Place {
    /// Asks for the place at this JSON Pointer. The number of its field is `next`, unless it has one.
    pub(super) fn ask(&mut self, pointer: &str, next: usize) -> usize {
        let names = pointer.split('/').skip(1).map(|name| name.replace("~1", "/").replace("~0", "~"));
        let place = names.fold(self, |place, name| place.step(&name));
        *place.field.get_or_insert(next)
    }

    /// Asks for the field of this name.
    pub(super) fn ask_name(&mut self, name: &str, next: usize) -> usize {
        *self.step(name).field.get_or_insert(next)
    }

    fn step(&mut self, name: &str) -> &mut Self {
        let at = self.steps.iter().position(|step| &*step.name == name).unwrap_or_else(|| {
            self.steps.push(Step { name: name.into(), index: index(name), place: Self::default() });
            self.steps.len() - 1
        });
        &mut self.steps[at].place
    }

    /// Whether no place within it is asked for.
    pub(super) fn is_leaf(&self) -> bool {
        self.steps.is_empty()
    }

    /// The place with this name. Names mostly come in the order in which statements ask for them: `expected` is where to look first.
    pub(super) fn named(&self, name: &[u8], expected: &mut usize) -> Option<&Self> {
        let mut at = *expected;
        for _ in 0..self.steps.len() {
            let step = self.steps.get(at).or_else(|| {
                at = 0;
                self.steps.first()
            })?;
            at += 1;
            if step.name.as_bytes() == name {
                *expected = at;
                return Some(&step.place);
            }
        }
        None
    }

    /// The place of the element with this index.
    pub(super) fn element(&self, index: usize) -> Option<&Self> {
        self.steps.iter().find(|step| step.index == Some(index)).map(|step| &step.place)
    }

    /// Forgets what was read of the places within it: of several fields with one name the last one counts.
    pub(super) fn forget(&self, cells: &mut [Cell]) {
        for Step { place, .. } in &self.steps {
            if let Some(field) = place.field {
                cells[field] = Cell::Null;
            }
            place.forget(cells);
        }
    }
}

/// An index as RFC 6901 writes them: digits, without a leading zero.
fn index(name: &str) -> Option<usize> {
    let digits = name.bytes().all(|c| c.is_ascii_digit()) && (name == "0" || !name.starts_with('0'));
    if digits { name.parse().ok() } else { None }
}
