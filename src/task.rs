//! Long operations: how far they are, and how a caller cancels them.

use std::ops::ControlFlow;

use crate::error::Error;

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

#[cfg(test)]
mod tests {
    use std::cell::Cell;

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
}
