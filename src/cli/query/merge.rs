//! Merges the rows of several partitions.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use anyhow::bail;

use super::row::Row;
use crate::store::Value;

/// Sorts rows by a column, as SQLite sorts: NULL, numbers, text, blobs. Rows with equal values stay in their order. The case of the column's
/// name does not count unless names differ only in it.
///
/// # Errors
///
/// Some row has no such column.
pub(super) fn sort(rows: &mut [Row], column: &str, is_descending: bool) -> anyhow::Result<()> {
    let place = |row: &Row| {
        let names = || row.names.iter();
        names().position(|name| name == column).or_else(|| names().position(|name| name.eq_ignore_ascii_case(column)))
    };
    if let Some(row) = rows.iter().find(|row| place(row).is_none()) {
        bail!("the rows have no column {column} to sort by; they have {}", row.names.join(", "));
    }
    let value = |row: &Row| place(row).map_or(Value::Null, |at| row.values[at].clone());
    rows.sort_by(|one, other| {
        let order = compare(&value(one), &value(other));
        if is_descending { order.reverse() } else { order }
    });
    Ok(())
}

fn compare(one: &Value, other: &Value) -> Ordering {
    let class = |value: &Value| match value {
        Value::Null => 0,
        Value::Integer(_) | Value::Real(_) => 1,
        Value::Text(_) => 2,
        Value::Blob(_) => 3,
    };
    match (one, other) {
        (Value::Integer(one), Value::Integer(other)) => one.cmp(other),
        (Value::Real(one), Value::Real(other)) => one.total_cmp(other),
        (Value::Integer(one), Value::Real(other)) => of_mixed(*one, *other),
        (Value::Real(one), Value::Integer(other)) => of_mixed(*other, *one).reverse(),
        (Value::Text(one), Value::Text(other)) => one.as_bytes().cmp(other.as_bytes()),
        (Value::Blob(one), Value::Blob(other)) => one.cmp(other),
        _ => class(one).cmp(&class(other)),
    }
}

#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "compared exactly where they are equal as doubles"
)]
fn of_mixed(integer: i64, real: f64) -> Ordering {
    match (integer as f64).total_cmp(&real) {
        // Beyond 2^53 several integers are the same double.
        Ordering::Equal => integer.cmp(&(real as i64)),
        order => order,
    }
}

/// Errors with the partitions that have them, the lowest partition first: most errors are those of all partitions.
pub(super) fn failures(errors: BTreeMap<String, Vec<u32>>) -> Vec<String> {
    let mut errors: Vec<_> = errors.into_iter().collect();
    errors.sort_by(|(_, one), (_, other)| one.cmp(other));
    errors.iter().map(|(error, partitions)| format!("{}: {error}", shown(partitions))).collect()
}

/// `partition 2`, `partitions 1, 3`.
pub(super) fn shown(partitions: &[u32]) -> String {
    let numbers: Vec<String> = partitions.iter().map(ToString::to_string).collect();
    format!("partition{} {}", if partitions.len() == 1 { "" } else { "s" }, numbers.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(values: &[Value]) -> Vec<Row> {
        let row = |(number, value): (i64, &Value)| Row {
            names: vec!["n".into(), "v".into()],
            values: vec![Value::Integer(number), value.clone()],
        };
        (0..).zip(values).map(row).collect()
    }

    fn sorted(values: &[Value], is_descending: bool) -> Vec<i64> {
        let mut rows = rows(values);
        sort(&mut rows, "v", is_descending).expect("the column is there");
        let number = |row: &Row| match row.values[0] {
            Value::Integer(number) => number,
            _ => unreachable!("a number"),
        };
        rows.iter().map(number).collect()
    }

    #[test]
    fn rows_are_sorted_as_sqlite_does() {
        let values = [
            Value::Blob(vec![0]),
            Value::from("b"),
            Value::Real(2.5),
            Value::Null,
            Value::Integer(2),
            Value::from("B"),
            Value::Integer(3),
            Value::Real(2.0),
        ];
        assert_eq!(sorted(&values, false), [3, 4, 7, 2, 6, 5, 1, 0], "equal values stay in their order");
        assert_eq!(sorted(&values, true), [0, 1, 5, 6, 2, 4, 7, 3]);
        let large = [Value::Integer(i64::MAX), Value::Real(9e18), Value::Integer(i64::MIN), Value::Real(-1e300)];
        assert_eq!(sorted(&large, false), [3, 2, 1, 0]);
    }

    #[test]
    fn a_column_that_is_not_there_is_named() {
        let refused = sort(&mut rows(&[Value::Null]), "at", false).expect_err("must be refused").to_string();
        assert_eq!(refused, "the rows have no column at to sort by; they have n, v");
        assert!(sort(&mut [], "at", false).is_ok());
    }

    #[test]
    fn the_case_of_a_column_counts_only_if_there_are_both() {
        let mut both = [(2, 1), (1, 2)].map(|(upper, lower)| Row {
            names: vec!["V".into(), "v".into()],
            values: vec![Value::Integer(upper), Value::Integer(lower)],
        });
        sort(&mut both, "v", false).expect("sorts");
        assert_eq!(both[0].values[0], Value::Integer(2));
        sort(&mut both, "V", false).expect("sorts");
        assert_eq!(both[0].values[0], Value::Integer(1));
        let mut one = rows(&[Value::Integer(5), Value::Integer(4)]);
        sort(&mut one, "V", false).expect("sorts");
        assert_eq!(one[0].values[1], Value::Integer(4));
    }

    #[test]
    fn an_error_of_several_partitions_is_said_once() {
        let errors = [("z".to_owned(), vec![0, 2]), ("a".to_owned(), vec![1])];
        assert_eq!(failures(errors.into()), ["partitions 0, 2: z", "partition 1: a"]);
        assert_eq!(failures(BTreeMap::new()), Vec::<String>::new());
    }

    #[test]
    fn partitions_are_listed() {
        assert_eq!((shown(&[2]), shown(&[1, 3])), ("partition 2".into(), "partitions 1, 3".into()));
    }
}
