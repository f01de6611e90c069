//! Subjects: which ones an event can have, and which ones a filter takes.
//!
//! The rules are those of <https://docs.nats.io/nats-concepts/subjects>.

use std::str::FromStr;

/// The longest subject that fits, with room for the rest, in the 4 KiB that server and client grant a protocol line
/// (`max_control_line` in the server's configuration).
const LONGEST: usize = 2048;

/// A subject, or with `*` for any one token and `>` for one or more at the end, many subjects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    text: String,
}

impl FromStr for Filter {
    type Err = String;

    /// # Errors
    ///
    /// One line that says what is wrong with it.
    fn from_str(text: &str) -> Result<Self, String> {
        let tokens: Vec<&str> = text.split('.').collect();
        let last = tokens.len() - 1;
        let usable = |(at, token): (usize, &&str)| {
            !token.is_empty()
                && (*token != ">" || at == last)
                && !token.chars().any(|c| c.is_whitespace() || c.is_control())
        };
        if tokens.iter().enumerate().all(usable) && text.len() <= LONGEST {
            return Ok(Self { text: text.to_owned() });
        }
        let shown: String = text.chars().take(80).collect();
        Err(format!("{shown:?} is no subject; one looks like events.> or chat.*.log"))
    }
}

impl Filter {
    /// As it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it takes this subject. Allocates nothing.
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

    /// Whether it takes every subject that the other takes.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let (mut tokens, mut other) = (self.text.split('.'), other.text.split('.'));
        loop {
            match (tokens.next(), other.next()) {
                (None, None) | (Some(">"), Some(_)) => return true,
                (Some(token), Some(other)) if token == other || (token == "*" && other != ">") => {}
                _ => return false,
            }
        }
    }

    /// Whether some subject matches both.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
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

/// Says what a server or a client would choke on: an empty or wildcard subject, white space or control characters in it,
/// one that the server keeps for itself.
///
/// # Errors
///
/// One line that names the subject and what is wrong with it.
pub fn validate(subject: &str) -> Result<(), String> {
    let shown = || subject.chars().take(80).collect::<String>();
    if subject.len() > LONGEST {
        return Err(format!("the subject {:?}… is longer than {LONGEST} bytes", shown()));
    }
    if subject.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(format!("the subject {:?} has white space or control characters", shown()));
    }
    for token in subject.split('.') {
        match token {
            "" => return Err(format!("the subject {:?} has an empty token", shown())),
            "*" | ">" => return Err(format!("the subject {:?} has a wildcard, and it must be one subject", shown())),
            _ => {}
        }
    }
    if subject.starts_with("$JS.") || subject.starts_with("$SYS.") {
        return Err(format!("the subject {:?} is reserved by the server", shown()));
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
    fn a_filter_takes_what_the_server_would_deliver_on_it() {
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
    fn a_filter_covers_what_it_takes_all_of() {
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
}
