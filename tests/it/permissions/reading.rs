//! What reads a stream needs its permissions, and ends at once without one.

use serde_json::json;

use super::{Fixture, Lists, count};
use crate::support::collector::{catchment, output, printed, stderr};
use crate::support::server::needs;

#[test]
fn reading_the_stream_needs_each_of_its_permissions() {
    let commands = [&["tail", "--incoming", "-n", "5", "--no-follow"][..], &["infer", "events.a"], &["verify"]];
    for arguments in commands {
        let mut fixture = Fixture::new("");
        let lists = fixture.lists("read", &[]);
        assert_eq!(lists.publish.len(), 2, "{lists:?}");
        fixture.needs_each(&lists, |fixture, user| {
            if user == "full" {
                fixture.server().make_stream("EVENTS", &["events.>"]);
                fixture.publish();
                printed(&mut fixture.command(None, &["run", "--drain"]));
            }
            let done = output(&mut fixture.command(Some(user), &[arguments, &["--timeout", "1s"]].concat()));
            assert!(user != "full" || done.status.success(), "{}", stderr(&done));
        });
    }
}

#[test]
fn replay_needs_each_of_its_permissions() {
    let mut fixture = Fixture::new("");
    let lists = fixture.lists("replay", &[]);
    assert_eq!(lists.publish.len(), 7, "{lists:?}");
    fixture.needs_each(&lists, |fixture, user| {
        if user == "full" {
            fixture.server().make_stream("EVENTS", &["events.>"]);
            fixture.publish();
        }
        let into = fixture.folder.path().join(format!("{user}.db"));
        let mut replay = fixture.command(Some(user), &["replay", "--from-seq", "5", "--timeout", "1s"]);
        replay.arg("--into").arg(&into).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
        let replay = replay.spawn().expect("starts");
        let done = replay.wait_with_output().expect("ends");
        let said = stderr(&done);
        // What is lacking for a consumer only, it does without.
        if done.status.success() {
            assert_eq!(count(&into), 6, "{said}");
            let expected = usize::from(user != "full");
            assert_eq!(
                said.matches("without a consumer: this user may not publish to $JS.API.CONSUMER").count(),
                expected
            );
        } else {
            assert!(user != "full" && said.lines().count() == 1 && said.contains("this user may not "), "{said}");
        }
    });
}

#[test]
fn repartition_needs_each_of_its_permissions() {
    if !needs((2, 12), "partitions of whole subjects") {
        return;
    }
    let mut fixture = Fixture::new("[broker]\npartitions = 2");
    let lists = fixture.lists("repartition", &[]);
    assert_eq!(lists.publish, ["$JS.API.STREAM.INFO.EVENTS", "$JS.API.STREAM.UPDATE.EVENTS"]);
    fixture.needs_each(&lists, |fixture, user| {
        if user == "full" {
            fixture.server().make_stream("EVENTS", &["events.>"]);
            // Finding out what is allowed changes nothing.
            printed(&mut fixture.command(Some(user), &["check", "--permissions=repartition"]));
        } else {
            fixture.server().ask("$JS.API.STREAM.DELETE.EVENTS", &serde_json::Value::Null);
            fixture.server().make_stream("EVENTS", &["events.>"]);
        }
        let done = output(&mut fixture.command(Some(user), &["repartition", "--timeout", "5s"]));
        let (printed, said) = (String::from_utf8_lossy(&done.stdout), stderr(&done));
        if user == "full" {
            assert_eq!(printed, "stream EVENTS has 2 partitions now (before: none)\n", "{said}");
        } else {
            assert!(
                !done.status.success() && said.lines().count() == 1 && said.contains("this user may not "),
                "{said}"
            );
        }
    });
}

#[test]
fn a_denied_request_ends_what_reads_the_stream_at_once_in_one_line() {
    let mut fixture = Fixture::new("");
    let all = fixture.lists("read", &[]);
    let without = |word: &str| Lists {
        publish: all.publish.iter().filter(|one| !one.contains(word)).cloned().collect(),
        ..all.clone()
    };
    fixture.serve([without("INFO").user("noinfo"), without("MSG.GET").user("noget"), all.user("full")]);
    fixture.server().make_stream("EVENTS", &["events.>"]);
    let mut publish = catchment();
    publish.args(["publish", "events.a", "--count", "1500", "--server", &fixture.server().url(), "--config"]);
    printed(publish.arg(&fixture.settings));
    printed(&mut fixture.command(None, &["run", "--drain"]));
    fixture.server().ask("$JS.API.STREAM.MSG.DELETE.EVENTS", &json!({ "seq": 7 }));
    for (user, denied) in [("noinfo", "$JS.API.STREAM.INFO.EVENTS"), ("noget", "$JS.API.STREAM.MSG.GET.EVENTS")] {
        for arguments in [&["verify"][..], &["gaps", "--all"], &["replay", "--from-seq", "5", "--into", "new.db"]] {
            // With this patience the test would fail if it waited for an answer.
            let mut command = fixture.command(Some(user), &[arguments, &["--timeout", "1h"]].concat());
            let done = output(command.current_dir(fixture.folder.path()));
            let said = stderr(&done);
            // The list of what an event's neighbours are is not needed of stored ones.
            if (user, arguments[0]) == ("noget", "gaps") {
                assert!(done.status.success(), "{said}");
                continue;
            }
            // Then only the beginning is read through a consumer.
            let is_verify = (user, arguments[0]) == ("noget", "verify");
            assert!(said.lines().count() == 1 + usize::from(is_verify), "{said}");
            let expected = format!("this user may not publish to \"{denied}\"; allow it at the server");
            assert!(done.status.code() == Some(1) && said.contains(&expected), "{user} {arguments:?}: {said}");
        }
    }
    // A user who may read and make no consumer.
    let done = output(&mut fixture.command(Some("full"), &["verify", "--timeout", "1h"]));
    let said = stderr(&done);
    assert!(done.status.success() && said.contains("message by message, which is slower: this user may not"), "{said}");
}
