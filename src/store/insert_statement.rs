//! Reads the parts of a simple INSERT: which table gets a row, and what its columns get.

/// A statement `INSERT INTO table(columns) VALUES (values)`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct InsertStatement {
    /// The table, without quotes.
    pub(super) table: String,
    /// The columns, without quotes, if the statement lists them.
    pub(super) columns: Option<Vec<String>>,
    /// What the columns get, in their order. Empty if these are not the values of a row.
    values: Vec<Value>,
    /// It adds a row whatever the table has: there is neither `OR …` nor `ON CONFLICT`.
    pub(super) is_plain: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Value {
    /// The parameter of this name and nothing else.
    Parameter(String),
    Expression,
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
        let columns = if rest.first() == Some(&Token::Other('(')) { Some(names(list(&mut rest)?)?) } else { None };
        let mut values = Vec::new();
        if take(&mut rest, "VALUES").is_some() {
            values.extend(list(&mut rest)?.into_iter().map(Value::of));
            // A second row, or ON CONFLICT.
            is_plain &= rest.iter().all(|token| *token == Token::Other(';'));
        } else {
            is_plain = false;
        }
        Some(Self { table, columns, values, is_plain })
    }

    /// The column that gets this parameter, if the statement lists its columns.
    pub(super) fn column_of(&self, parameter: &str) -> Option<&str> {
        let at = self.values.iter().position(|value| value.parameter() == Some(parameter))?;
        self.columns.as_ref()?.get(at).map(String::as_str)
    }

    /// The names of the parameters that are its values, if all are.
    pub(super) fn parameters(&self) -> Option<Vec<&str>> {
        self.values.iter().map(Value::parameter).collect()
    }
}

impl Value {
    fn of(tokens: Vec<Token>) -> Self {
        match <[Token; 2]>::try_from(tokens) {
            Ok([Token::Other(':' | '@' | '$'), Token::Word(name)]) => Self::Parameter(name),
            _ => Self::Expression,
        }
    }

    fn parameter(&self) -> Option<&str> {
        match self {
            Self::Parameter(name) => Some(name),
            Self::Expression => None,
        }
    }
}

/// The names of a list of columns.
fn names(list: Vec<Vec<Token>>) -> Option<Vec<String>> {
    list.into_iter().map(|tokens| <[Token; 1]>::try_from(tokens).ok()?[0].name().map(str::to_owned)).collect()
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
        InsertStatement::of(sql).map(|insert| {
            let column = insert.column_of("sequence").map(str::to_owned);
            (insert.table, column, insert.is_plain)
        })
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

    #[test]
    fn values_that_are_all_parameters_are_named() {
        let parameters = |sql| {
            InsertStatement::of(sql).and_then(|insert| {
                insert.parameters().map(|names| names.into_iter().map(str::to_owned).collect::<Vec<_>>())
            })
        };
        let named = |names: &[&str]| Some(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>());
        assert_eq!(parameters("INSERT INTO t VALUES (:a, @b, $c, :a)"), named(&["a", "b", "c", "a"]));
        for sql in
            ["INSERT INTO t VALUES (:a, 1)", "INSERT INTO t VALUES (:a, -:b)", "INSERT INTO t VALUES (:a, $b::c)"]
        {
            assert_eq!(parameters(sql), None, "{sql}");
        }
    }
}
