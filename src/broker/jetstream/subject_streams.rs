//! Which subjects have a stream, as the server says. While a cluster elects the leader of a stream, nobody takes its events, and the
//! publisher gets the same answer as where there is no stream.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// The number of subjects to keep.
const MAX_SUBJECTS: usize = 1_000;

/// After so long, the server is asked again.
const VALID: Duration = Duration::from_secs(1);

/// The subjects whose streams were asked for, on one connection.
#[derive(Debug, Default)]
pub(super) struct SubjectStreams(HashMap<String, Known>);

#[derive(Debug)]
struct Known {
    asked: Instant,
    /// No stream has the subject, or the user may not ask.
    has_none: bool,
}

impl SubjectStreams {
    /// Whether to ask for the streams of this subject now. It then counts as asked.
    pub(super) fn ask(&mut self, subject: &str) -> bool {
        match self.0.get_mut(subject) {
            Some(known) if known.asked.elapsed() < VALID => return false,
            Some(known) => known.asked = Instant::now(),
            None => {
                if self.0.len() >= MAX_SUBJECTS {
                    self.0.clear();
                }
                self.0.insert(subject.to_owned(), Known { asked: Instant::now(), has_none: false });
            }
        }
        true
    }

    /// Notes what the server has answered.
    pub(super) fn note(&mut self, subject: &str, has_none: bool) {
        if let Some(known) = self.0.get_mut(subject) {
            known.has_none = has_none;
        }
    }

    /// Whether a stream has this subject, or may have it: there is no answer yet.
    pub(super) fn may_have(&self, subject: &str) -> bool {
        self.0.get(subject).is_some_and(|known| !known.has_none)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_may_have_a_stream_until_the_server_says_that_it_has_none() {
        let mut subjects = SubjectStreams::default();
        assert!(!subjects.may_have("a"), "nobody has asked");
        assert!(subjects.ask("a") && !subjects.ask("a"), "asked once");
        assert!(subjects.may_have("a"));
        subjects.note("a", true);
        subjects.note("b", false);
        assert!(!subjects.may_have("a") && !subjects.may_have("b"));
        assert!(subjects.ask("b"));
        subjects.note("a", false);
        assert!(subjects.may_have("a"), "it was made meanwhile");
    }

    #[test]
    fn few_subjects_are_kept() {
        let mut subjects = SubjectStreams::default();
        for number in 0..3 * MAX_SUBJECTS {
            assert!(subjects.ask(&number.to_string()));
            assert!(subjects.0.len() <= MAX_SUBJECTS);
        }
    }
}
