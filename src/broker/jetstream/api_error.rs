//! Failed requests: the server's error codes, and the library's error for each failure.

use serde::Deserialize;

use crate::broker::broker_error;
use crate::broker::connection::Link;
use crate::config::BrokerConfig;
use crate::error::{BrokerFault, Error};
use crate::printable;

/// Error codes of the server: <https://github.com/nats-io/nats-server/blob/main/server/errors.json>.
pub(super) mod code {
    pub(in crate::broker) const NO_ROOM_FOR_CONSUMERS: u64 = 10026;
    pub(in crate::broker) const NO_MESSAGE: u64 = 10037;
    pub(in crate::broker) const NO_JETSTREAM_FOR_ACCOUNT: u64 = 10039;
    pub(in crate::broker) const NO_STREAM: u64 = 10059;
    pub(in crate::broker) const NO_JETSTREAM: u64 = 10076;
    pub(in crate::broker) const STORE_FAILED: u64 = 10077;
    pub(in crate::broker) const SUBJECTS_OVERLAP: u64 = 10065;
    pub(in crate::broker) const MAX_BYTES_REQUIRED: u64 = 10113;
    pub(in crate::broker) const FILTER_OUTSIDE: u64 = 10093;
    pub(in crate::broker) const BATCHES_DISABLED: u64 = 10205;
    pub(in crate::broker) const TOO_MANY_UNACKNOWLEDGED: u64 = 10121;
}

/// Why a request failed.
#[derive(Debug)]
pub(super) enum ApiError {
    /// No answer in time, or the connection was lost. The connection cannot be used any more.
    NoAnswer(String),
    /// No server answers `JetStream` requests: there is no `JetStream`, or none at the moment.
    NoResponders,
    /// The server answered with an error.
    Refused { code: u64, status: u64, description: String },
    /// The server's answer cannot be read.
    Unreadable(String),
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoAnswer(what) => f.write_str(what),
            Self::NoResponders => f.write_str("no server answers JetStream requests"),
            Self::Refused { code, description, .. } => write!(f, "{} (error {code})", printable(description)),
            Self::Unreadable(what) => write!(f, "the server's answer cannot be read: {what}"),
        }
    }
}

impl ApiError {
    /// Whether the same request may succeed soon: the server's storage is full, its cluster has no leader, it is just
    /// starting. The same status is used where a stream that discards new messages is full, or a message is too large
    /// for it. These two are lasting.
    pub(super) fn is_temporary(&self) -> bool {
        match self {
            Self::Refused { code: code::STORE_FAILED, description, .. } => {
                !["maximum", "too large"].iter().any(|lasting| description.contains(lasting))
            }
            Self::Refused { status, .. } => *status == 503,
            Self::NoResponders | Self::NoAnswer(_) | Self::Unreadable(_) => false,
        }
    }

    pub(super) fn is_code(&self, wanted: u64) -> bool {
        matches!(self, Self::Refused { code, .. } if *code == wanted)
    }
}

/// An error in the server's JSON.
#[derive(Deserialize)]
pub(super) struct ErrorBody {
    #[serde(default)]
    pub(super) err_code: u64,
    /// The HTTP-like status. 0 if the field is missing; the server always sends one.
    #[serde(default)]
    pub(super) code: u64,
    #[serde(default)]
    pub(super) description: String,
}

impl From<ErrorBody> for ApiError {
    fn from(error: ErrorBody) -> Self {
        let code = if error.err_code == 0 { error.code } else { error.err_code };
        Self::Refused { code, status: error.code, description: error.description }
    }
}

/// The library's error for a failed request.
pub(super) fn to_error(link: &Link, config: &BrokerConfig, failure: &ApiError) -> Error {
    let server = &link.server().address;
    match failure {
        ApiError::NoResponders => no_jetstream(server, config),
        ApiError::Refused { code, .. } if [code::NO_JETSTREAM, code::NO_JETSTREAM_FOR_ACCOUNT].contains(code) => {
            no_jetstream(server, config)
        }
        ApiError::NoAnswer(what) => {
            let api = config.api_prefix();
            let detail = format!("{what} while asking for stream {}", config.stream);
            broker_error(server, BrokerFault::Silent, detail)
                .with_remedy(format!("check the connection, and that this user may publish to {api}.>"))
        }
        other => broker_error(server, BrokerFault::Request, format!("stream {}: {other}", config.stream)),
    }
}

fn no_jetstream(server: &str, config: &BrokerConfig) -> Error {
    if config.domain.is_some() || config.api_prefix.is_some() {
        let api = config.api_prefix();
        let detail = format!("no JetStream answers on {api} for this account");
        broker_error(server, BrokerFault::NoJetStream, detail).with_remedy("check broker.domain and broker.api_prefix")
    } else {
        broker_error(server, BrokerFault::NoJetStream, "it has no JetStream for this account")
            .with_remedy("start nats-server with --jetstream, or name another server")
    }
}
