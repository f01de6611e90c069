//! An operating system that gives no more threads, as the limits of a container have it.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use crate::support::collector::{output, stderr};
use crate::support::fixture::Fixture;
use crate::support::oracle;

/// A user without any process, for the limit counts those of a user, and root has none.
const NOBODY: u32 = 54_321;

#[test]
fn a_thread_that_is_refused_is_one_line_whichever_it_is() {
    let fixture = Fixture::new();
    let folder = tempfile::tempdir().expect("a folder");
    let all_may = |path: &std::path::Path| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).expect("sets");
    };
    let program = folder.path().join("catchment");
    std::fs::copy(env!("CARGO_BIN_EXE_catchment"), &program).expect("copies");
    all_may(folder.path());
    all_may(&program);
    let database = folder.path().join("a.db");
    let with_threads = |threads: u32, arguments: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"), "--clear-groups".into()]);
        command.args(["prlimit".into(), format!("--nproc={threads}:{threads}")]).arg(&program).args(arguments);
        command.args(["--server", &fixture.server.url(), "--database"]).arg(&database).current_dir(folder.path());
        command.env_remove("RUST_BACKTRACE").stdin(Stdio::null());
        output(&mut command)
    };
    let tried = with_threads(100, &["publish", "events.a", "one"]);
    if !tried.status.success() {
        eprintln!("skipped: a_thread_that_is_refused_is_one_line_whichever_it_is: {}", stderr(&tried));
        return;
    }
    // At higher limits the start succeeds; connecting is tried again where a thread is refused later.
    let commands = [(&["run", "--drain", "--quiet"][..], 8), (&["publish", "events.a", "more", "--quiet"], 3)];
    for (arguments, most) in commands {
        for threads in 1..=most {
            let done = with_threads(threads, arguments);
            let said = stderr(&done);
            assert_eq!(done.status.code(), Some(1), "{threads}: {said}");
            assert_eq!(said.lines().count(), 1, "{threads}: {said}");
            assert!(said.starts_with("catchment: ") && said.contains("no thread "), "{threads}: {said}");
            assert!(said.contains("raise the limit of processes"), "{threads}: {said}");
        }
    }
    assert!(with_threads(100, &["run", "--drain"]).status.success());
    oracle::sound(&database);
    assert_eq!(oracle::payloads(&database)[0], "one");
}
