//! What a collector or a recorder says of itself while something is wrong.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use catchment::config::BrokerConfig;
use catchment::{Collector, Config, Error, Health, NatsRecorder, NatsRecorderConfig};

use super::{eventually, eventually_within, with};

/// The time after which trouble must be noticed, in [`quick`].
pub const SILENCE: Duration = Duration::from_secs(1);

/// For the machine's own delays, on top of a time that is promised.
pub const GRACE: Duration = Duration::from_secs(2);

/// A broker configuration that takes a second's silence for trouble.
pub fn quick(url: impl Into<String>) -> BrokerConfig {
    with(BrokerConfig::default(), |config| {
        config.servers = vec![url.into()];
        config.timeout = SILENCE;
        config.silence = SILENCE;
        config.retry = Duration::from_millis(200);
    })
}

/// Waits until the broker's trouble says one of these words, which must be soon after `began`; the reason.
#[track_caller]
pub fn noticed(began: Instant, words: &[&str], health: impl Fn() -> Health) -> String {
    let mut reasons = Vec::new();
    let what = || format!("trouble with the broker that says one of {words:?}");
    let found = {
        let mut look = || {
            let trouble = health().troubles.into_iter().find(|trouble| trouble.part == "broker")?;
            if reasons.last() != Some(&trouble.reason) {
                reasons.push(trouble.reason.clone());
            }
            words.iter().any(|word| trouble.reason.contains(word)).then_some(trouble)
        };
        let until = began + SILENCE + GRACE;
        loop {
            if let Some(found) = look() {
                break Some(found);
            }
            if Instant::now() > until {
                break None;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    let Some(trouble) = found else {
        panic!("within {:?} no {}; it said {reasons:?}", began.elapsed(), what());
    };
    assert!(trouble.since >= began, "it began {:?} before the fault", began - trouble.since);
    trouble.reason
}

/// Waits until nothing is wrong.
#[track_caller]
pub fn well(health: impl Fn() -> Health) {
    eventually("all to be well", || health().is_well().then_some(()));
}

/// Waits until nothing has been wrong for a while: what heals and breaks by turns is not well.
#[track_caller]
pub fn stays_well(health: impl Fn() -> Health) {
    let mut since = Instant::now();
    eventually_within(Duration::from_secs(60), "all to stay well", &mut || {
        if !health().is_well() {
            since = Instant::now();
        }
        (since.elapsed() > 2 * SILENCE).then_some(())
    });
}

/// A collector with [`quick`] settings.
pub fn quick_config(url: &str, database: PathBuf) -> Config {
    let mut config = Config::default();
    config.broker = quick(url);
    config.database.path = database;
    config
}

/// Starting a collector and a recorder there fails in time, and says one of these words.
#[track_caller]
pub fn cannot_start(url: &str, words: &[&str]) {
    let folder = tempfile::tempdir().expect("a folder");
    let began = Instant::now();
    let error = Collector::start(&quick_config(url, folder.path().join("a.db"))).expect_err("cannot start");
    assert!(began.elapsed() < SILENCE + GRACE, "after {:?}", began.elapsed());
    assert!(matches!(error, Error::Broker { .. }), "{error}");
    let said = error.to_string();
    assert!(words.iter().any(|word| said.contains(word)), "{said}");
}

#[track_caller]
pub fn cannot_record(url: &str, words: &[&str]) {
    let began = Instant::now();
    let mut config = NatsRecorderConfig::default();
    config.broker = quick(url);
    let said = NatsRecorder::open(config).expect_err("cannot open").to_string();
    assert!(began.elapsed() < SILENCE + GRACE, "after {:?}", began.elapsed());
    assert!(words.iter().any(|word| said.contains(word)), "{said}");
}
