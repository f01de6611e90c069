//! Which subjects have a stream, as the server says. While a cluster elects the leader of a stream, nobody takes its events, and the
//! publisher gets the same answer as where there is no stream.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// The number of subjects to keep: more than there are events in flight.
const MAX_SUBJECTS: usize = 20_000;

/// The number of requests that are open at a time.
const MAX_OPEN: usize = 256;

/// After so long, the server is asked again.
const VALID: Duration = Duration::from_secs(2);

/// The subjects whose streams are asked for, on one connection.
#[derive(Debug, Default)]
pub(super) struct SubjectStreams {
    known: HashMap<String, Known>,
    /// Those to ask for.
    waiting: VecDeque<String>,
    open: usize,
    /// The user may not ask.
    is_denied: bool,
}

#[derive(Debug)]
struct Known {
    asked: Instant,
    /// It waits, or its request is open.
    is_due: bool,
    /// No stream has the subject.
    has_none: bool,
}

impl SubjectStreams {
    /// Has the streams of this subject asked for, if that is not known or was some time ago.
    pub(super) fn want(&mut self, subject: &str) {
        if self.is_denied {
            return;
        }
        match self.known.get_mut(subject) {
            Some(known) if known.is_due || known.asked.elapsed() < VALID => return,
            Some(known) => known.is_due = true,
            None => {
                if self.known.len() >= MAX_SUBJECTS {
                    self.known.clear();
                    self.waiting.clear();
                }
                self.known.insert(subject.to_owned(), Known { asked: Instant::now(), is_due: true, has_none: false });
            }
        }
        self.waiting.push_back(subject.to_owned());
    }

    /// The next subject to ask for now. Call [`SubjectStreams::answered`] for each.
    pub(super) fn next_to_ask(&mut self) -> Option<String> {
        if self.open >= MAX_OPEN {
            return None;
        }
        let subject = self.waiting.pop_front()?;
        self.open += 1;
        Some(subject)
    }

    /// Notes the server's answer: whether no stream has the subject. `None`: it cannot say at the moment.
    pub(super) fn answered(&mut self, subject: &str, has_none: Option<bool>) {
        self.open = self.open.saturating_sub(1);
        if let Some(known) = self.known.get_mut(subject) {
            known.asked = Instant::now();
            known.is_due = false;
            known.has_none = has_none.unwrap_or(known.has_none);
        }
    }

    /// Asks no more: the user may not.
    pub(super) fn deny(&mut self) {
        self.is_denied = true;
        self.waiting.clear();
    }

    /// Whether a stream has this subject, or may have it: the server has not said otherwise, and may be asked.
    pub(super) fn may_have(&self, subject: &str) -> bool {
        !self.is_denied && self.known.get(subject).is_none_or(|known| !known.has_none)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_may_have_a_stream_until_the_server_says_that_it_has_none() {
        let mut subjects = SubjectStreams::default();
        assert!(subjects.may_have("a"));
        subjects.want("a");
        subjects.want("a");
        assert_eq!((subjects.next_to_ask().as_deref(), subjects.next_to_ask()), (Some("a"), None), "asked once");
        subjects.answered("a", None);
        assert!(subjects.may_have("a"));
        subjects.answered("a", Some(true));
        assert!(!subjects.may_have("a") && subjects.may_have("b"));
        subjects.want("a");
        assert_eq!(subjects.next_to_ask(), None, "it was just asked");
        subjects.answered("a", Some(false));
        assert!(subjects.may_have("a"), "it was made meanwhile");
        subjects.deny();
        subjects.want("b");
        assert_eq!((subjects.may_have("a"), subjects.next_to_ask()), (false, None));
    }

    #[test]
    fn all_subjects_are_asked_for_and_few_at_a_time() {
        let mut subjects = SubjectStreams::default();
        (0..1_000).for_each(|number| subjects.want(&number.to_string()));
        let mut asked = 0;
        loop {
            let open: Vec<String> = std::iter::from_fn(|| subjects.next_to_ask()).collect();
            assert!(open.len() <= MAX_OPEN);
            if open.is_empty() {
                break;
            }
            asked += open.len();
            for subject in &open {
                subjects.answered(subject, Some(true));
            }
        }
        assert_eq!(asked, 1_000);
        assert!((0..1_000).all(|number| !subjects.may_have(&number.to_string())));
    }

    #[test]
    fn few_subjects_are_kept() {
        let mut subjects = SubjectStreams::default();
        (0..3 * MAX_SUBJECTS).for_each(|number| subjects.want(&number.to_string()));
        assert!(subjects.known.len() <= MAX_SUBJECTS && subjects.waiting.len() <= MAX_SUBJECTS);
    }
}
