//! Long operations: how far they are, and how a caller cancels them.

use std::ops::ControlFlow;
use std::thread;
use std::time::Duration;

use crossbeam_channel::RecvTimeoutError;

use crate::error::Error;

/// How often progress is reported.
pub(crate) const REPORT_EVERY: Duration = Duration::from_millis(100);

/// How far a long operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// What is done at the moment: `copying`, `checking`.
    pub step: &'static str,
    /// How much of this step is done.
    pub done: u64,
    /// How much there is to do, if it is known. It may grow while the step goes on.
    pub total: Option<u64>,
    /// What is counted: `pages`, `events`, `rows`, `bytes`.
    pub unit: &'static str,
}

/// The caller's side of a long operation. The operation reports its progress several times a second, on the thread that called it,
/// and ends early with [`Error::Cancelled`] if the caller's function returns [`ControlFlow::Break`].
#[derive(Clone, Copy)]
pub(crate) struct Task<'a> {
    name: &'static str,
    report: &'a dyn Fn(Progress) -> ControlFlow<()>,
}

impl<'a> Task<'a> {
    /// `name` is the operation as errors name it: `the backup`.
    pub(crate) fn new(name: &'static str, report: &'a dyn Fn(Progress) -> ControlFlow<()>) -> Self {
        Self { name, report }
    }

    /// Reports progress.
    ///
    /// # Errors
    ///
    /// [`Error::Cancelled`] where the caller cancels the operation.
    pub(crate) fn report(
        &self,
        step: &'static str,
        done: u64,
        total: Option<u64>,
        unit: &'static str,
    ) -> Result<(), Error> {
        match (self.report)(Progress { step, done, total, unit }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Cancelled { operation: self.name }),
        }
    }
}

/// Does work that cannot report by itself on a thread of this name. Meanwhile this thread calls `report` every [`REPORT_EVERY`]. Once
/// that has failed, it calls `cancel` instead, again and again, because the work may begin something new after the first call. Work that
/// succeeds all the same was complete before.
///
/// # Errors
///
/// That of the work, or where it failed after `report`, that of `report`; [`Error::Thread`].
pub(crate) fn run_beside<T: Send>(
    name: &'static str,
    work: impl FnOnce() -> Result<T, Error> + Send,
    mut report: impl FnMut() -> Result<(), Error>,
    mut cancel: impl FnMut(),
) -> Result<T, Error> {
    let (done, until_done) = crossbeam_channel::bounded(1);
    thread::scope(|scope| {
        let work = move || _ = done.send(work());
        let thread = thread::Builder::new().name(name.into());
        thread.spawn_scoped(scope, work).map_err(|source| Error::Thread { name: name.into(), source })?;
        let mut reported = Ok(());
        loop {
            match until_done.recv_timeout(REPORT_EVERY) {
                Ok(result) => return result.or_else(|error| reported.and(Err(error))),
                Err(RecvTimeoutError::Disconnected) => return Err(Error::Ended),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if reported.is_ok() {
                reported = report();
            }
            if reported.is_err() {
                cancel();
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn a_caller_sees_how_far_it_is_and_cancels() {
        let last = Cell::new(None);
        let report = |progress: Progress| {
            last.set(Some(progress));
            if progress.done < 2 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        let task = Task::new("the backup", &report);
        assert!(task.report("copying", 1, Some(4), "pages").is_ok());
        assert_eq!(last.get(), Some(Progress { step: "copying", done: 1, total: Some(4), unit: "pages" }));
        let error = task.report("copying", 2, None, "pages").unwrap_err();
        assert_eq!(error.to_string(), "the backup was cancelled");
    }

    #[test]
    fn work_on_another_thread_is_reported_and_cancelled_until_it_ends() {
        let (reports, cancels) = (Cell::new(0), AtomicU32::new(0));
        let until = |enough: &AtomicU32, result: Result<u32, Error>| {
            while enough.load(Ordering::Relaxed) < 2 {
                thread::sleep(Duration::from_millis(1));
            }
            result
        };
        let report = || {
            reports.set(reports.get() + 1);
            Err(Error::Cancelled { operation: "the work" })
        };
        let cancel = || _ = cancels.fetch_add(1, Ordering::Relaxed);
        let ended = run_beside("catchment-work", || until(&cancels, Err(Error::Ended)), report, cancel);
        assert!(matches!(ended, Err(Error::Cancelled { .. })) && reports.get() == 1);
        cancels.store(0, Ordering::Relaxed);
        let ended = run_beside("catchment-work", || until(&cancels, Ok(5)), report, cancel);
        assert_eq!(ended.expect("it was complete"), 5);

        let reported = AtomicU32::new(0);
        let report = || {
            reported.fetch_add(1, Ordering::Relaxed);
            Ok(())
        };
        let ended = run_beside("catchment-work", || until(&reported, Ok(7)), report, || panic!("it was not cancelled"));
        assert_eq!(ended.expect("it ends"), 7);
    }
}
