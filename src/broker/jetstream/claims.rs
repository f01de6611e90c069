//! Which database owns a consumer: this one, the file that it was copied from, or a copy of it.
//!
//! A consumer's name contains the database's identity, the time and process that created it, and the tag of the
//! database's file. Copies of a database have the same identity and different tags. So no collector deletes the
//! consumer of a copy or of its original. Clones of a disk have even the same tag. They are detected by a consumer of
//! ours from which another collector pulls.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::api::Api;
use super::api_error::ApiError;
use super::api_types::ConsumerInfo;
use crate::broker::broker_error;
use crate::error::{BrokerFault, Error};
use crate::pipeline::Signal;
use crate::unix_time::now_us;

/// The prefix of all names. The database's identity follows.
const PREFIX: &str = "catchment-";

/// What to do where two collectors use copies of one database.
pub(super) const RESOLVE_CONFLICT: &str =
    "stop that collector, or give one of the two databases an identity of its own: catchment adopt --database FILE";

/// The time between two looks at a consumer at which no request waits. A collector that polls (`broker.prefetch.poll_interval`)
/// requests more often.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How long a consumer that was seen in use must deliver nothing to count as unused. Its collector may have been held up.
pub(super) const QUIET: Duration = Duration::from_secs(1);

/// How long to wait for one answer. Nobody answers for a consumer whose server is down.
const ANSWER: Duration = Duration::from_secs(1);

/// A database as the owner of consumers.
#[derive(Clone, Debug, Default)]
pub struct Owner {
    /// Identifies the database. Copies have the same identity.
    pub identity: String,
    /// Identifies its file. Copies have another tag.
    pub tag: String,
    /// The tag of the file that it replaced. It owns that file's consumers now.
    pub replaced_tag: Option<String>,
    /// The file that it was copied from, if that may still be in use elsewhere.
    pub original: Option<OriginalDatabase>,
    /// Host and path of its file, for the description of its consumers.
    pub location: String,
}

/// The database that another one was copied from.
#[derive(Clone, Debug)]
pub struct OriginalDatabase {
    /// Identifies its file.
    pub tag: String,
    /// Its host and path.
    pub location: String,
}

/// The owner of a consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ownership {
    /// This process created it.
    ThisProcess,
    /// An earlier process created it for this database, or for the file that this database replaced.
    ThisDatabase,
    /// The file that this database was copied from owns it.
    OriginalDatabase,
    /// A copy of this database owns it.
    Copy,
}

/// A consumer whose name contains our identity.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    pub(super) name: String,
    pub(super) ownership: Ownership,
    /// `None` if it was not requested, or there was no answer. A consumer whose server is down counts too.
    info: Option<ConsumerInfo>,
    /// It delivered events between two looks.
    delivers: bool,
}

/// All consumers with our identity at one time.
#[derive(Debug, Default)]
pub(super) struct Claims {
    found: Vec<Claim>,
    /// Why the server did not list the consumers.
    pub(super) list_error: Option<String>,
}

/// The prefix of the names of consumers with this identity.
pub(super) fn stem(identity: &str) -> String {
    format!("{PREFIX}{identity}-")
}

/// A name that no consumer has. Names sort by the start of their process.
pub(super) fn new_name(owner: &Owner) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{}{}-{number}-{}", stem(&owner.identity), process(), owner.tag)
}

/// Identifies this process among all that ever used the database.
fn process() -> &'static str {
    static STARTED: OnceLock<String> = OnceLock::new();
    STARTED.get_or_init(|| format!("{:x}", now_us()))
}

/// The owner of the consumer with this name; `None` if it has another identity.
fn ownership(name: &str, owner: &Owner) -> Option<Ownership> {
    let mut parts = name.strip_prefix(&stem(&owner.identity))?.split('-');
    let (by, _number, tag) = (parts.next()?, parts.next(), parts.next());
    Some(match tag {
        Some(tag) if tag == owner.tag && by == process() => Ownership::ThisProcess,
        // No tag: it was created before names had one.
        None => Ownership::ThisDatabase,
        Some(tag) if tag == owner.tag || owner.replaced_tag.as_deref() == Some(tag) => Ownership::ThisDatabase,
        Some(tag) if owner.original.as_ref().is_some_and(|original| original.tag == tag) => Ownership::OriginalDatabase,
        Some(_) => Ownership::Copy,
    })
}

