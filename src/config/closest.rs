//! The words that a misspelt one was probably meant as.

/// The candidates that differ least from the word, if they differ in few characters: at most three of them, and none for a word that is
/// like no other.
pub(crate) fn closest<'c>(word: &str, candidates: impl Iterator<Item = &'c str>) -> Vec<&'c str> {
    let most = word.chars().count().div_ceil(4).min(3);
    // The plural of a word with y is one mistake.
    let singular = word.strip_suffix("ies").map(|stem| format!("{stem}y"));
    let distance_to = |one: &str| {
        let of_singular = singular.as_ref().map(|singular| distance(singular, one) + 1);
        distance(word, one).min(of_singular.unwrap_or(usize::MAX))
    };
    let mut found: Vec<(usize, &str)> = candidates.map(|one| (distance_to(one), one)).collect();
    let least = found.iter().map(|(distance, _)| *distance).min().unwrap_or_default();
    found.retain(|(distance, _)| *distance == least && least <= most);
    found.into_iter().map(|(_, one)| one).take(3).collect()
}

/// How many characters are missing, added, replaced, or swapped with the next one.
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    // Rows of the table: before the last one, the last one, and this one.
    let (mut before, mut last): (Vec<usize>, Vec<usize>) = (Vec::new(), (0..=other.len()).collect());
    for (i, a) in one.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in other.iter().enumerate() {
            let replaced = last[j] + usize::from(a != b);
            let mut fewest = replaced.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == other[j - 1] && one[i - 1] == *b {
                fewest = fewest.min(before[j - 1] + 1);
            }
            row.push(fewest);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_counted_in_characters() {
        for (one, other, expected) in [
            ("path", "path", 0),
            ("pth", "path", 1),
            ("ptah", "path", 1),
            ("patth", "path", 1),
            ("", "ab", 2),
            ("größe", "grosse", 3),
            ("stream", "path", 6),
        ] {
            assert_eq!((distance(one, other), distance(other, one)), (expected, expected), "{one} {other}");
        }
    }

    #[test]
    fn only_a_word_that_is_like_another_is_one() {
        let keys = ["servers", "stream", "subjects", "path", "max_events", "max_bytes"];
        let of = |word| closest(word, keys.into_iter());
        assert_eq!((of("server"), of("straem"), of("paht")), (vec!["servers"], vec!["stream"], vec!["path"]));
        assert_eq!((of("no-setting"), of("x"), of("")), (vec![], vec![], vec![]));
        assert_eq!(closest("queries", ["query", "route", "service"].into_iter()), ["query"]);
        assert_eq!(closest("ab", ["aa", "ac", "cc"].into_iter()), ["aa", "ac"]);
    }
}
