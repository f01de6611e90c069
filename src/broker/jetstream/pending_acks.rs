//! Acknowledgements that wait for the commit of their deliveries, on a stream that needs them.

use std::collections::VecDeque;

/// The acknowledgements to send. One acknowledgement includes all deliveries before it, and a batch ends with the last
/// delivery of a call of [`Intake::fill`](crate::pipeline::Intake::fill). So one acknowledgement per call is enough.
#[derive(Default)]
pub(super) struct PendingAcks {
    required: bool,
    /// Sequence and reply subject of the last delivery of this call.
    latest: Option<(u64, String)>,
    /// The reply subject of the last delivery that an earlier epoch has or that is not collected.
    stored: Option<String>,
    /// Sequences and reply subjects of the last deliveries of earlier calls.
    due: VecDeque<(u64, String)>,
}

impl PendingAcks {
    /// `required`: the stream needs acknowledgements.
    pub(super) fn new(required: bool) -> Self {
        Self { required, ..Self::default() }
    }

    pub(super) fn are_required(&self) -> bool {
        self.required
    }

    /// The last delivery that was added to the batch.
    pub(super) fn set_latest(&mut self, sequence: u64, reply: Option<String>) {
        if self.required {
            self.latest = reply.map(|reply| (sequence, reply));
        }
    }

    /// The last delivery that an earlier epoch has or that is not collected.
    pub(super) fn set_stored(&mut self, reply: Option<String>) {
        self.stored = reply.filter(|_| self.required);
    }

    /// A call of `fill` has ended.
    pub(super) fn end_fill(&mut self) {
        self.due.extend(self.latest.take());
    }

    /// The reply subject that acknowledges everything up to this sequence.
    pub(super) fn take_committed(&mut self, sequence: u64) -> Option<String> {
        let mut reached = None;
        while self.due.front().is_some_and(|(due, _)| *due <= sequence) {
            reached = self.due.pop_front().map(|(_, reply)| reply);
        }
        reached
    }

    /// The reply subject of the last delivery that an earlier epoch has or that is not collected.
    pub(super) fn take_stored(&mut self) -> Option<String> {
        self.stored.take()
    }
}
