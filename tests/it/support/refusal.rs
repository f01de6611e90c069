//! A command that fails as it should: one line, the right status, in time, and no secret in it.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::eventually_within;

/// The grace, beside a time-out of one second, for starting a process on a busy machine.
pub const GRACE: Duration = Duration::from_secs(3);

/// Secrets that the tests use; none may ever be shown.
pub const SECRETS: [&str; 3] = ["hunter2-right", "hunter2-wrong", "hunter2-token"];

/// Runs a command that must end with this status, within the time-out, and say all of this in its one line.
#[track_caller]
pub fn refused(command: &mut Command, status: i32, words: &[&str]) {
    let said = ends(command, status, words);
    assert_eq!(said.lines().count(), 1, "one line: {said}");
}

/// As [`refused`], but the log may say more before.
#[track_caller]
pub fn ends(command: &mut Command, status: i32, words: &[&str]) -> String {
    let began = Instant::now();
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("catchment starts");
    let ended = eventually_within(Duration::from_secs(20), "an end", &mut || child.try_wait().expect("can be asked"));
    let took = began.elapsed();
    let mut said = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut said).expect("UTF-8");
    let mut results = String::new();
    child.stdout.take().expect("piped").read_to_string(&mut results).expect("UTF-8");
    let last = said.lines().last().unwrap_or_default();
    assert!(last.starts_with("catchment: "), "{said}");
    assert_eq!(results, "", "standard output is for results");
    for word in words {
        assert!(last.contains(word), "{word:?} is not in: {said}");
    }
    for secret in SECRETS {
        assert!(!said.contains(secret), "a secret is shown: {said}");
    }
    assert_eq!(ended.code(), Some(status), "{said}");
    assert!(took < Duration::from_secs(1) + GRACE, "took {took:?}: {said}");
    said
}
