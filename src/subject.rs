//! Subjects: which ones an event can have, and which ones a filter matches.
//!
//! The rules are those of <https://docs.nats.io/nats-concepts/subjects>.

use std::str::FromStr;

/// The longest subject. Server and client limit a protocol line to 4 KiB (the server's `max_control_line`), and a line holds
/// more than the subject.
const MAX_LENGTH: usize = 2048;

/// The longest subject of a stored event: longer than any that fits a protocol line.
const LONGEST_STORED: usize = 4096;

/// A subject, or many: `*` stands for any one token, `>` at the end for one token or more.
///
/// ```
/// let filter: catchment::Filter = "chat.*.line".parse()?;
/// assert!(filter.matches("chat.north.line") && !filter.matches("chat.line"));
/// # Ok::<(), catchment::InvalidSubject>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    text: String,
}

/// Text that is not a valid subject or filter. Its message is one line that names the subject and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidSubject(String);

impl FromStr for Filter {
    type Err = InvalidSubject;

    fn from_str(text: &str) -> Result<Self, InvalidSubject> {
        let tokens: Vec<&str> = text.split('.').collect();
        let last = tokens.len() - 1;
        let usable = |(at, token): (usize, &&str)| {
            !token.is_empty()
                && (*token != ">" || at == last)
                && !token.chars().any(|c| c.is_whitespace() || c.is_control())
        };
        if tokens.iter().enumerate().all(usable) && text.len() <= MAX_LENGTH {
            return Ok(Self { text: text.to_owned() });
        }
        let shown: String = text.chars().take(80).collect();
        Err(InvalidSubject(format!("{shown:?} is not a valid subject; an example is events.>")))
    }
}

impl Filter {
    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it matches this subject. Allocates nothing.
    #[must_use]
    pub fn matches(&self, subject: &str) -> bool {
        let (mut tokens, mut given) = (self.text.split('.'), subject.split('.'));
        loop {
            match (tokens.next(), given.next()) {
                (None, None) | (Some(">"), Some(_)) => return true,
                (Some(token), Some(given)) if token == given || token == "*" => {}
                _ => return false,
            }
        }
    }

    /// Whether it matches every subject that the other matches.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        let (mut tokens, mut other) = (self.text.split('.'), other.text.split('.'));
        loop {
            match (tokens.next(), other.next()) {
                (None, None) | (Some(">"), Some(_)) => return true,
                (Some(token), Some(other)) if token == other || (token == "*" && other != ">") => {}
                _ => return false,
            }
        }
    }

    /// The narrowest filter that covers both of two filters that overlap.
    fn joined_with(&self, other: &Self) -> Self {
        let mut tokens = Vec::new();
        for (one, other) in self.text.split('.').zip(other.text.split('.')) {
            match (one, other) {
                (">", _) | (_, ">") => {
                    tokens.push(">");
                    break;
                }
                (one, other) => tokens.push(if one == other { one } else { "*" }),
            }
        }
        Self { text: tokens.join(".") }
    }

    /// Whether some subject matches both.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        let (mut one, mut other) = (self.text.split('.'), other.text.split('.'));
        loop {
            match (one.next(), other.next()) {
                (None, None) | (Some(">"), Some(_)) | (Some(_), Some(">")) => return true,
                (Some(a), Some(b)) if a == b || a == "*" || b == "*" => {}
                _ => return false,
            }
        }
    }
}

/// Filters that cover these and of which no two overlap. Each pair that overlaps is replaced by the narrowest filter that covers both, so
/// the result may also match subjects that none of these matches.
pub(crate) fn without_overlaps(mut filters: Vec<Filter>) -> Vec<Filter> {
    loop {
        let pairs = (0..filters.len()).flat_map(|at| (at + 1..filters.len()).map(move |other| (at, other)));
        let Some((one, other)) = pairs.into_iter().find(|&(one, other)| filters[one].overlaps(&filters[other])) else {
            return filters;
        };
        let other = filters.remove(other);
        filters[one] = filters[one].joined_with(&other);
    }
}

/// Refuses a subject that no event can have: one that is empty or too long, has wildcards, white space or control characters, or is
/// reserved by the server.
pub(crate) fn validate(subject: &str) -> Result<(), InvalidSubject> {
    let shown = || subject.chars().take(80).collect::<String>();
    let refused = |detail: String| Err(InvalidSubject(detail));
    if subject.len() > MAX_LENGTH {
        return refused(format!("the subject {:?}… is longer than {MAX_LENGTH} bytes", shown()));
    }
    if subject.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return refused(format!("the subject {:?} has white space or control characters", shown()));
    }
    for token in subject.split('.') {
        match token {
            "" => return refused(format!("the subject {:?} has an empty token", shown())),
            "*" | ">" => {
                return refused(format!("the subject {:?} has a wildcard, and it must be one subject", shown()));
            }
            _ => {}
        }
    }
    if subject.starts_with("$JS.") || subject.starts_with("$SYS.") {
        return refused(format!("the subject {:?} is reserved by the server", shown()));
    }
    Ok(())
}

