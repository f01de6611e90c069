//! The words that a misspelt one was probably meant as: keys, variables, flags, subjects, streams, tables, columns.

#[cfg(feature = "toml")]
use strsim::osa_distance;

/// The candidates that differ least from the word, if they differ in few characters: at most three of them, and none for a word that is
/// like no other.
#[cfg(feature = "toml")]
pub(crate) fn closest<'c>(word: &str, candidates: impl Iterator<Item = &'c str>) -> Vec<&'c str> {
    let most = word.chars().count().div_ceil(4).min(3);
    // The plural of a word with y is one mistake.
    let singular = word.strip_suffix("ies").map(|stem| format!("{stem}y"));
    let distance_to = |one: &str| {
        let of_singular = singular.as_ref().map(|singular| osa_distance(singular, one) + 1);
        osa_distance(word, one).min(of_singular.unwrap_or(usize::MAX))
    };
    let mut found: Vec<(usize, &str)> = candidates.map(|one| (distance_to(one), one)).collect();
    let least = found.iter().map(|(distance, _)| *distance).min().unwrap_or_default();
    found.retain(|(distance, _)| *distance == least && least <= most);
    found.into_iter().map(|(_, one)| one).take(3).collect()
}

/// The end of a message about a name that does not exist: `; did you mean username?`. Empty if no candidate is like it, and without
/// the feature `toml`.
#[cfg(feature = "toml")]
pub(crate) fn did_you_mean<'c>(word: &str, candidates: impl Iterator<Item = &'c str>) -> String {
    match &closest(word, candidates)[..] {
        [] => String::new(),
        [one] => format!("; did you mean {one}?"),
        [others @ .., last] => format!("; did you mean {} or {last}?", others.join(", ")),
    }
}

/// Empty.
#[cfg(not(feature = "toml"))]
pub(crate) fn did_you_mean<'c>(_: &str, _: impl Iterator<Item = &'c str>) -> String {
    String::new()
}

#[cfg(all(test, feature = "toml"))]
mod tests {
    use super::*;

    #[test]
    fn only_a_word_that_is_like_another_is_one() {
        let keys = ["servers", "stream", "subjects", "path", "max_events", "max_bytes"];
        let of = |word| closest(word, keys.into_iter());
        assert_eq!((of("server"), of("straem"), of("paht")), (vec!["servers"], vec!["stream"], vec!["path"]));
        assert_eq!((of("no-setting"), of("x"), of("")), (vec![], vec![], vec![]));
        assert_eq!(closest("queries", ["query", "route", "service"].into_iter()), ["query"]);
        assert_eq!(closest("ab", ["aa", "ac", "cc"].into_iter()), ["aa", "ac"]);
    }

    #[test]
    fn a_suggestion_ends_a_message() {
        let of = |word| did_you_mean(word, ["username", "userid", "a1", "a2"].into_iter());
        assert_eq!(of("usernme"), "; did you mean username?");
        assert_eq!(of("a3"), "; did you mean a1 or a2?");
        assert_eq!(of("room"), "");
    }
}
