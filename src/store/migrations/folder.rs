//! The folder of migrations: numbered files, read and checked before the database is opened.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use crate::error::{Cause, Error};

const SAVE: &str = "save it as UTF-8";

/// A numbered file of SQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migration {
    /// Its position in the order.
    pub number: i64,
    /// The file.
    pub path: PathBuf,
    /// Its text, with Unix line ends, so that the SQL and its checksum are the same on every machine.
    pub(super) text: String,
}

impl Migration {
    /// The file's name.
    #[must_use]
    pub fn name(&self) -> String {
        self.path.file_name().map(OsStr::to_string_lossy).unwrap_or_default().into_owned()
    }

    /// SHA-256 of the text, in hexadecimal digits.
    pub(super) fn checksum(&self) -> String {
        HEXLOWER.encode(&Sha256::digest(&self.text))
    }
}

/// An error that names a file, and the line if there is one.
pub(super) fn refused(path: &Path, line: Option<usize>, detail: impl Into<String>, source: Option<Cause>) -> Error {
    Error::Migration { path: path.to_owned(), line, detail: detail.into(), remedy: None, source }
}

/// The migrations of a folder in their order. Files that do not end in `.sql`, hidden files and folders are skipped.
pub(super) fn read(folder: &Path) -> Result<Vec<Migration>, Error> {
    let unusable = |reason: String| Error::config("database.migrations", format!("{} {reason}", folder.display()));
    let unreadable = |e: std::io::Error| {
        unusable(format!("cannot be read: {e}"))
            .with_remedy("name a folder (a relative path counts from the current directory)")
    };
    let mut migrations: Vec<Migration> = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if is_sql(&path) && !path.is_dir() {
            migrations.push(Migration { number: number(&path)?, text: text(&path)?, path });
        }
    }
    if migrations.is_empty() {
        return Err(
            unusable("has no .sql file".into()).with_remedy("add one, as 001_tables.sql, or remove the setting")
        );
    }
    migrations.sort_by(|one, other| (one.number, &one.path).cmp(&(other.number, &other.path)));
    match migrations.windows(2).find(|pair| pair[0].number == pair[1].number) {
        Some([first, second]) => {
            let detail = format!("has the same number as {}", first.name());
            Err(refused(&second.path, None, detail, None).with_remedy("give one of them another number"))
        }
        _ => Ok(migrations),
    }
}

fn is_sql(path: &Path) -> bool {
    let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    !is_hidden && path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("sql"))
}

/// The number that a file's name begins with: `001_lines.sql`, `0002-users.sql`.
fn number(path: &Path) -> Result<i64, Error> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let (digits, name) = stem.split_at(stem.find(|c: char| !c.is_ascii_digit()).unwrap_or(stem.len()));
    let is_named = name.strip_prefix(['_', '-']).is_some_and(|name| !name.is_empty());
    match digits.parse() {
        Ok(number) if is_named => Ok(number),
        Err(_) if is_named && !digits.is_empty() => {
            Err(refused(path, None, "has too large a number", None).with_remedy("use at most 18 digits"))
        }
        _ => Err(refused(path, None, "has no number and name", None).with_remedy("name it as 001_tables.sql")),
    }
}

fn text(path: &Path) -> Result<String, Error> {
    let bytes = std::fs::read(path).map_err(|e| {
        refused(path, None, format!("cannot be read: {e}"), Some(e.into())).with_remedy("check its permissions")
    })?;
    let line_of = |at: usize| Some(bytes[..at].split(|byte| *byte == b'\n').count());
    if let Some(at) = bytes.iter().position(|&byte| byte == 0) {
        return Err(refused(path, line_of(at), "has a NUL character", None).with_remedy(SAVE));
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(text.replace("\r\n", "\n")),
        Err(e) => Err(refused(path, line_of(e.valid_up_to()), "is not UTF-8", Some(e.into())).with_remedy(SAVE)),
    }
}
