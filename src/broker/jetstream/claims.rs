//! Whose a stream's consumers are: this database's own, those of the file it comes from, those of its copies.
//!
//! A consumer's name has the database's identity, when and by which process it was made, and the tag of the database's file.
//! Copies of a database have one identity and different tags, so nobody deletes the consumer of a copy or of its original.
//! Two that have even the same tag (clones of a disk) show by a consumer that is in use, and not by us: somebody else pulls
//! from it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::api::Api;
use super::api_error::ApiError;
use super::api_types::ConsumerInfo;
use crate::pipeline::Signal;

/// The stem of the names, followed by a database's identity.
const PREFIX: &str = "catchment-";

/// How long to wait for one answer: nobody answers for a consumer whose server is down.
const ANSWER: Duration = Duration::from_secs(1);

/// A database, as the owner of consumers.
#[derive(Clone, Debug, Default)]
pub struct Owner {
    /// Names the database. Copies have the same.
    pub identity: String,
    /// Tells its file from copies.
    pub tag: String,
    /// The tag of the file whose place it took, and whose consumers are its own now.
    pub replaced_tag: Option<String>,
    /// The file that it comes from, where that may still be in use elsewhere.
    pub original: Option<OriginalDatabase>,
    /// Host and path of its file: what its consumers say of themselves.
    pub location: String,
}

/// Where a database comes from.
#[derive(Clone, Debug)]
pub struct OriginalDatabase {
    /// Tells the file from copies.
    pub tag: String,
    /// Its host and path.
    pub location: String,
}

/// Whose a consumer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ownership {
    /// Made by this process.
    ThisProcess,
    /// Made by an earlier process on this database, or on the file whose place it took.
    ThisDatabase,
    /// Of the file that this database comes from.
    OriginalDatabase,
    /// Of a copy.
    Copy,
}

/// A consumer of a database with our identity.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    pub(super) name: String,
    pub(super) ownership: Ownership,
    /// `None` where it was not asked for, or nobody answered: a consumer whose server is down is one too.
    info: Option<ConsumerInfo>,
}

/// All of them, as the server had them when it was asked.
#[derive(Debug, Default)]
pub(super) struct Claims {
    found: Vec<Claim>,
    /// Why the server could not be asked.
    pub(super) list_error: Option<String>,
}

/// What the names of consumers with this identity begin with.
pub(super) fn stem(identity: &str) -> String {
    format!("{PREFIX}{identity}-")
}

/// A name that no consumer has. Later ones come later in the alphabet, unless they are of one process.
pub(super) fn new_name(owner: &Owner) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{}{}-{number}-{}", stem(&owner.identity), process(), owner.tag)
}

/// Names this process among those that ever used a database.
fn process() -> &'static str {
    static STARTED: OnceLock<String> = OnceLock::new();
    STARTED.get_or_init(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        format!("{:x}", now.as_micros())
    })
}

/// Ownership the consumer of this name is; `None` where it is of another identity.
fn ownership(name: &str, owner: &Owner) -> Option<Ownership> {
    let mut parts = name.strip_prefix(&stem(&owner.identity))?.split('-');
    let (by, _number, tag) = (parts.next()?, parts.next(), parts.next());
    Some(match tag {
        Some(tag) if tag == owner.tag && by == process() => Ownership::ThisProcess,
        // Without a tag: made before names had one.
        None => Ownership::ThisDatabase,
        Some(tag) if tag == owner.tag || owner.replaced_tag.as_deref() == Some(tag) => Ownership::ThisDatabase,
        Some(tag) if owner.original.as_ref().is_some_and(|original| original.tag == tag) => Ownership::OriginalDatabase,
        Some(_) => Ownership::Copy,
    })
}

impl Claims {
    /// Asks for the consumers of this identity, and how those are that this process has not made. `previous` is the one of its
    /// last session, whoever made it. A user who may not ask has none. Asks again for as long as `timeout` lasts: nobody answers
    /// while a cluster has no leader, and a request of that time is lost.
    pub(super) fn ask(api: &Api<'_>, stream: &str, owner: &Owner, previous: Option<&str>, timeout: Duration) -> Self {
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
            let mut claim = Claim { name, ownership, info: None };
            if Some(claim.name.as_str()) == previous {
                claim.ownership = Ownership::ThisProcess;
            }
            if claim.ownership != Ownership::ThisProcess {
                claim.info = ask(api, stream, &claim.name);
            }
            found.push(claim);
        }
        Self { found, list_error: None }
    }

    /// Asks how those are that were not asked for; who does not answer is none.
    pub(super) fn complete(&mut self, api: &Api<'_>, stream: &str) {
        for claim in self.found.iter_mut().filter(|claim| claim.info.is_none()) {
            claim.info = ask(api, stream, &claim.name);
        }
        self.found.retain(|claim| claim.info.is_some());
    }

    /// Those that this database may do with as it likes.
    pub(super) fn own(&self) -> impl Iterator<Item = &Claim> {
        self.found.iter().filter(|claim| matches!(claim.ownership, Ownership::ThisProcess | Ownership::ThisDatabase))
    }

    /// Those of copies and of the original.
    pub(super) fn others(&self) -> impl Iterator<Item = &Claim> {
        self.found.iter().filter(|claim| matches!(claim.ownership, Ownership::OriginalDatabase | Ownership::Copy))
    }

    /// One that somebody else uses, though it is ours or our original's: then this database must not be collected into.
    pub(super) fn contested(&self) -> Option<&Claim> {
        self.found.iter().find(|claim| {
            matches!(claim.ownership, Ownership::ThisDatabase | Ownership::OriginalDatabase) && claim.is_in_use()
        })
    }

    /// Until when an operator wants none of our consumers to deliver.
    pub(super) fn pause(&self) -> Option<&str> {
        let pauses = self.own().filter_map(|claim| claim.info.as_ref()).filter(|info| info.paused);
        pauses.filter_map(|info| info.config.pause_until.as_deref()).max()
    }

    /// Consumers of our own, each with its name.
    #[cfg(test)]
    pub(super) fn of_this_database(consumers: impl IntoIterator<Item = (String, ConsumerInfo)>) -> Self {
        let claim = |(name, info)| Claim { name, ownership: Ownership::ThisDatabase, info: Some(info) };
        Self { found: consumers.into_iter().map(claim).collect(), list_error: None }
    }

    /// Takes those of these names out: they are gone.
    pub(super) fn remove(&mut self, names: &[String]) {
        self.found.retain(|claim| !names.contains(&claim.name));
    }
}

impl Claim {
    /// Whether somebody pulls from it now, or did before the server could notice his end: at most as long ago as a pull request
    /// lasts.
    pub(super) fn is_in_use(&self) -> bool {
        self.info.as_ref().is_some_and(|info| info.num_waiting > 0)
    }

    /// How it was when it was asked.
    pub(super) fn info(&self) -> Option<&ConsumerInfo> {
        self.info.as_ref()
    }

    /// For people: that it is in use, and the ways out.
    pub(super) fn conflict(&self, stream: &str) -> String {
        let (name, maker) = (&self.name, self.maker());
        format!(
            "stream {stream}: another collector uses consumer {name}, made by {maker}, with a copy of this database; stop \
             that one, or give one of the two an identity of its own: catchment adopt"
        )
    }

    /// For people: who made it.
    pub(super) fn maker(&self) -> String {
        let description = self.info.as_ref().and_then(|info| info.config.description.clone());
        description.unwrap_or_else(|| "somebody who did not say".into())
    }
}

/// The same requests, with less timeout.
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
