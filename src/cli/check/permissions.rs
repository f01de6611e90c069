//! `catchment check --permissions`: the least permissions of a command, and whether the present user has them.

use std::io::{self, Write};

use clap::ValueEnum;
use serde_json::json;

use crate::broker::{Access, BrokerUse, Permission};

/// The commands whose permissions are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CommandAtBroker {
    /// A collector, with queries and confirmations if the settings have some
    Run,
    /// publish, and a recorder in a program
    Publish,
    /// query, for all queries of the settings
    Query,
    /// check, without --permissions
    Check,
    /// tail --incoming, infer, test --from-stream, gaps, and verify
    Read,
    /// replay
    Replay,
    /// repartition
    Repartition,
}

impl CommandAtBroker {
    pub fn broker_use(self) -> BrokerUse {
        match self {
            Self::Run => BrokerUse::Collector,
            Self::Publish => BrokerUse::Recorder,
            Self::Query => BrokerUse::Query,
            Self::Check => BrokerUse::Check,
            Self::Read => BrokerUse::Read,
            Self::Replay => BrokerUse::Replay,
            Self::Repartition => BrokerUse::Repartition,
        }
    }
}

/// The permissions as a part of nats-server's configuration. Those that are needed only in some case are comments.
pub fn block(to: &mut dyn Write, permissions: &[Permission]) -> io::Result<()> {
    writeln!(to, "permissions: {{")?;
    for (access, key) in [(Access::Publish, "publish"), (Access::Subscribe, "subscribe")] {
        let of_access: Vec<&Permission> = permissions.iter().filter(|one| one.access == access).collect();
        // To nats-server, an empty list allows everything.
        if of_access.iter().all(|one| one.only_if.is_some()) {
            writeln!(to, "  {key}: {{ deny: \">\" }}")?;
            continue;
        }
        writeln!(to, "  {key}: {{\n    allow: [")?;
        let width = of_access.iter().map(|one| one.subject.len()).max().unwrap_or_default() + 2;
        for Permission { subject, purpose, only_if, .. } in of_access {
            let subject = format!("\"{subject}\"");
            match only_if {
                None => writeln!(to, "      {subject:width$}  # {purpose}")?,
                Some(case) => writeln!(to, "      # {subject}: {purpose}; only if {case}")?,
            }
        }
        writeln!(to, "    ]\n  }}")?;
    }
    writeln!(to, "}}")
}

/// The same as JSON: two lists, and what is needed only in some case.
pub fn json(permissions: &[Permission]) -> serde_json::Value {
    let of = |access| -> Vec<&str> {
        let needed = permissions.iter().filter(|one| one.access == access && one.only_if.is_none());
        needed.map(|one| one.subject.as_str()).collect()
    };
    let sometimes: Vec<_> = permissions
        .iter()
        .filter_map(|one| {
            let access = if one.access == Access::Publish { "publish" } else { "subscribe" };
            Some(json!({ "access": access, "subject": one.subject, "only_if": one.only_if? }))
        })
        .collect();
    json!({ "publish": of(Access::Publish), "subscribe": of(Access::Subscribe), "sometimes": sometimes })
}
