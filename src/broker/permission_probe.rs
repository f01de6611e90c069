//! Asks the server which permissions the present user has, without any effect.
//!
//! A server reports a denial and ignores what was denied. It reports it before it answers a flush. So everything is tried at once, and
//! what was not denied when the flush is answered is allowed.

use std::sync::Arc;

use parking_lot::Mutex;

use super::broker_error;
use super::connection::{Cluster, Link, ServerRemark};
use super::permissions::{Permission, Probe};
use crate::config::BrokerConfig;
use crate::error::{BrokerFault, Error};
use crate::pipeline::Signal;

/// Whether the present user has a permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The server allows it.
    Allowed,
    /// The server denies it.
    Denied,
    /// Trying it would have an effect.
    NotTested,
}

/// Tries each permission that can be tried without an effect. Blocks twice for the configured time-out at most.
///
/// # Errors
///
/// [`Error::Broker`]: no connection, or no answer in time.
pub fn probe(config: &BrokerConfig, permissions: &[Permission]) -> Result<Vec<Verdict>, Error> {
    let remarks: Arc<Mutex<Vec<ServerRemark>>> = Arc::default();
    let kept = Arc::clone(&remarks);
    // Each try brings one remark at most; a server that sends more is not believed.
    let most = permissions.len() + MOST_OTHERS;
    let keep = move |remark: &ServerRemark| {
        let mut kept = kept.lock();
        if kept.len() < most {
            kept.push(remark.clone());
        }
    };
    let link = Link::open_with(&Arc::new(Cluster::new(config)?), &Signal::default(), Arc::new(keep))?;
    let failed = |detail: String| broker_error(&link.server().address, BrokerFault::Silent, detail);
    let reply = format!("{}.permissions", link.inbox());
    let tries: Vec<(bool, String, &'static str)> = permissions
        .iter()
        .filter_map(|one| tried(one).map(|(subscribes, subject)| (subscribes, subject, body(&one.probe))))
        .collect();
    let timeout = config.timeout;
    let done = link.call(timeout, &Signal::default(), move |connection| {
        let mut subscriptions = Vec::new();
        for (subscribes, subject, body) in &tries {
            if *subscribes {
                // Kept until the flush: the end of a subscription would be sent before the server has reported.
                subscriptions.push(connection.subscribe(subject)?);
            } else {
                connection.publish_request(subject, &reply, body)?;
            }
        }
        connection.flush_timeout(timeout)
    });
    done.map_err(|gone| failed(gone.0))?.map_err(|error| failed(error.to_string()))?;
    let remarks = remarks.lock();
    let verdict = |permission: &Permission| match tried(permission) {
        None => Verdict::NotTested,
        Some((subscribes, subject)) => {
            let is_denied = remarks.iter().any(|remark| match remark {
                ServerRemark::PublishDenied(denial) => !subscribes && denial.is_about(&subject),
                ServerRemark::SubscribeDenied(said) => subscribes && said.contains(&format!("\"{subject}\"")),
                _ => false,
            });
            if is_denied { Verdict::Denied } else { Verdict::Allowed }
        }
    };
    Ok(permissions.iter().map(verdict).collect())
}

/// So many other remarks are kept.
const MOST_OTHERS: usize = 16;

/// Whether to subscribe, and the subject to try.
fn tried(permission: &Permission) -> Option<(bool, String)> {
    match &permission.probe {
        Probe::Subscribe => Some((true, permission.subject.clone())),
        Probe::Publish { subject, .. } => Some((false, subject.clone())),
        Probe::None => None,
    }
}

fn body(probe: &Probe) -> &'static str {
    match probe {
        Probe::Publish { body, .. } => body,
        Probe::Subscribe | Probe::None => "",
    }
}
