//! A second connection that publishes the throttle's markers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::read_throttle::ReadThrottle;
use crate::broker::broker_error;
use crate::broker::connection::Cluster;
use crate::broker::connection::Link;
use crate::error::{BrokerFault, Error};
use crate::pipeline::Signal;

pub(super) struct MarkerPublisher {
    link: Link,
    subject: String,
    throttle: Arc<ReadThrottle>,
    /// The client has not been given the last marker yet: no use in giving it another.
    under_way: Arc<AtomicBool>,
    last: Instant,
    /// How many had come at `markers_seen_at`.
    markers_seen: u64,
    markers_seen_at: Instant,
}

impl MarkerPublisher {
    /// Between two markers. The client writes every 5 ms.
    pub(super) const INTERVAL: Duration = Duration::from_millis(5);

    /// Connects, and sends a first marker to see that it comes.
    pub(super) fn open(
        cluster: &Arc<Cluster>,
        subject: &str,
        throttle: &Arc<ReadThrottle>,
        stop: &Signal,
    ) -> Result<Self, Error> {
        let refusal = Arc::new(Mutex::new(None));
        let ear = Arc::clone(&refusal);
        let hear = move |remark: &str| {
            log::debug!("broker: the server says: {remark}");
            ear.lock().get_or_insert_with(|| remark.to_owned());
        };
        let link = Link::open_with(cluster, stop, Arc::new(hear))?;
        let now = Instant::now();
        let mut marker_publisher = Self {
            link,
            subject: subject.to_owned(),
            throttle: Arc::clone(throttle),
            under_way: Arc::default(),
            last: now,
            markers_seen: 0,
            markers_seen_at: now,
        };
        marker_publisher.send(now);
        let until = now + cluster.config().timeout;
        while marker_publisher.throttle.markers() == 0 {
            let failed = |why: &str| {
                let detail = format!(
                    "cannot hold up reading: {why}; allow this user to publish to _INBOX.>, or set broker.core.overflow to \
                     drop_newest"
                );
                broker_error(&marker_publisher.link.server().address, BrokerFault::Request, detail)
            };
            if let Some(refusal) = refusal.lock().as_deref() {
                return Err(failed(refusal));
            }
            if stop.wait(Duration::from_millis(5))
                || marker_publisher.link.lost().is_raised()
                || Instant::now() >= until
            {
                return Err(failed("a message to our own inbox does not come back"));
            }
        }
        Ok(marker_publisher)
    }

    /// Sends a marker if it is time for one. Why it cannot be gone on with, if so.
    pub(super) fn pace(&mut self, now: Instant, silence: Duration) -> Option<String> {
        if now.duration_since(self.last) >= Self::INTERVAL {
            // Reading that is stopped, or was not needed for a while, says nothing about the marker_publisher.
            let idle = now.duration_since(self.last) >= silence / 2;
            if self.throttle.markers() != self.markers_seen || self.throttle.is_on() || idle {
                (self.markers_seen, self.markers_seen_at) = (self.throttle.markers(), now);
            }
            self.send(now);
        }
        let address = &self.link.server().address;
        if self.link.lost().is_raised() {
            return Some(format!("the second connection to {address} was lost"));
        }
        (now.duration_since(self.markers_seen_at) >= silence).then(|| {
            self.link.fell_silent();
            format!("nothing comes from the second connection to {address} any more")
        })
    }

    fn send(&mut self, now: Instant) {
        self.last = now;
        if self.under_way.swap(true, Ordering::Relaxed) {
            return;
        }
        let (subject, under_way) = (self.subject.clone(), Arc::clone(&self.under_way));
        self.link.post(move |connection| {
            under_way.store(false, Ordering::Relaxed);
            if let Err(e) = connection.publish(&subject, "") {
                log::debug!("broker: {subject}: {e}");
            }
        });
    }
}
