//! Where migrations come from: numbered files of a folder, or scripts of the program. They are checked before the database is opened.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use crate::config::Migrations;
use crate::error::{Cause, Error};
use crate::input_format::{BYTE_ORDER_MARK, without_byte_order_mark};

const SAVE: &str = "save it as UTF-8";

/// A numbered script of SQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migration {
    /// Its position in the order.
    pub number: i64,
    /// The file, or the script's name.
    pub path: PathBuf,
    /// Its text, with Unix line ends and without a byte order mark, so that the SQL and its checksum are the same on every machine.
    pub(super) text: String,
}

impl Migration {
    /// Whether its SQL has this word, in any case, within a name or a comment too.
    pub(in crate::store) fn has_word(&self, word: &str) -> bool {
        self.text.to_ascii_lowercase().contains(&word.to_ascii_lowercase())
    }

    fn new(path: PathBuf, text: &[u8]) -> Result<Self, Error> {
        Ok(Self { number: number(&path)?, text: checked_text(&path, text)?, path })
    }

    /// The file's name.
    #[must_use]
    pub fn name(&self) -> String {
        self.path.file_name().map(OsStr::to_string_lossy).unwrap_or_default().into_owned()
    }

    /// SHA-256 of the text, in hexadecimal digits.
    pub(super) fn checksum(&self) -> String {
        HEXLOWER.encode(&Sha256::digest(&self.text))
    }

    /// Whether this is the checksum of the text. Earlier versions included a byte order mark.
    pub(super) fn has_checksum(&self, checksum: &str) -> bool {
        let with_mark = || HEXLOWER.encode(&Sha256::digest(format!("{BYTE_ORDER_MARK}{}", self.text)));
        self.checksum() == checksum || with_mark() == checksum
    }

    /// The line of the comment with which goose, sql-migrate and dbmate begin the part that undoes a migration.
    pub(super) fn down_section(&self) -> Option<usize> {
        const MARKS: [&str; 3] = ["+goose down", "+migrate down", "migrate:down"];
        let is_mark = |line: &str| {
            let comment = line.trim_start().strip_prefix("--").map(|comment| comment.trim_start().to_ascii_lowercase());
            comment.is_some_and(|comment| MARKS.iter().any(|mark| comment.starts_with(mark)))
        };
        self.text.lines().position(is_mark).map(|before| before + 1)
    }
}

/// An error that names a file, and the line if there is one.
pub(super) fn refused(path: &Path, line: Option<usize>, detail: impl Into<String>, source: Option<Cause>) -> Error {
    Error::Migration { path: path.to_owned(), line, detail: detail.into(), remedy: None, source }
}

/// All migrations, in the order of their numbers.
pub(super) fn read(source: &Migrations) -> Result<Vec<Migration>, Error> {
    let mut migrations = match source {
        Migrations::Folder(folder) => files(folder)?,
        Migrations::Scripts(scripts) => {
            let script = |(name, text): &(String, String)| script(name, text);
            scripts.iter().map(script).collect::<Result<_, _>>()?
        }
    };
    migrations.sort_by(|one, other| (one.number, &one.path).cmp(&(other.number, &other.path)));
    match migrations.windows(2).find(|pair| pair[0].number == pair[1].number) {
        Some([first, second]) => {
            let detail = format!("has the same number as {}", first.name());
            Err(refused(&second.path, None, detail, None).with_remedy("give one of them another number"))
        }
        _ => Ok(migrations),
    }
}

fn script(name: &str, text: &str) -> Result<Migration, Error> {
    let path = PathBuf::from(name);
    if !is_sql(&path) {
        return Err(refused(&path, None, "is not named as a migration", None).with_remedy("name it as 001_tables.sql"));
    }
    if is_down(&path) {
        return Err(refused(&path, None, "is named as one that undoes another", None)
            .with_remedy("leave it out: catchment undoes no migration"));
    }
    Migration::new(path, text.as_bytes())
}

/// The migrations of a folder. Files that do not end in `.sql`, files that end in `.down.sql`, hidden files and folders are passed over.
fn files(folder: &Path) -> Result<Vec<Migration>, Error> {
    let unusable = |reason: &str| Error::config("database.migrations", format!("{} {reason}", folder.display()));
    let unreadable = |e: std::io::Error| {
        unusable(&format!("cannot be read: {e}"))
            .with_remedy("name a folder (a relative path counts from the current directory)")
    };
    let (mut migrations, mut passed_over) = (Vec::new(), false);
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if !is_sql(&path) || path.is_dir() {
            continue;
        }
        if is_down(&path) {
            passed_over = true;
            continue;
        }
        // Reading a named pipe would wait for its writer.
        if path.exists() && !path.is_file() {
            let remedy = "move it to another folder";
            return Err(refused(&path, None, "it is not a regular file", None).with_remedy(remedy));
        }
        let text = std::fs::read(&path).map_err(|e| {
            refused(&path, None, format!("cannot be read: {e}"), Some(e.into()))
                .with_remedy("check the file and its permissions")
        })?;
        migrations.push(Migration::new(path, &text)?);
    }
    if migrations.is_empty() {
        let reason = if passed_over { "has .down.sql files alone, which are passed over" } else { "has no .sql file" };
        return Err(unusable(reason).with_remedy("add one, as 001_tables.sql, or remove the setting"));
    }
    Ok(migrations)
}

fn is_sql(path: &Path) -> bool {
    let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    !is_hidden && path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("sql"))
}

/// Whether a file is named as one that undoes a migration, as golang-migrate and sqlx name them: `001_lines.down.sql`.
fn is_down(path: &Path) -> bool {
    path.file_stem().is_some_and(|stem| stem.to_string_lossy().to_ascii_lowercase().ends_with(".down"))
}

/// The most digits that a number may have.
const MOST_DIGITS: usize = 18;

/// The number of the migration that a file is; `None` if it is none, by its name.
#[must_use]
pub fn number_of(path: &Path) -> Option<i64> {
    number(path).ok().filter(|_| is_sql(path) && !is_down(path))
}

/// The number that a file's name begins with: `001_lines.sql`, `0002-users.sql`.
fn number(path: &Path) -> Result<i64, Error> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let (digits, name) = stem.split_at(stem.find(|c: char| !c.is_ascii_digit()).unwrap_or(stem.len()));
    let is_named = name.strip_prefix(['_', '-']).is_some_and(|name| !name.is_empty());
    match digits.parse() {
        Ok(number) if is_named && digits.len() <= MOST_DIGITS => Ok(number),
        _ if is_named && !digits.is_empty() => Err(refused(path, None, "has too large a number", None)
            .with_remedy(format!("use at most {MOST_DIGITS} digits"))),
        _ => {
            let remedy = "name it as 001_tables.sql, or move it out if it is no migration";
            Err(refused(path, None, "does not begin with a number, _ or -, and a name", None).with_remedy(remedy))
        }
    }
}

fn checked_text(path: &Path, bytes: &[u8]) -> Result<String, Error> {
    let line_of = |at: usize| Some(bytes[..at].split(|byte| *byte == b'\n').count());
    if let Some(at) = bytes.iter().position(|&byte| byte == 0) {
        return Err(refused(path, line_of(at), "has a NUL character", None).with_remedy(SAVE));
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(without_byte_order_mark(text).replace("\r\n", "\n")),
        Err(e) => Err(refused(path, line_of(e.valid_up_to()), "is not UTF-8", Some(e.into())).with_remedy(SAVE)),
    }
}
