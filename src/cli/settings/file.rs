//! Which settings file a command reads: the one that `--config` names, else the one that `CATCHMENT_CONFIG` names, else
//! `catchment.toml` in the current directory if there is one.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use clap::Args;
use toml::Table;

use crate::cli::shell;
use crate::config::table_of;
use crate::error::Error;

/// The file in the current directory that is used if no other is named.
const DEFAULT: &str = "catchment.toml";

/// The settings file.
#[derive(Args, Clone, Default)]
pub struct FileArgs {
    /// Settings file, TOML [env: CATCHMENT_CONFIG] [default: catchment.toml in the current directory, if it exists]
    #[arg(short, long, global = true, value_name = "FILE", help_heading = "General")]
    config: Option<PathBuf>,

    /// Use no settings file: neither catchment.toml in the current directory nor the one that CATCHMENT_CONFIG names
    #[arg(long, global = true, help_heading = "General")]
    no_config: bool,
}

/// The flags of [`FileArgs`] in a command that reads no settings. Its help does not list them. They are accepted, so that the error can
/// say why there is nothing to name.
#[derive(Args)]
pub struct UnusedFileArgs {
    #[arg(short, long, hide = true)]
    config: Option<PathBuf>,

    #[arg(long, hide = true)]
    no_config: bool,
}

/// The settings file of a command.
#[derive(Default)]
pub struct SettingsFile {
    path: Option<PathBuf>,
    named_by: NamedBy,
}

/// What names the settings file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum NamedBy {
    Flag,
    Variable,
    /// It is the file in the current directory. Or there is no file.
    #[default]
    Default,
    /// `--no-config` excludes all files.
    Nothing,
}

impl FileArgs {
    /// Whether a flag names a file.
    pub fn is_named(&self) -> bool {
        self.config.is_some()
    }

    /// Chooses the file.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if two flags contradict each other, or nothing can be learnt about the file in the current directory.
    pub fn choose(&self) -> Result<SettingsFile, Error> {
        if self.no_config {
            return match &self.config {
                Some(_) => Err(Error::config("--config", "cannot be combined with --no-config")),
                None => Ok(SettingsFile { path: None, named_by: NamedBy::Nothing }),
            };
        }
        if let Some(file) = &self.config {
            return Ok(SettingsFile { path: Some(file.clone()), named_by: NamedBy::Flag });
        }
        if let Some(file) = std::env::var_os("CATCHMENT_CONFIG").filter(|file| !file.is_empty()) {
            return Ok(SettingsFile { path: Some(file.into()), named_by: NamedBy::Variable });
        }
        // A link that leads nowhere is there too, and is refused when it is read.
        match Path::new(DEFAULT).symlink_metadata() {
            Ok(_) => Ok(SettingsFile { path: Some(DEFAULT.into()), named_by: NamedBy::Default }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(SettingsFile::default()),
            Err(error) => {
                Err(Error::config(DEFAULT, format!("cannot be read: {error}")).with_remedy(NamedBy::Default.remedy()))
            }
        }
    }
}

impl SettingsFile {
    /// A file that a flag names.
    #[cfg(test)]
    pub fn named(path: PathBuf) -> Self {
        Self { path: Some(path), named_by: NamedBy::Flag }
    }

    /// The file, if there is one.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The file, if a flag or a variable names it.
    pub fn named_path(&self) -> Option<&Path> {
        self.path().filter(|_| matches!(self.named_by, NamedBy::Flag | NamedBy::Variable))
    }

    /// Logs the file with this level if nothing names it.
    pub fn log_unnamed(&self, level: log::Level) {
        if self.path.is_some() && self.named_by == NamedBy::Default {
            log::log!(
                level, event = "settings.unnamed", file = DEFAULT;
                "using the settings in {DEFAULT}; --no-config goes without them"
            );
        }
    }

    /// The flag, with a space before it, that makes another command in this directory use the same file. Empty if none is needed.
    pub fn flag(&self) -> String {
        match (self.named_path(), self.named_by) {
            (Some(file), _) => format!(" --config {}", shell::word(&file.to_string_lossy())),
            (None, NamedBy::Nothing) if Path::new(DEFAULT).symlink_metadata().is_ok() => " --no-config".into(),
            _ => String::new(),
        }
    }

    /// Its settings. Checks their keys and types.
    pub fn table(&self) -> Result<Table, Error> {
        let Some(file) = &self.path else { return Ok(Table::new()) };
        table_of(file, self.named_by.remedy()).map_err(|error| match self.named_by {
            // Nobody asked for it, so it may be the file of something else.
            NamedBy::Default if error.remedy().is_none() => error.with_remedy("correct it, or use --no-config"),
            _ => error,
        })
    }
}

impl NamedBy {
    /// What to do about a file that cannot be read.
    fn remedy(self) -> &'static str {
        match self {
            Self::Flag => "name another with --config",
            Self::Variable => {
                "the variable CATCHMENT_CONFIG names it: change the variable, or name another file with --config"
            }
            Self::Default | Self::Nothing => "correct that, or use --no-config",
        }
    }
}
