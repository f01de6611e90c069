//! A value of a row, exactly as SQLite has it: text may have bytes that are not UTF-8.

use rusqlite::Row;
use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};

use crate::binding::Value;

/// A value of a row.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::store) enum Cell {
    Null,
    Integer(i64),
    Real(f64),
    Text(Vec<u8>),
    Blob(Vec<u8>),
}

impl Cell {
    /// The values of a row, from this column on.
    pub(in crate::store) fn row(row: &Row<'_>, from: usize, count: usize) -> rusqlite::Result<Vec<Self>> {
        (from..from + count).map(|at| row.get_ref(at).map(Self::from)).collect()
    }

    /// How many bytes it takes, about.
    pub(in crate::store) fn size(&self) -> usize {
        match self {
            Self::Null | Self::Integer(_) | Self::Real(_) => 8,
            Self::Text(bytes) | Self::Blob(bytes) => bytes.len(),
        }
    }

    /// Adds bytes that differ for any two values that differ.
    pub(in crate::store) fn encode(&self, to: &mut Vec<u8>) {
        let (kind, bytes): (u8, &[u8]) = match self {
            Self::Null => (0, &[]),
            Self::Integer(value) => (1, &value.to_le_bytes()),
            Self::Real(value) => (2, &value.to_bits().to_le_bytes()),
            Self::Text(bytes) => (3, bytes),
            Self::Blob(bytes) => (4, bytes),
        };
        to.push(kind);
        to.extend(bytes.len().to_le_bytes());
        to.extend_from_slice(bytes);
    }

    /// The value for JSON. Text that is not UTF-8 counts as bytes.
    pub(in crate::store) fn value(&self) -> Value<'_> {
        match self {
            Self::Null => Value::Null,
            Self::Integer(value) => Value::Integer(*value),
            Self::Real(value) => Value::Real(*value),
            Self::Text(bytes) => str::from_utf8(bytes).map_or(Value::Blob(bytes), Value::Text),
            Self::Blob(bytes) => Value::Blob(bytes),
        }
    }
}

impl From<ValueRef<'_>> for Cell {
    fn from(value: ValueRef<'_>) -> Self {
        match value {
            ValueRef::Null => Self::Null,
            ValueRef::Integer(value) => Self::Integer(value),
            ValueRef::Real(value) => Self::Real(value),
            ValueRef::Text(bytes) => Self::Text(bytes.to_vec()),
            ValueRef::Blob(bytes) => Self::Blob(bytes.to_vec()),
        }
    }
}

impl ToSql for Cell {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Integer(value) => ValueRef::Integer(*value),
            Self::Real(value) => ValueRef::Real(*value),
            Self::Text(bytes) => ValueRef::Text(bytes),
            Self::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}
