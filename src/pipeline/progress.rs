//! How far the events of a stream are committed, for threads that wait for one of them.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use parking_lot::{Condvar, Mutex};

use super::epoch::Mark;
use crate::unix_time::at_ns;

/// How far the current epoch of a stream is committed. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    moved: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The number of the epoch; 0 before the first.
    epoch: u32,
    /// Events up to this sequence are committed.
    committed: u64,
    /// When the last of them was published, in nanoseconds since 1970.
    published_ns: i64,
    /// The last event that was passed to the pipeline.
    handed: u64,
    /// Every event up to this sequence was passed to the pipeline, or is not to be stored.
    seen: u64,
    /// Nothing more will be committed.
    ended: bool,
}

/// How far a stream is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Position {
    /// The number of the stream's epoch in this database, from 1. An epoch ends when the stream is created again.
    pub epoch: u32,
    /// The sequence of the last committed event; 0 before the first.
    pub sequence: u64,
    /// When the stream stored that event; `None` before the first.
    pub published: Option<SystemTime>,
}

/// Ends the progress when the last of its clones is dropped: each thread of a pipeline has one.
#[derive(Clone, Debug)]
pub(super) struct EndOnDrop {
    _last: Arc<Last>,
}

#[derive(Debug)]
struct Last(Progress);

impl Drop for Last {
    fn drop(&mut self) {
        self.0.0.state.lock().ended = true;
        self.0.0.moved.notify_all();
    }
}

impl Progress {
    /// The events that follow belong to this epoch, which is committed up to this mark. Does nothing if it is the current one.
    pub fn begin(&self, epoch: u32, Mark { sequence, published_ns }: Mark) {
        let mut state = self.0.state.lock();
        if state.epoch != epoch {
            let ended = state.ended;
            *state = State { epoch, committed: sequence, published_ns, handed: sequence, seen: sequence, ended };
            self.0.moved.notify_all();
        }
    }

    /// The intake has passed on the events up to `handed`. Those up to `seen` were passed on too, or are not to be stored. Call it
    /// before the batch that has them is committed.
    pub fn received(&self, handed: u64, seen: u64) {
        let mut state = self.0.state.lock();
        let seen = seen.max(state.seen);
        if (state.handed, state.seen) != (handed, seen) {
            (state.handed, state.seen) = (handed, seen);
            self.0.moved.notify_all();
        }
    }

    /// The events of this epoch are committed up to this mark. Does nothing if it is not the current epoch.
    pub(super) fn committed(&self, epoch: u32, mark: Mark) {
        let mut state = self.0.state.lock();
        if state.epoch == epoch {
            (state.committed, state.published_ns) = (mark.sequence, mark.published_ns);
            self.0.moved.notify_all();
        }
    }

    /// Blocks until all events up to this sequence are committed or are not to be stored, at most until the deadline, and not after
    /// the pipeline has ended. Returns whether they are.
    #[must_use]
    pub fn wait_for(&self, sequence: u64, until: Instant) -> bool {
        let mut state = self.0.state.lock();
        while !state.has_settled(sequence) && !state.ended {
            if self.0.moved.wait_until(&mut state, until).timed_out() {
                break;
            }
        }
        state.has_settled(sequence)
    }

    /// How far the events are committed; `None` before the first epoch, and where events come from no stream.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        let state = self.0.state.lock();
        let published = (state.published_ns > 0).then(|| at_ns(state.published_ns));
        (state.epoch > 0).then_some(Position { epoch: state.epoch, sequence: state.committed, published })
    }

    /// Whether the pipeline has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.0.state.lock().ended
    }

    /// Something whose last drop ends this.
    pub(super) fn end_on_drop(&self) -> EndOnDrop {
        EndOnDrop { _last: Arc::new(Last(self.clone())) }
    }
}

impl State {
    fn has_settled(&self, sequence: u64) -> bool {
        // What is not to be stored is settled as soon as the events before it are.
        let settled = if self.committed >= self.handed { self.seen.max(self.committed) } else { self.committed };
        self.epoch > 0 && settled >= sequence
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn mark(sequence: u64) -> Mark {
        Mark { sequence, published_ns: 7 }
    }

    fn settled(progress: &Progress, sequence: u64) -> bool {
        progress.wait_for(sequence, Instant::now())
    }

    #[test]
    fn an_event_is_settled_once_it_and_all_before_it_are_committed() {
        let progress = Progress::default();
        assert!(!settled(&progress, 0), "no epoch has begun");
        progress.begin(1, mark(5));
        assert!(settled(&progress, 5) && !settled(&progress, 6));
        progress.received(8, 8);
        assert!(!settled(&progress, 6));
        progress.committed(1, mark(7));
        assert!(settled(&progress, 7) && !settled(&progress, 8));
        progress.committed(1, mark(8));
        assert!(settled(&progress, 8) && !settled(&progress, 9));
        let published = Some(at_ns(7));
        assert_eq!(progress.position(), Some(Position { epoch: 1, sequence: 8, published }));
    }

    #[test]
    fn what_is_passed_over_waits_for_the_events_before_it() {
        let progress = Progress::default();
        progress.begin(1, mark(0));
        progress.received(2, 9);
        assert!(!settled(&progress, 2) && !settled(&progress, 9));
        progress.committed(1, mark(2));
        assert!(settled(&progress, 9) && !settled(&progress, 10));
    }

    #[test]
    fn commits_of_an_older_epoch_do_not_count() {
        let progress = Progress::default();
        progress.begin(1, mark(0));
        progress.received(9, 9);
        progress.begin(2, mark(0));
        progress.committed(1, mark(9));
        assert!(!settled(&progress, 1));
        progress.begin(2, mark(7));
        assert!(!settled(&progress, 1), "it has begun already");
    }

    #[test]
    fn a_waiting_thread_is_woken_by_the_commit_and_by_the_end() {
        let progress = Progress::default();
        progress.begin(1, mark(0));
        let end = progress.end_on_drop();
        let of_a_thread = end.clone();
        std::thread::scope(|scope| {
            let wait = |sequence| progress.wait_for(sequence, Instant::now() + Duration::from_mins(1));
            let first = scope.spawn(move || wait(1));
            let second = scope.spawn(move || wait(2));
            progress.received(1, 1);
            progress.committed(1, mark(1));
            assert!(first.join().expect("no panic"));
            drop(end);
            assert!(!progress.has_ended());
            drop(of_a_thread);
            assert!(!second.join().expect("no panic"), "nothing more will be committed");
        });
    }
}
