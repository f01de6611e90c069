//! The usual fixture for tests of the command: `publish` is the command here.

use std::ops::Deref;
use std::process::Command;

use super::collector::catchment;
use super::fixture::Fixture;
use super::oracle;

/// [`Fixture`], whose events the command publishes.
pub struct PublishingFixture(Fixture);

impl Deref for PublishingFixture {
    type Target = Fixture;

    fn deref(&self) -> &Fixture {
        &self.0
    }
}

impl PublishingFixture {
    pub fn new() -> Self {
        Self(Fixture::new())
    }

    pub fn publish(&self, arguments: &[&str]) -> Command {
        let mut command = catchment();
        command.args(["publish", "--server", &self.server.url()]).args(arguments);
        command
    }

    /// A command on the database.
    pub fn reading(&self, arguments: &[&str]) -> Command {
        let mut command = catchment();
        command.args(arguments).arg("--database").arg(self.database());
        command
    }

    /// The payloads that are in the stream, in order.
    pub fn payloads(&self) -> Vec<String> {
        self.drain();
        oracle::payloads(&self.database())
    }

    /// The last sequence of the stream.
    pub fn last(&self) -> u64 {
        self.server.last_sequence("EVENTS")
    }
}