impl Claims {
    /// Lists the consumers with this identity, and requests the state of those that this process has not created.
    /// `previous` is the consumer of its last session, which counts as its own. A user without permission gets an empty
    /// list. Repeats the request until `timeout`: there is no answer while a cluster has no leader, and such a request is
    /// lost. A consumer that delivers nothing for `quiet` counts as unused.
    pub(super) fn list(
        api: &Api<'_>,
        stream: &str,
        owner: &Owner,
        previous: Option<&str>,
        timeout: Duration,
        quiet: Duration,
    ) -> Self {
        let (until, quick) = (Instant::now() + timeout, with_short_timeout(api));
        let is_over =
            || Instant::now() >= until || api.link.lost().is_raised() || api.stop.is_some_and(Signal::is_raised);
        let names = loop {
            match quick.consumer_names(stream) {
                Err(ApiError::NoAnswer(_)) if !is_over() => {}
                names => break names,
            }
        };
        let names = match names {
            Ok(names) => names,
            Err(failure) => return Self { found: Vec::new(), list_error: Some(failure.to_string()) },
        };
        let mut found = Vec::new();
        for name in names {
            let Some(ownership) = ownership(&name, owner) else { continue };
            let mut claim = Claim { name, ownership, info: None, delivers: false };
            if Some(claim.name.as_str()) == previous {
                claim.ownership = Ownership::ThisProcess;
            }
            if claim.ownership != Ownership::ThisProcess {
                claim.info = ask(api, stream, &claim.name);
            }
            found.push(claim);
        }
        let mut claims = Self { found, list_error: None };
        claims.look_again(api, stream, quiet);
        claims
    }

    /// Looks for consumers that a collector polls: mostly no request waits at them, but they deliver. Takes as long as `time` if there is a
    /// consumer that may be one and delivers nothing.
    fn look_again(&mut self, api: &Api<'_>, stream: &str, time: Duration) {
        let may_be_polled =
            |claim: &&mut Claim| !claim.is_in_use() && claim.delivered().is_some_and(|number| number > 0);
        let mut quiet: Vec<&mut Claim> = self.found.iter_mut().filter(may_be_polled).collect();
        if quiet.is_empty() {
            return;
        }
        let until = Instant::now() + time;
        loop {
            std::thread::sleep(LOOK_AGAIN);
            for claim in &mut quiet {
                let before = claim.delivered();
                if let Some(info) = ask(api, stream, &claim.name) {
                    claim.info = Some(info);
                    claim.delivers = claim.delivered() != before;
                }
            }
            quiet.retain(|claim| !claim.is_in_use());
            let is_over = Instant::now() >= until || api.stop.is_some_and(Signal::is_raised);
            if is_over || quiet.is_empty() {
                return;
            }
        }
    }

    /// Requests the states that are still missing. Drops the consumers for which no server answers.
    pub(super) fn complete(&mut self, api: &Api<'_>, stream: &str) {
        for claim in self.found.iter_mut().filter(|claim| claim.info.is_none()) {
            claim.info = ask(api, stream, &claim.name);
        }
        self.found.retain(|claim| claim.info.is_some());
    }

    /// The consumers that this database owns and may delete.
    pub(super) fn own(&self) -> impl Iterator<Item = &Claim> {
        self.found.iter().filter(|claim| matches!(claim.ownership, Ownership::ThisProcess | Ownership::ThisDatabase))
    }

    /// The consumers of copies and of the original.
    pub(super) fn others(&self) -> impl Iterator<Item = &Claim> {
        self.found.iter().filter(|claim| matches!(claim.ownership, Ownership::OriginalDatabase | Ownership::Copy))
    }

    /// A consumer of this database or of its original that another collector uses. Then this database must not be collected
    /// into.
    pub(super) fn contested(&self) -> Option<&Claim> {
        self.found.iter().find(|claim| {
            matches!(claim.ownership, Ownership::ThisDatabase | Ownership::OriginalDatabase) && claim.is_in_use()
        })
    }

