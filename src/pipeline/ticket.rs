//! Makes the writers commit batches in the order of their tickets.

use parking_lot::{Condvar, Mutex};

/// Admits one ticket at a time, in order.
#[derive(Debug, Default)]
pub(super) struct Gate {
    state: Mutex<State>,
    moved: Condvar,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    closed: bool,
}

/// Held by the writer whose ticket is admitted. Dropping it without [`Turn::done`] closes the gate: no batch may be committed
/// after one that was not.
pub(super) struct Turn<'a> {
    gate: &'a Gate,
    done: bool,
}

impl Gate {
    /// Blocks until it is this ticket's turn. `None` when the gate was closed.
    pub(super) fn enter(&self, ticket: u64) -> Option<Turn<'_>> {
        let mut state = self.state.lock();
        while state.next != ticket && !state.closed {
            self.moved.wait(&mut state);
        }
        let open = !state.closed;
        drop(state);
        open.then(|| Turn { gate: self, done: false })
    }
}

impl Turn<'_> {
    /// Admits the next ticket.
    pub(super) fn done(mut self) {
        self.done = true;
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.gate.state.lock();
        if self.done {
            state.next += 1;
        } else {
            state.closed = true;
        }
        self.gate.moved.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn tickets_pass_in_order_whichever_comes_first() {
        let gate = Gate::default();
        let (passed, order) = mpsc::channel();
        std::thread::scope(|scope| {
            for ticket in [3, 1, 2, 0] {
                let (gate, passed) = (&gate, passed.clone());
                scope.spawn(move || {
                    let turn = gate.enter(ticket).expect("the gate stays open");
                    passed.send(ticket).expect("the test receives it");
                    turn.done();
                });
            }
        });
        drop(passed);
        assert_eq!(order.iter().collect::<Vec<_>>(), [0, 1, 2, 3]);
    }

    #[test]
    fn no_ticket_passes_after_one_that_was_not_done() {
        let gate = Gate::default();
        std::thread::scope(|scope| {
            let later = scope.spawn(|| gate.enter(1).is_none());
            drop(gate.enter(0));
            assert!(later.join().expect("no panic"));
        });
        assert!(gate.enter(2).is_none());
    }
}
