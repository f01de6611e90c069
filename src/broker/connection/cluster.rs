//! The servers of one cluster: those of the configuration, and others that these announce.
//!
//! A server lists the others of its cluster in its `INFO`
//! (<https://docs.nats.io/using-nats/developer/connecting/cluster>). They are tried after the configured ones, so that a
//! program with one configured address survives the loss of that server.
//!
//! The address of a server that `catchment run --with-server` started is in a file. The file is read again for each connection: when
//! the server is started again, it may have another port.

use parking_lot::Mutex;

use super::access;
use super::address_file::address_in;
use crate::config::{BrokerConfig, split_scheme, without_secrets};
use crate::error::Error;

/// The servers that may be connected to, and the settings for all of them.
#[derive(Debug)]
pub struct Cluster {
    config: BrokerConfig,
    known: Mutex<Vec<Known>>,
}

/// A server's address with the secrets in it: never shown.
struct Known {
    url: String,
    /// Announced by another server.
    learnt: bool,
}

impl std::fmt::Debug for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Known").field("learnt", &self.learnt).finish_non_exhaustive()
    }
}

impl Cluster {
    /// The servers of the configuration. Connects to none.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] with the first address that is not valid.
    pub fn new(config: &BrokerConfig) -> Result<Self, Error> {
        config.servers.iter().try_for_each(|server| access::parse(server).map(drop))?;
        let known = config.servers.iter().map(|url| Known { url: url.clone(), learnt: false }).collect();
        Ok(Self { config: config.clone(), known: Mutex::new(known) })
    }

    /// The settings.
    pub(in crate::broker) fn config(&self) -> &BrokerConfig {
        &self.config
    }

    /// The addresses to try, in this order. Reads the file with the address, if there is one in the settings.
    pub(in crate::broker) fn urls(&self) -> Vec<String> {
        self.read_address_file();
        self.known.lock().iter().map(|known| known.url.clone()).collect()
    }

    /// The configured servers for a log line or an error, without secrets; where a file names the server, the one it named last.
    pub(in crate::broker) fn shown(&self) -> String {
        if self.config.address_file.is_none() {
            return self.config.shown_servers();
        }
        let known = self.known.lock();
        let named = known.iter().filter(|one| !one.learnt).map(|one| without_secrets(&one.url));
        named.collect::<Vec<_>>().join(", ")
    }

    /// Replaces the servers by the one that the file names, if that is another. Without the file, the last one stays: it may be
    /// starting again on the same port.
    fn read_address_file(&self) {
        let Some(url) = self.config.address_file.as_deref().and_then(address_in) else { return };
        let mut known = self.known.lock();
        if access::parse(&url).is_err() || known.iter().any(|one| !one.learnt && one.url == url) {
            return;
        }
        let server = without_secrets(&url);
        log::info!(event = "server.moved", server:% = server; "broker: the server has another address now: {server}");
        *known = vec![Known { url, learnt: false }];
    }

    /// Replaces the announced servers by those that the server at `through` announces. They get its scheme, and its user if that
    /// is in the address.
    pub(in crate::broker) fn learn(&self, through: &str, announced: &[String]) {
        let mut known = self.known.lock();
        let through_is_learnt = known.iter().any(|one| one.learnt && one.url == through);
        known.retain(|one| !one.learnt || (through_is_learnt && one.url == through));
        for address in announced {
            let url = beside(through, address);
            if access::parse(&url).is_ok() && !known.iter().any(|one| same(&one.url, &url)) {
                known.push(Known { url, learnt: true });
            }
        }
    }

    /// From now on the others are tried first.
    pub(in crate::broker) fn put_last(&self, url: &str) {
        self.known.lock().sort_by_key(|known| known.url == url);
    }

    /// Whether there is another server than this.
    pub(in crate::broker) fn has_others(&self, url: &str) -> bool {
        self.known.lock().iter().any(|known| known.url != url)
    }
}

/// `address` (host and port) with the other parts of the URL `through`.
fn beside(through: &str, address: &str) -> String {
    let (scheme, rest) = split_scheme(through);
    let scheme = scheme.unwrap_or("nats");
    match rest.rsplit_once('@') {
        Some((user, _)) => format!("{scheme}://{user}@{address}"),
        None => format!("{scheme}://{address}"),
    }
}

/// Whether two URLs lead to the same place.
fn same(one: &str, other: &str) -> bool {
    match (access::parse(one), access::parse(other)) {
        (Ok(one), Ok(other)) => (one.host(), one.port()) == (other.host(), other.port()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(servers: &[&str]) -> Cluster {
        let servers = servers.iter().map(|&server| server.to_owned()).collect();
        Cluster::new(&BrokerConfig { servers, ..BrokerConfig::default() }).expect("addresses")
    }

    #[test]
    fn other_servers_are_learnt_once_and_later_forgotten() {
        let cluster = cluster(&["tls://me:pw@a:4222", "nats://b"]);
        cluster.learn("tls://me:pw@a:4222", &["a:4222".into(), "b:4222".into(), "c:4222".into()]);
        assert_eq!(cluster.urls(), ["tls://me:pw@a:4222", "nats://b", "tls://me:pw@c:4222"]);
        cluster.learn("tls://me:pw@c:4222", &["d:1".into()]);
        assert_eq!(cluster.urls(), ["tls://me:pw@a:4222", "nats://b", "tls://me:pw@c:4222", "tls://me:pw@d:1"]);
        cluster.learn("nats://b", &[]);
        assert_eq!(cluster.urls(), ["tls://me:pw@a:4222", "nats://b"]);
        assert!(!format!("{cluster:?}").contains("pw"));
    }

    #[test]
    fn the_address_in_a_file_is_read_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("a.db.server");
        let config = BrokerConfig {
            servers: vec!["nats://127.0.0.1:1".into()],
            address_file: Some(file.clone()),
            ..BrokerConfig::default()
        };
        let cluster = Cluster::new(&config).expect("an address");
        assert_eq!(cluster.urls(), ["nats://127.0.0.1:1"], "there is no file");
        std::fs::write(&file, "nats://127.0.0.1:2\n").expect("writes");
        assert_eq!(cluster.urls(), ["nats://127.0.0.1:2"]);
        assert_eq!(cluster.shown(), "nats://127.0.0.1:2");
        for text in ["nats://127.0.0.1:3", "nats://127.0.0.1:99999\n", ""] {
            std::fs::write(&file, text).expect("writes");
            assert_eq!(cluster.urls(), ["nats://127.0.0.1:2"], "{text:?}");
        }
        std::fs::remove_file(&file).expect("removes");
        assert_eq!(cluster.urls(), ["nats://127.0.0.1:2"]);
    }

    #[test]
    fn a_server_that_failed_is_tried_last() {
        let cluster = cluster(&["a", "b", "c"]);
        cluster.put_last("a");
        assert_eq!(cluster.urls(), ["b", "c", "a"]);
        assert!(cluster.has_others("a"));
        let alone = self::cluster(&["a"]);
        assert!(!alone.has_others("a"));
    }
}
