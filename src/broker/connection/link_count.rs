//! Counts the threads of links. A server that makes calls hang for days must not use up the process's threads.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Threads of links, and links in use. The other threads open or close a connection, or hang in a call that does not return.
static THREADS: AtomicUsize = AtomicUsize::new(0);
static IN_USE: AtomicUsize = AtomicUsize::new(0);

const MOST_LEFT_BEHIND: usize = 64;

/// The number of threads that belong to no link in use, if there must not be more of them.
pub(super) fn too_many_left_behind() -> Option<usize> {
    let left_behind = THREADS.load(Ordering::Relaxed).saturating_sub(IN_USE.load(Ordering::Relaxed));
    Some(left_behind).filter(|left_behind| *left_behind >= MOST_LEFT_BEHIND)
}

/// Counts for as long as it lives.
pub(super) struct Counted(&'static AtomicUsize);

impl Counted {
    /// A thread of a link.
    pub(super) fn thread() -> Self {
        Self::among(&THREADS)
    }

    /// A link in use.
    pub(super) fn in_use() -> Self {
        Self::among(&IN_USE)
    }

    fn among(count: &'static AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
