//! A batch prepared for the routes: what happens to each event, and the values for its statements.
//!
//! It is prepared before the batch's turn to commit, in parallel with other writers, and kept until the batch is committed.

use std::sync::Arc;

use super::Target;
use super::delete_markers::{is_delete_marker, marker};
use super::plan::Plan;
use crate::binding::{Envelope, Fields, Row};
use crate::pipeline::{Batch, Delivery, Epoch};
use crate::store::dead_letters::DeadLetterReason;

/// The dispositions of a batch's events, in memory that is used again.
#[derive(Debug)]
pub(in crate::store) struct DecodedBatch {
    plan: Arc<Plan>,
    dispositions: Vec<Disposition>,
    /// All events go to table `events`: `dispositions` is empty.
    all_to_events: bool,
    fields: Fields,
}

/// What happens to an event.
#[derive(Clone, Debug)]
pub(in crate::store) enum Disposition {
    /// It goes to table `events`.
    Events,
    /// It is dropped, because no route matches it.
    Dropped,
    /// It is a delete marker that is skipped.
    SkippedMarker,
    /// It runs the statements of the route with this number.
    Route(usize, Row),
    /// It becomes a dead letter of the route with this number, if one matches.
    DeadLetter(Option<usize>, Box<DeadLetterReason>),
}

impl DecodedBatch {
    pub(in crate::store) fn new(plan: Arc<Plan>) -> Self {
        let all_to_events = plan.routes().is_plain();
        Self { plan, dispositions: Vec::new(), all_to_events, fields: Fields::default() }
    }

    /// The batches that follow are read for this plan.
    pub(in crate::store) fn set_plan(&mut self, plan: &Arc<Plan>) {
        self.plan = Arc::clone(plan);
    }

    /// Reads the values that the routes' statements need from the batch's events.
    pub(in crate::store) fn read(&mut self, batch: &Batch) {
        self.dispositions.clear();
        self.fields.clear();
        self.all_to_events = self.plan.routes().is_plain() && !batch.has_defects();
        if self.all_to_events {
            return;
        }
        let epoch = batch.epoch().map(Arc::as_ref);
        let mut last: Option<(&str, bool, Target)> = None;
        for index in 0..batch.len() {
            let delivery = batch.delivery(index);
            // In most batches the same subject comes many times in a row.
            let is_marker = is_delete_marker(delivery.headers.iter());
            let target = match last {
                Some((subject, was_marker, target)) if subject == delivery.subject && was_marker == is_marker => target,
                _ => self.plan.routes().target(delivery.subject, is_marker),
            };
            last = Some((delivery.subject, is_marker, target));
            let disposition = self.disposition_of(target, &delivery, epoch);
            self.dispositions.push(disposition);
        }
    }

    /// Reads the values that the routes' statements need from one event.
    pub(in crate::store) fn read_one(&mut self, delivery: &Delivery<'_>, epoch: Option<&Epoch>) {
        self.dispositions.clear();
        self.fields.clear();
        self.all_to_events = self.plan.routes().is_plain() && delivery.defect.is_none();
        if !self.all_to_events {
            let target = self.plan.routes().target(delivery.subject, is_delete_marker(delivery.headers.iter()));
            let disposition = self.disposition_of(target, delivery, epoch);
            self.dispositions.push(disposition);
        }
    }

    fn disposition_of(&mut self, target: Target, delivery: &Delivery<'_>, epoch: Option<&Epoch>) -> Disposition {
        let route = match target {
            Target::Nothing => return Disposition::Dropped,
            Target::SkippedMarker => return Disposition::SkippedMarker,
            Target::Events | Target::DeadMarker(None) => None,
            Target::Route(route) | Target::DeadMarker(Some(route)) => Some((route, self.plan.route(route))),
        };
        let dead_letter = |error: String| {
            let name = route.map(|(_, planned)| Arc::clone(&planned.name));
            let reason = DeadLetterReason { route: name, statement: None, error };
            Disposition::DeadLetter(route.map(|(number, _)| number), Box::new(reason))
        };
        match (delivery.defect, route) {
            (Some(defect), _) => dead_letter(defect.reason.to_owned()),
            (None, _) if matches!(target, Target::DeadMarker(_)) => {
                let marker = marker(delivery.headers).unwrap_or_default();
                dead_letter(format!("it is a delete marker ({marker})"))
            }
            (None, None) => Disposition::Events,
            (None, Some((number, planned))) => {
                let envelope = Envelope::of(delivery, epoch);
                match planned.parameters.read(&envelope, &mut self.fields) {
                    Ok(row) => Disposition::Route(number, row),
                    Err(error) => dead_letter(error.to_string()),
                }
            }
        }
    }

    /// What happens to the batch's event at this index.
    pub(in crate::store) fn disposition(&self, index: usize) -> &Disposition {
        if self.all_to_events { &Disposition::Events } else { &self.dispositions[index] }
    }

    /// The number of the route that matches the event at this index, if one does.
    pub(in crate::store) fn route_number(&self, index: usize) -> Option<usize> {
        match self.disposition(index) {
            Disposition::Route(route, _) | Disposition::DeadLetter(Some(route), _) => Some(*route),
            _ => None,
        }
    }

    /// Whether all events go to table `events`.
    pub(in crate::store) fn all_to_events(&self) -> bool {
        self.all_to_events
    }

    /// Why the event at this index is a dead letter, if that is known before its statements run.
    pub(in crate::store) fn known_failure(&self, index: usize) -> Option<&DeadLetterReason> {
        match self.disposition(index) {
            Disposition::DeadLetter(_, reason) => Some(reason),
            _ => None,
        }
    }

    /// Whether the route of the event at this index confirms events.
    pub(in crate::store) fn replies(&self, index: usize) -> bool {
        match self.disposition(index) {
            Disposition::Route(route, _) | Disposition::DeadLetter(Some(route), _) => self.plan.route(*route).reply,
            _ => false,
        }
    }

    pub(in crate::store) fn fields(&self) -> &Fields {
        &self.fields
    }

    pub(in crate::store) fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// The name of the route that matches the event at this index, if one does.
    pub(in crate::store) fn route(&self, index: usize) -> Option<Arc<str>> {
        match self.disposition(index) {
            Disposition::Route(route, _) => Some(Arc::clone(&self.plan.route(*route).name)),
            Disposition::DeadLetter(_, reason) => reason.route.clone(),
            Disposition::Events | Disposition::Dropped | Disposition::SkippedMarker => None,
        }
    }

    /// The reason of an event that breaks a constraint which SQLite checks only at COMMIT.
    pub(in crate::store) fn at_commit(&self, index: usize, error: String) -> DeadLetterReason {
        DeadLetterReason { route: self.route(index), statement: Some("COMMIT".into()), error }
    }

    /// How many events are dropped because no route takes them.
    pub(in crate::store) fn dropped(&self) -> usize {
        self.dispositions.iter().filter(|disposition| matches!(disposition, Disposition::Dropped)).count()
    }

    /// How many delete markers are skipped.
    pub(in crate::store) fn skipped_markers(&self) -> usize {
        self.dispositions.iter().filter(|disposition| matches!(disposition, Disposition::SkippedMarker)).count()
    }
}
