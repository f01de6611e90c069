//! A batch as the routes see it: which one takes each event, and what its statements will be bound to.
//!
//! Made before the batch's turn, side by side with other writers, and kept until it is committed.

use std::sync::Arc;

use super::Taker;
use super::plan::Plan;
use crate::binding::{Envelope, Fields, Row};
use crate::pipeline::{Batch, Delivery, Epoch};
use crate::store::dead_letters::DeadLetterReason;

/// What becomes of a batch's events, in memory that is used again.
#[derive(Debug)]
pub(in crate::store) struct Decoded {
    plan: Arc<Plan>,
    courses: Vec<Course>,
    /// Table `events` takes all of them: there are no courses.
    one_course: bool,
    fields: Fields,
}

/// What becomes of an event.
#[derive(Clone, Debug)]
pub(in crate::store) enum Course {
    /// It goes to table `events`.
    Events,
    /// It is dropped, for no route takes it.
    Dropped,
    /// It runs the statements of the route with this number.
    Route(usize, Row),
    /// It goes to the dead letters, by the route with this number, if one takes it.
    Doomed(Option<usize>, Box<DeadLetterReason>),
}

impl Decoded {
    pub(in crate::store) fn new(plan: Arc<Plan>) -> Self {
        let one_course = plan.routes().is_plain();
        Self { plan, courses: Vec::new(), one_course, fields: Fields::default() }
    }

    /// Reads what the routes' statements ask for from the batch's events.
    pub(in crate::store) fn read(&mut self, batch: &Batch) {
        self.courses.clear();
        self.fields.clear();
        self.one_course = self.plan.routes().is_plain() && !batch.has_defects();
        if self.one_course {
            return;
        }
        let epoch = batch.epoch().map(Arc::as_ref);
        let mut last: Option<(&str, Taker)> = None;
        for index in 0..batch.len() {
            let delivery = batch.delivery(index);
            // Most batches have one subject many times over.
            let taker = match last {
                Some((subject, taker)) if subject == delivery.subject => taker,
                _ => self.plan.routes().taker(delivery.subject),
            };
            last = Some((delivery.subject, taker));
            let course = self.course_of(taker, &delivery, epoch);
            self.courses.push(course);
        }
    }

    fn course_of(&mut self, taker: Taker, delivery: &Delivery<'_>, epoch: Option<&Epoch>) -> Course {
        let route = match taker {
            Taker::Nothing => return Course::Dropped,
            Taker::Events => None,
            Taker::Route(route) => Some((route, self.plan.route(route))),
        };
        let doomed = |error: String| {
            let reason =
                DeadLetterReason { route: route.map(|(_, planned)| Arc::clone(&planned.name)), statement: None, error };
            Course::Doomed(route.map(|(number, _)| number), Box::new(reason))
        };
        match (delivery.defect, route) {
            (Some(defect), _) => doomed(defect.reason.to_owned()),
            (None, None) => Course::Events,
            (None, Some((number, planned))) => {
                let envelope = Envelope::of(delivery, epoch);
                match planned.parameters.read(&envelope, &mut self.fields) {
                    Ok(row) => Course::Route(number, row),
                    Err(unreadable) => doomed(unreadable.to_string()),
                }
            }
        }
    }

    /// What becomes of the batch's event at this index.
    pub(in crate::store) fn course(&self, index: usize) -> &Course {
        if self.one_course { &Course::Events } else { &self.courses[index] }
    }

    /// Why the event at this index cannot be stored, where that is known already.
    pub(in crate::store) fn doom(&self, index: usize) -> Option<&DeadLetterReason> {
        match self.course(index) {
            Course::Doomed(_, reason) => Some(reason),
            _ => None,
        }
    }

    /// Whether who sent the event at this index may ask to hear of it.
    pub(in crate::store) fn replies(&self, index: usize) -> bool {
        match self.course(index) {
            Course::Route(route, _) | Course::Doomed(Some(route), _) => self.plan.route(*route).reply,
            _ => false,
        }
    }

    pub(in crate::store) fn fields(&self) -> &Fields {
        &self.fields
    }

    pub(in crate::store) fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// The name of the route that takes the event at this index, where one does.
    pub(in crate::store) fn route(&self, index: usize) -> Option<Arc<str>> {
        match self.course(index) {
            Course::Route(route, _) => Some(Arc::clone(&self.plan.route(*route).name)),
            Course::Doomed(_, reason) => reason.route.clone(),
            Course::Events | Course::Dropped => None,
        }
    }

    /// Why an event failed whose constraints only COMMIT checked.
    pub(in crate::store) fn at_commit(&self, index: usize, error: String) -> DeadLetterReason {
        DeadLetterReason { route: self.route(index), statement: Some("COMMIT".into()), error }
    }

    /// How many events are dropped.
    pub(in crate::store) fn dropped(&self) -> usize {
        self.courses.iter().filter(|course| matches!(course, Course::Dropped)).count()
    }
}
