//! The metrics: one number of a run, or none if the run does not have it.

use crate::compare::{Arm, Process, Run};

/// Takes a number from a run. The arm decides which processes belong to it.
pub type Metric = fn(Arm, &Run) -> Option<f64>;

/// The processes that an event passes through. A sum needs all of them.
#[must_use]
pub fn roles(arm: Arm) -> &'static [&'static str] {
    match arm {
        Arm::DirectPerEvent | Arm::DirectGrouped => &["application"],
        Arm::CoreNats | Arm::Jetstream | Arm::JetstreamSyncAlways | Arm::Spooled => {
            &["application", "collector", "broker"]
        }
    }
}

/// Whether events of the arm go through a broker.
#[must_use]
pub fn through_nats(arm: Arm) -> bool {
    roles(arm).len() > 1
}

/// Seconds from the first recorded event to the last commit.
#[must_use]
pub fn total_s(_: Arm, run: &Run) -> Option<f64> {
    positive(run.total_s)
}

/// The number of events that times and CPU seconds are stated for: arms have runs of different lengths.
pub const STATED_EVENTS: f64 = 10_000.0;

/// Seconds for [`STATED_EVENTS`] recorded events, at the speed of the run.
#[must_use]
pub fn stated_s(arm: Arm, run: &Run) -> Option<f64> {
    an_event(run, total_s(arm, run)? * STATED_EVENTS)
}

/// Microseconds of the run for each recorded event.
#[must_use]
pub fn us_an_event(arm: Arm, run: &Run) -> Option<f64> {
    an_event(run, total_s(arm, run)? * 1e6)
}

/// CPU seconds of all processes for [`STATED_EVENTS`] recorded events.
#[must_use]
pub fn stated_cpu_s(arm: Arm, run: &Run) -> Option<f64> {
    an_event(run, cpu_s(arm, run)? * STATED_EVENTS)
}

/// Events in the database divided by the total time. Lost events do not count.
#[must_use]
pub fn throughput(arm: Arm, run: &Run) -> Option<f64> {
    Some(number(run.committed) / total_s(arm, run)?)
}

/// CPU seconds of all processes; none if one of them was not measured.
#[must_use]
pub fn cpu_s(arm: Arm, run: &Run) -> Option<f64> {
    of_all(arm, run, |process| Some(process.cpu_s))
}

/// CPU microseconds of all processes for each recorded event.
#[must_use]
pub fn cpu_us_an_event(arm: Arm, run: &Run) -> Option<f64> {
    an_event(run, cpu_s(arm, run)? * 1e6)
}

/// CPU seconds for each second of the run, in percent of one core.
#[must_use]
pub fn cpu_percent(arm: Arm, run: &Run) -> Option<f64> {
    Some(cpu_s(arm, run)? / total_s(arm, run)? * 100.0)
}

/// System calls of all processes for each event.
#[must_use]
pub fn syscalls(arm: Arm, run: &Run) -> Option<f64> {
    an_event(run, of_all(arm, run, |process| process.syscalls.map(number))?)
}

/// Instructions of all processes for each event.
#[must_use]
pub fn instructions(arm: Arm, run: &Run) -> Option<f64> {
    an_event(run, of_all(arm, run, |process| process.instructions.map(number))?)
}

/// Voluntary context switches of all processes for each event.
#[must_use]
pub fn voluntary_switches(arm: Arm, run: &Run) -> Option<f64> {
    an_event(run, of_all(arm, run, |process| process.voluntary_switches.map(number))?)
}

/// Involuntary context switches of all processes for each event.
#[must_use]
pub fn involuntary_switches(arm: Arm, run: &Run) -> Option<f64> {
    an_event(run, of_all(arm, run, |process| process.involuntary_switches.map(number))?)
}

/// Bytes written to storage by all processes for each event.
#[must_use]
pub fn written(arm: Arm, run: &Run) -> Option<f64> {
    an_event(run, of_all(arm, run, |process| process.written.map(number))?)
}

/// Calls of fsync and fdatasync of all processes for each thousand events.
#[must_use]
pub fn syncs(arm: Arm, run: &Run) -> Option<f64> {
    an_event(run, of_all(arm, run, |process| process.syncs.map(number))? * 1e3)
}

/// Peak resident memory of all processes, added up.
#[must_use]
pub fn peak_memory(arm: Arm, run: &Run) -> Option<f64> {
    of_all(arm, run, |process| process.peak_memory.map(number))
}

/// CPU microseconds of one process for each event.
#[must_use]
pub fn cpu_us_of(role: &str, run: &Run) -> Option<f64> {
    an_event(run, run.processes.get(role)?.cpu_s * 1e6)
}

/// A sum over all processes, if each process of the arm has the number.
fn of_all(arm: Arm, run: &Run, number: impl Fn(&Process) -> Option<f64>) -> Option<f64> {
    let whole = roles(arm).iter().all(|role| run.processes.contains_key(*role));
    whole.then(|| run.processes.values().map(number).sum())?
}

fn an_event(run: &Run, of_the_run: f64) -> Option<f64> {
    (run.events > 0).then(|| of_the_run / number(run.events))
}

fn positive(number: f64) -> Option<f64> {
    (number.is_finite() && number > 0.0).then_some(number)
}

#[allow(clippy::cast_precision_loss)] // beyond 2^52 the last digits of a count do not matter
pub(in crate::compare) fn number(count: u64) -> f64 {
    count as f64
}
