//! A second connection that publishes the read throttle's markers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::read_throttle::ReadThrottle;
use crate::broker::broker_error;
use crate::broker::connection::{Cluster, Link, LinkState, Liveness, ServerRemark, SessionEnd};
use crate::error::{BrokerFault, Error};
use crate::pipeline::Signal;

pub(super) struct MarkerPublisher {
    link: Link,
    subject: String,
    throttle: Arc<ReadThrottle>,
    /// The client has not got the last marker yet: another one would be useless.
    under_way: Arc<AtomicBool>,
    last: Instant,
    /// The markers are the probes of this connection.
    liveness: Liveness,
    markers_seen: u64,
}

impl MarkerPublisher {
    /// Between two markers. The client writes every 5 ms.
    pub(super) const INTERVAL: Duration = Duration::from_millis(5);

    /// Connects, and publishes a first marker to see that it arrives.
    pub(super) fn open(
        cluster: &Arc<Cluster>,
        subject: &str,
        throttle: &Arc<ReadThrottle>,
        stop: &Signal,
    ) -> Result<Self, Error> {
        let first_remark = Arc::new(Mutex::new(None));
        let kept = Arc::clone(&first_remark);
        let keep = move |remark: &ServerRemark| {
            log::debug!("broker: the server reports: {remark}");
            kept.lock().get_or_insert_with(|| remark.to_string());
        };
        let link = Link::open_with(cluster, stop, Arc::new(keep))?;
        let now = Instant::now();
        let mut publisher = Self {
            link,
            subject: subject.to_owned(),
            throttle: Arc::clone(throttle),
            under_way: Arc::default(),
            last: now,
            liveness: Liveness::new(cluster.config().silence).with_role("second connection"),
            markers_seen: 0,
        };
        publisher.send(now);
        let until = now + cluster.config().timeout;
        while publisher.throttle.markers() == 0 {
            let failed = |why: &str| {
                let detail = format!("cannot throttle reading: {why}");
                let remedy = "allow this user to publish to _INBOX.>, or set broker.core.overflow to drop_newest";
                broker_error(&publisher.link.server().address, BrokerFault::Request, detail).with_remedy(remedy)
            };
            if let Some(remark) = first_remark.lock().as_deref() {
                return Err(failed(remark));
            }
            let lost = publisher.link.lost();
            if stop.wait(Duration::from_millis(5)) || lost.is_raised() || Instant::now() >= until {
                return Err(failed("a message to our own inbox does not come back"));
            }
        }
        Ok(publisher)
    }

    /// Publishes a marker if it is time for one. Returns why markers cannot be published any more, if so.
    pub(super) fn keep_up(&mut self, now: Instant, silence: Duration) -> Option<SessionEnd> {
        if now.duration_since(self.last) >= Self::INTERVAL {
            // No marker need have come while reading was stopped, or while none were published.
            let idle = now.duration_since(self.last) >= silence / 2;
            let markers = self.throttle.markers();
            if markers != self.markers_seen || self.throttle.is_on() || idle {
                self.markers_seen = markers;
                self.liveness.answered(now);
            }
            self.send(now);
        }
        if let Some(loss) = self.liveness.loss(&self.link, None) {
            return Some(loss);
        }
        match self.liveness.check(&self.link, now, || false) {
            LinkState::Over(end) => Some(end),
            LinkState::Alive | LinkState::ProbeDue => None,
        }
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
