//! Counts for people: the plural, and separated thousands.

/// `1,234,567`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// A count with its noun: `1 event`, `2,000 events`.
pub fn counted(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(number), if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_noun_has_a_plural_unless_there_is_one() {
        let shown = [0, 1, 2, 999, 1_000, 1_234_567].map(|number| counted(number, "event"));
        assert_eq!(shown, ["0 events", "1 event", "2 events", "999 events", "1,000 events", "1,234,567 events"]);
    }
}
