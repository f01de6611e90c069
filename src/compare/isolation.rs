//! The database side killed for a while under load: does the application go on, does another subscriber see everything,
//! is everything in the database afterwards?
//!
//! On the NATS arms the database side is the collector. On the direct arms it is the application itself, so that there is
//! nobody left to produce the events that come due meanwhile, and nobody else could listen in.

use std::path::Path;
use std::time::Duration;

use super::application::Call;
use super::commit_watch::{LOOK, Observation, Watch};
use super::driver::Session;
use super::environment::Stage;
use super::options::Setup;
use super::process::Process;
use super::{Failure, Isolation, arms, clock, run, verification};

/// How long another subscriber may need for one more event.
const LIVE: u64 = 1_000_000_000;

/// Looks at one arm. The setup has a rate, and events for three times as long as the database side is away.
pub(super) fn measure(session: &Session<'_>, setup: Setup) -> Result<Isolation, Failure> {
    if arms::is_direct(setup.arm) { of_direct(session, setup) } else { of_nats(session, setup) }
}

fn of_nats(session: &Session<'_>, setup: Setup) -> Result<Isolation, Failure> {
    let away = session.options.away_for.as_nanos() as u64;
    let mut stage = Stage::set(session, setup)?;
    let subscriber = stage.subscribe()?;
    let (mut application, _) = stage.application(0)?;
    let mut watch = Watch::open(&stage.database)?;
    application.tell("go")?;
    let kill_at = clock::now() + away;
    let (mut killed, mut back) = (None, None);
    let mut observation = Observation { session, stage: &mut stage, application: &mut application, look: LOOK };
    let outcome = observation.until_all(
        &mut watch,
        setup.events,
        |_| Ok(()),
        |stage| {
            let now = clock::now();
            match (killed, back) {
                (None, _) if now >= kill_at => {
                    if let Some(mut collector) = stage.collector.take() {
                        collector.kill();
                    }
                    killed = Some(now);
                }
                (Some(since), None) if now >= since + away => {
                    stage.collect()?;
                    back = Some(clock::now());
                }
                _ => {}
            }
            Ok(())
        },
    )?;
    drop(application);
    let found = run::verified(session, &stage)?;
    let seen_live =
        subscriber.map(|(process, database)| seen(session, process, &database, setup.events)).transpose()?;
    let (from, to) = (killed.unwrap_or(kill_at), back.unwrap_or(kill_at));
    Ok(Isolation {
        arm: setup.arm,
        away_s: clock::seconds(from, to),
        handed_over: during(&outcome.calls, from, to),
        seen_live,
        events: setup.events,
        committed: found.distinct,
        application: "went on".into(),
    })
}

fn during(calls: &[Call], from: u64, to: u64) -> u64 {
    calls.iter().filter(|call| (from..to).contains(&call.returned)).count() as u64
}

/// How many events the other subscriber has, once no more come.
fn seen(session: &Session<'_>, mut process: Process, database: &Path, events: u64) -> Result<u64, Failure> {
    let mut watch = Watch::open(database)?;
    let mut moved = clock::now();
    while watch.rows() < events && clock::now() < moved + LIVE {
        session.go_on()?;
        if watch.look()? {
            moved = clock::now();
        }
        if process.is_over() {
            return Err(process.has_ended());
        }
        std::thread::sleep(LOOK);
    }
    Ok(watch.rows())
}

fn of_direct(session: &Session<'_>, setup: Setup) -> Result<Isolation, Failure> {
    let away = session.options.away_for;
    let mut stage = Stage::set(session, setup)?;
    let mut watch = Watch::open(&stage.database)?;
    let (mut application, order) = stage.application(0)?;
    application.tell("go")?;
    let began = clock::now();
    look_until(session, &mut watch, began + away.as_nanos() as u64)?;
    application.kill();
    let killed = clock::now();
    drop(application);
    look_until(session, &mut watch, killed + away.as_nanos() as u64)?;
    // It begins again with what is due then: what came due while it was away has nobody to produce it.
    let due = clock::seconds(began, clock::now()) * order.rate.unwrap_or(1) as f64;
    let first = (due as u64).min(setup.events.saturating_sub(1));
    let (mut application, _) = stage.application(first)?;
    application.tell("go")?;
    let back = clock::now();
    let expected = watch.rows() + setup.events - first;
    let mut observation = Observation { session, stage: &mut stage, application: &mut application, look: LOOK };
    observation.until_all(&mut watch, expected, |_| Ok(()), |_| Ok(()))?;
    drop(application);
    let found = verification::look(&stage.database, &stage.workload, session.options.work)?;
    Ok(Isolation {
        arm: setup.arm,
        away_s: clock::seconds(killed, back),
        handed_over: 0,
        seen_live: None,
        events: setup.events,
        committed: found.distinct,
        application: "died with the database side: what came due meanwhile was never produced".into(),
    })
}

fn look_until(session: &Session<'_>, watch: &mut Watch, until: u64) -> Result<(), Failure> {
    while clock::now() < until {
        session.go_on()?;
        watch.look()?;
        std::thread::sleep(Duration::from_millis(5));
    }
    watch.look()?;
    Ok(())
}