    /// The latest end of a pause among our consumers.
    pub(super) fn pause(&self) -> Option<&str> {
        let pauses = self.own().filter_map(|claim| claim.info.as_ref()).filter(|info| info.paused);
        pauses.filter_map(|info| info.config.pause_until.as_deref()).max()
    }

    /// Consumers of this database, each with its name.
    #[cfg(test)]
    pub(super) fn of_this_database(consumers: impl IntoIterator<Item = (String, ConsumerInfo)>) -> Self {
        let ownership = Ownership::ThisDatabase;
        let claim = |(name, info)| Claim { name, ownership, info: Some(info), delivers: false };
        Self { found: consumers.into_iter().map(claim).collect(), list_error: None }
    }

    /// Removes the consumers with these names: they were deleted.
    pub(super) fn remove(&mut self, names: &[String]) {
        self.found.retain(|claim| !names.contains(&claim.name));
    }
}

impl Claim {
    /// Whether a pull request waits at it, or it delivered events between two looks. A request of a dead process waits until it
    /// expires, if the server did not notice the process's end.
    pub(super) fn is_in_use(&self) -> bool {
        self.delivers || self.info.as_ref().is_some_and(|info| info.num_waiting > 0)
    }

    /// The number of its last delivery.
    fn delivered(&self) -> Option<u64> {
        self.info.as_ref().map(|info| info.delivered.consumer_seq)
    }

    /// Its state when it was requested.
    pub(super) fn info(&self) -> Option<&ConsumerInfo> {
        self.info.as_ref()
    }

    /// The error for a consumer that another collector uses.
    pub(super) fn conflict(&self, server: &str, stream: &str) -> Error {
        let (name, maker) = (&self.name, self.maker());
        let detail = format!(
            "stream {stream}: another collector uses consumer {name}, created by {maker}, with a copy of this database"
        );
        broker_error(server, BrokerFault::Contested, detail).with_remedy(RESOLVE_CONFLICT)
    }

    /// The process and database that created it, from its description.
    pub(super) fn maker(&self) -> String {
        let description = self.info.as_ref().and_then(|info| info.config.description.clone());
        description.unwrap_or_else(|| "an unknown program".into())
    }
}

/// The same requests, with a shorter time-out.
fn with_short_timeout<'a>(api: &Api<'a>) -> Api<'a> {
    Api { link: api.link, prefix: api.prefix.clone(), timeout: api.timeout.min(ANSWER), stop: api.stop }
}

fn ask(api: &Api<'_>, stream: &str, name: &str) -> Option<ConsumerInfo> {
    with_short_timeout(api)
        .consumer(stream, name)
        .inspect_err(|failure| log::debug!("broker: consumer {name}: {failure}"))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner() -> Owner {
        Owner {
            identity: "0123456789abcdef".into(),
            tag: "aaaaaaaa".into(),
            replaced_tag: Some("bbbbbbbb".into()),
            original: Some(OriginalDatabase { tag: "cccccccc".into(), location: "host:/b.db".into() }),
            location: "host:/a.db".into(),
        }
    }

    #[test]
    fn a_name_tells_whose_a_consumer_is() {
        let owner = owner();
        let new = new_name(&owner);
        assert!(new.starts_with("catchment-0123456789abcdef-") && new.ends_with("-aaaaaaaa"), "{new}");
        assert_ne!(new, new_name(&owner));
        for (name, expected) in [
            (new.as_str(), Some(Ownership::ThisProcess)),
            ("catchment-0123456789abcdef-1-0-aaaaaaaa", Some(Ownership::ThisDatabase)),
            ("catchment-0123456789abcdef-1-0-bbbbbbbb", Some(Ownership::ThisDatabase)),
            ("catchment-0123456789abcdef-1-0", Some(Ownership::ThisDatabase)),
            ("catchment-0123456789abcdef-1-0-cccccccc", Some(Ownership::OriginalDatabase)),
            ("catchment-0123456789abcdef-1-0-dddddddd", Some(Ownership::Copy)),
            ("catchment-fedcba9876543210-1-0-aaaaaaaa", None),
            ("mine", None),
        ] {
            assert_eq!(ownership(name, &owner), expected, "{name}");
        }
    }
}
