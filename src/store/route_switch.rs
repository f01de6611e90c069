//! The routes that the writers of a database use. They can be replaced while the writers run.
//!
//! A writer takes the routes once for each batch and keeps them until the batch is committed. Batches are committed in order, and none
//! with older routes follows one with newer routes: so there is one event from which on the newer routes apply.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use crossbeam_channel::Sender;
use parking_lot::RwLock;

use super::routes::plan::Plan;
use crate::pipeline::Confirmation;

/// Routes whose statements were compiled against the database.
#[derive(Debug)]
pub struct CheckedRoutes(pub(super) Arc<Plan>);

/// What a batch is handled with.
#[derive(Debug)]
pub(super) struct Handling {
    pub(super) plan: Arc<Plan>,
    pub(super) confirmations: Option<Sender<Confirmation>>,
    /// 0 for the routes that the database was opened with; each replacement has the next number.
    generation: u64,
}

/// What the writers of a database share. When the last writer ends, it is dropped, and with it the sender of confirmations.
#[derive(Debug)]
pub(super) struct ActiveRoutes {
    current: RwLock<Arc<Handling>>,
    /// The generation that the last committed batch was handled with.
    committed: AtomicU64,
    /// How many steps the writers have made: attempts to commit, and groups of events.
    steps: AtomicU64,
}

/// Replaces the routes of running writers. Clones replace the same.
#[derive(Clone, Debug)]
pub struct RouteSwitch(Weak<ActiveRoutes>);

/// Where confirmations go after a replacement.
#[derive(Debug)]
pub enum ConfirmationsTo {
    /// Where they went before.
    Same,
    /// Into this channel; nowhere with `None`.
    Other(Option<Sender<Confirmation>>),
}

impl ActiveRoutes {
    pub(super) fn new(plan: Arc<Plan>, confirmations: Option<Sender<Confirmation>>) -> Arc<Self> {
        let first = Arc::new(Handling { plan, confirmations, generation: 0 });
        Arc::new(Self { current: RwLock::new(first), committed: AtomicU64::new(0), steps: AtomicU64::new(0) })
    }

    pub(super) fn switch(self: &Arc<Self>) -> RouteSwitch {
        RouteSwitch(Arc::downgrade(self))
    }

    /// What a batch is handled with that begins now.
    pub(super) fn current(&self) -> Arc<Handling> {
        Arc::clone(&self.current.read())
    }

    /// A writer has made a step.
    pub(super) fn step(&self) {
        self.steps.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether a batch that is committed now may be handled with this.
    pub(super) fn allows(&self, handling: &Handling) -> bool {
        handling.generation >= self.committed.load(Ordering::Acquire)
    }

    /// A batch was committed that was handled with this. Called in the order of the commits.
    pub(super) fn committed(&self, handling: &Handling) {
        self.committed.store(handling.generation, Ordering::Release);
    }
}

impl Handling {
    /// Whether these are other routes than those that the database was opened with.
    pub(super) fn was_replaced(&self) -> bool {
        self.generation > 0
    }
}

impl RouteSwitch {
    /// Each batch that begins after this call is handled with these routes. Returns whether there is still a writer.
    pub fn replace(&self, routes: CheckedRoutes, confirmations: ConfirmationsTo) -> bool {
        let Some(active) = self.0.upgrade() else { return false };
        let mut current = active.current.write();
        let confirmations = match confirmations {
            ConfirmationsTo::Same => current.confirmations.clone(),
            ConfirmationsTo::Other(confirmations) => confirmations,
        };
        let generation = current.generation + 1;
        *current = Arc::new(Handling { plan: routes.0, confirmations, generation });
        true
    }

    /// How many steps the writers have made. While it stays the same and there is work, a writer hangs. An event's statements may take
    /// as long as their `max_steps`.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.0.upgrade().map_or(0, |active| active.steps.load(Ordering::Relaxed))
    }

    /// Whether an event on this subject that arrives now is confirmed.
    #[must_use]
    pub fn confirms_on(&self, subject: &str) -> bool {
        self.0.upgrade().is_some_and(|active| active.current.read().plan.routes().confirms_on(subject))
    }
}
