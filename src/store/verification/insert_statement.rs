//! Reads the parts of a simple INSERT: which table gets a row, and which column gets the sequence of the event.

/// A statement `INSERT INTO table(columns) VALUES (values)`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct InsertStatement {
    /// The table, without quotes.
    pub(super) table: String,
    /// The column that gets `:sequence`, if one does.
    pub(super) sequence_column: Option<String>,
    /// It adds a row whatever the table has: there is neither `OR …` nor `ON CONFLICT`.
    pub(super) is_plain: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Quoted(String),
    Other(char),
}

impl Token {
    fn is(&self, word: &str) -> bool {
        matches!(self, Self::Word(found) if found.eq_ignore_ascii_case(word))
    }

    fn name(&self) -> Option<&str> {
        match self {
            Self::Word(name) | Self::Quoted(name) => Some(name),
            Self::Other(_) => None,
        }
    }
}

impl InsertStatement {
    /// Reads a statement that SQLite has compiled; `None` if it is something else than an INSERT of one row of values.
    pub(super) fn of(sql: &str) -> Option<Self> {
        let tokens = tokens(sql);
        let mut rest = &tokens[..];
        take(&mut rest, "INSERT")?;
        let mut is_plain = true;
        if take(&mut rest, "OR").is_some() {
            is_plain = false;
            rest = rest.get(1..)?;
        }
        take(&mut rest, "INTO")?;
        let mut table = rest.first()?.name()?.to_owned();
        rest = rest.get(1..)?;
        if rest.first() == Some(&Token::Other('.')) {
            rest.get(1)?.name()?.clone_into(&mut table);
            rest = rest.get(2..)?;
        }
        if take(&mut rest, "AS").is_some() {
            rest = rest.get(1..)?;
        }
        let columns = if rest.first() == Some(&Token::Other('(')) { Some(list(&mut rest)?) } else { None };
        let sequence_column = if take(&mut rest, "VALUES").is_some() {
            let values = list(&mut rest)?;
            // A second row, or ON CONFLICT.
            is_plain &= rest.iter().all(|token| *token == Token::Other(';'));
            let at = values.iter().position(|value| is_sequence(value));
            at.zip(columns).and_then(|(at, columns)| match columns.get(at)?.as_slice() {
                [column] => column.name().map(str::to_owned),
                _ => None,
            })
        } else {
            is_plain = false;
            None
        };
        Some(Self { table, sequence_column, is_plain })
    }
}

/// Whether an expression is the parameter for the event's sequence and nothing else.
fn is_sequence(value: &[Token]) -> bool {
    matches!(value, [Token::Other(':' | '@' | '$'), Token::Word(name)] if name == "sequence")
}

fn take(rest: &mut &[Token], word: &str) -> Option<()> {
    let (first, others) = rest.split_first()?;
    first.is(word).then(|| *rest = others)
}

/// The parts of a list in parentheses, which are separated by commas.
fn list(rest: &mut &[Token]) -> Option<Vec<Vec<Token>>> {
    let (first, mut others) = rest.split_first()?;
    if *first != Token::Other('(') {
        return None;
    }
    let (mut parts, mut depth) = (vec![Vec::new()], 0);
    loop {
        let (token, after) = others.split_first()?;
        others = after;
        match token {
            Token::Other(')') if depth == 0 => break,
            Token::Other(',') if depth == 0 => parts.push(Vec::new()),
            token => {
                match token {
                    Token::Other('(') => depth += 1,
                    Token::Other(')') => depth -= 1,
                    _ => {}
                }
                parts.last_mut()?.push(token.clone());
            }
        }
    }
    *rest = others;
    Some(parts)
}

fn tokens(sql: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = sql.chars().peekable();
    while let Some(&next) = rest.peek() {
        if next.is_whitespace() {
            rest.next();
        } else if next.is_alphanumeric() || next == '_' {
            let mut word = String::new();
            while let Some(letter) = rest.next_if(|letter| letter.is_alphanumeric() || *letter == '_') {
                word.push(letter);
            }
            tokens.push(Token::Word(word));
        } else if let Some(end) = closing_quote(next) {
            rest.next();
            let mut text = String::new();
            while let Some(letter) = rest.next() {
                if letter != end {
                    text.push(letter);
                } else if end != ']' && rest.next_if_eq(&end).is_some() {
                    text.push(end);
                } else {
                    break;
                }
            }
            // A text is no name.
            tokens.push(if end == '\'' { Token::Other('\'') } else { Token::Quoted(text) });
        } else {
            rest.next();
            if next == '-' && rest.next_if_eq(&'-').is_some() {
                while rest.next_if(|letter| *letter != '\n').is_some() {}
            } else if next == '/' && rest.next_if_eq(&'*').is_some() {
                let mut last = ' ';
                for letter in rest.by_ref() {
                    if last == '*' && letter == '/' {
                        break;
                    }
                    last = letter;
                }
            } else {
                tokens.push(Token::Other(next));
            }
        }
    }
    tokens
}

fn closing_quote(opening: char) -> Option<char> {
    match opening {
        '"' | '`' | '\'' => Some(opening),
        '[' => Some(']'),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(sql: &str) -> Option<(String, Option<String>, bool)> {
        InsertStatement::of(sql).map(|insert| (insert.table, insert.sequence_column, insert.is_plain))
    }

    fn is(table: &str, column: Option<&str>, is_plain: bool) -> (String, Option<String>, bool) {
        (table.into(), column.map(str::to_owned), is_plain)
    }

    #[test]
    fn the_column_of_the_sequence_is_found() {
        assert_eq!(read("INSERT INTO t(a, seq) VALUES (:a, :sequence)"), Some(is("t", Some("seq"), true)));
        assert_eq!(
            read("insert into main.\"my \"\"t\" ([b c], `seq`) values (coalesce(:x, (1), 'a,b'), $sequence);"),
            Some(is("my \"t", Some("seq"), true))
        );
        assert_eq!(
            read("INSERT INTO t -- the (table)\n (/* , */ seq) VALUES (:sequence) ON CONFLICT DO NOTHING"),
            Some(is("t", Some("seq"), false))
        );
        assert_eq!(read("INSERT OR IGNORE INTO t(seq) VALUES (@sequence)"), Some(is("t", Some("seq"), false)));
    }

    #[test]
    fn what_is_no_plain_sequence_has_no_column() {
        assert_eq!(read("INSERT INTO t(a, b) VALUES (:a, :sequence + 1)"), Some(is("t", None, true)));
        assert_eq!(read("INSERT INTO t VALUES (:a, :sequence)"), Some(is("t", None, true)));
        assert_eq!(read("INSERT INTO t(a) SELECT :sequence"), Some(is("t", None, false)));
        assert_eq!(read("INSERT INTO t(a) VALUES (:a), (:b)"), Some(is("t", None, false)));
        assert_eq!(read("UPDATE t SET a = :sequence"), None);
        assert_eq!(read("INSERT INTO t(a"), None);
        assert_eq!(read(""), None);
    }
}