/// Refuses a subject with which no event is ever stored. A server takes more than [`validate`] does, unless it is pedantic: wildcards as
/// names, empty tokens, control characters. And it publishes events of its own.
pub(crate) fn validate_stored(subject: &str) -> Result<(), InvalidSubject> {
    let shown = || subject.chars().take(80).collect::<String>();
    if subject.is_empty() {
        return Err(InvalidSubject("the subject is empty".into()));
    }
    if subject.len() > LONGEST_STORED {
        return Err(InvalidSubject(format!("the subject {:?}… is longer than {LONGEST_STORED} bytes", shown())));
    }
    if subject.contains(char::is_whitespace) {
        return Err(InvalidSubject(format!("the subject {:?} has white space", shown())));
    }
    Ok(())
}

/// Whether subjects can begin with it: one token or several, no wildcards.
pub(crate) fn is_prefix(text: &str) -> bool {
    let bad = |c: char| c.is_whitespace() || c.is_control() || c == '*' || c == '>';
    text.split('.').all(|token| !token.is_empty() && !token.contains(bad))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(text: &str) -> Filter {
        text.parse().expect("a filter")
    }

    #[test]
    fn a_filter_matches_what_the_server_delivers() {
        for (text, subject) in [
            ("a.b", "a.b"),
            ("a.*", "a.b"),
            ("a.>", "a.b"),
            ("a.>", "a.b.c"),
            (">", "a"),
            ("*.b.>", "a.b.c"),
            // Only a token of its own is a wildcard.
            ("a.b*", "a.b*"),
        ] {
            assert!(filter(text).matches(subject), "{text} {subject}");
        }
        for (text, subject) in
            [("a.b", "a.c"), ("a.b", "a"), ("a", "a.b"), ("a.*", "a.b.c"), ("a.>", "a"), ("a.b*", "a.bc")]
        {
            assert!(!filter(text).matches(subject), "{text} {subject}");
        }
    }

    #[test]
    fn a_filter_covers_filters_it_matches_all_of() {
        for (wide, narrow) in
            [("a.b", "a.b"), ("a.*", "a.b"), ("a.*", "a.*"), ("a.>", "a.*.c"), ("a.>", "a.>"), (">", "a")]
        {
            assert!(filter(wide).covers(&filter(narrow)), "{wide} {narrow}");
        }
        for (one, other) in
            [("a.b", "a.*"), ("a.*", "a.>"), ("a.*", "a.b.c"), ("a.>", "a"), ("a.>", ">"), ("a.*.c", "a.b.*")]
        {
            assert!(!filter(one).covers(&filter(other)), "{one} {other}");
        }
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for text in ["", ".", "a..b", "a.>.b", "a b", "a.\n"] {
            assert!(text.parse::<Filter>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn filters_overlap_where_a_subject_matches_both() {
        for (one, other) in
            [("a.b", "a.b"), ("a.*", "a.b"), ("a.>", "a.b.c"), (">", "a"), ("a.*.c", "*.b.c"), ("a.>", "*.b")]
        {
            let (one, other) = (filter(one), filter(other));
            assert!(one.overlaps(&other) && other.overlaps(&one), "{one:?} {other:?}");
        }
        for (one, other) in
            [("a.b", "a.c"), ("a.*", "a"), ("a.>", "a"), ("a.*", "a.b.c"), ("a.*.c", "a.b.d"), ("a.>", "b.>")]
        {
            let (one, other) = (filter(one), filter(other));
            assert!(!one.overlaps(&other) && !other.overlaps(&one), "{one:?} {other:?}");
        }
    }

    #[test]
    fn filters_that_overlap_are_joined() {
        for (given, expected) in [
            (&["s.a.*", "s.*.a"][..], &["s.*.*"][..]),
            (&["a.>", "*.b"], &["*.>"]),
            (&["a.>", "*.b.c"], &["*.>"]),
            (&["a.b", "c", "a.*"], &["a.*", "c"]),
            (&["a.x.*", "a.*.y", "*.z.y", "q"], &["*.*.*", "q"]),
            (&["a", "b.*"], &["a", "b.*"]),
        ] {
            let joined = without_overlaps(given.iter().map(|text| filter(text)).collect());
            assert_eq!(joined, expected.iter().map(|text| filter(text)).collect::<Vec<_>>(), "{given:?}");
            let covered = |text: &&str| joined.iter().any(|wide| wide.covers(&filter(text)));
            assert!(given.iter().all(covered), "{given:?}");
        }
    }
}
