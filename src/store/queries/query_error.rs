//! Why a request has no answer.

use std::fmt;

use crate::error::Cause;

/// Why a query does not answer a request. The message is one line, and contains the remedy where that is known.
#[derive(Debug)]
pub struct QueryError {
    kind: QueryErrorKind,
    detail: String,
    remedy: Option<&'static str>,
    source: Option<Cause>,
}

/// The kinds of [`QueryError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum QueryErrorKind {
    /// The request cannot be read, has a field that is no parameter or a value that its parameter does not accept, its values make the
    /// statement fail, or no query has its subject.
    Request,
    /// The statement took longer than its `timeout`.
    Timeout,
    /// The answer has more rows or bytes than `max_rows` or `max_bytes` allows.
    TooLarge,
    /// The statement no longer matches the database: a table or column is gone.
    SchemaMismatch,
    /// The database cannot be read.
    Database,
    /// The collector is stopping.
    Stopping,
}

impl QueryError {
    pub(crate) fn new(kind: QueryErrorKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), remedy: None, source: None }
    }

    pub(crate) fn stopping() -> Self {
        Self::new(QueryErrorKind::Stopping, "the collector is stopping")
    }

    pub(in crate::store) fn with_remedy(self, remedy: Option<&'static str>) -> Self {
        Self { remedy, ..self }
    }

    pub(in crate::store) fn caused_by(self, source: impl Into<Cause>) -> Self {
        Self { source: Some(source.into()), ..self }
    }

    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> QueryErrorKind {
        self.kind
    }

    /// What to do about it, where that is known. The message has it too.
    #[must_use]
    pub fn remedy(&self) -> Option<&str> {
        self.remedy
    }
}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)?;
        self.remedy.map_or(Ok(()), |remedy| write!(f, "; {remedy}"))
    }
}

impl std::error::Error for QueryError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}
