//! Where migrations come from.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::{Deserialize, Deserializer, Visitor};

/// Where the migrations of a database come from: a folder, or the program itself.
///
/// ```
/// use catchment::config::{Config, Migrations};
///
/// let mut config = Config::default();
/// config.database.migrations = Some("migrations".into()); // a folder
/// config.database.migrations = Some(Migrations::scripts([
///     ("001_lines.sql", "CREATE TABLE lines(id INTEGER PRIMARY KEY, text TEXT NOT NULL) STRICT;"),
///     ("002_seen.sql", "ALTER TABLE lines ADD COLUMN seen INTEGER;"), // or include_str!("migrations/002_seen.sql")
/// ]));
/// assert!(config.validate().is_ok());
/// ```
///
/// Both follow the same rules, and a database does not record which of them its migrations came from. So a program may change from a
/// folder to the same files as scripts.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Migrations {
    /// The SQL files of a folder. A relative path counts from the current directory. In a settings file this is the only kind.
    Folder(PathBuf),
    /// Names and texts of SQL scripts, in any order: their numbers decide. A name is the name of a file, or a path to one.
    Scripts(Vec<(String, String)>),
}

impl Migrations {
    /// Scripts with these names and texts.
    pub fn scripts<N: Into<String>, T: Into<String>>(scripts: impl IntoIterator<Item = (N, T)>) -> Self {
        Self::Scripts(scripts.into_iter().map(|(name, text)| (name.into(), text.into())).collect())
    }
}

impl From<PathBuf> for Migrations {
    fn from(folder: PathBuf) -> Self {
        Self::Folder(folder)
    }
}

impl From<&Path> for Migrations {
    fn from(folder: &Path) -> Self {
        Self::Folder(folder.into())
    }
}

impl From<&str> for Migrations {
    fn from(folder: &str) -> Self {
        Self::Folder(folder.into())
    }
}

impl From<String> for Migrations {
    fn from(folder: String) -> Self {
        Self::Folder(folder.into())
    }
}

impl<'de> Deserialize<'de> for Migrations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FolderVisitor;
        impl Visitor<'_> for FolderVisitor {
            type Value = Migrations;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the path of a folder, as \"migrations\"")
            }

            fn visit_str<E: serde::de::Error>(self, folder: &str) -> Result<Migrations, E> {
                Ok(folder.into())
            }
        }
        deserializer.deserialize_str(FolderVisitor)
    }
}
