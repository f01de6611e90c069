//! Where the value of each setting comes from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::json;
use toml::{Table, Value};

use super::environment::Environment;
use super::merging::value_at;
use crate::config::{Section, lines_of};

/// The settings of one source.
pub struct Layer {
    pub source: Source,
    pub table: Table,
}

/// A source of settings.
#[derive(Clone, PartialEq, Eq)]
pub enum Source {
    Flags,
    /// `CATCHMENT_*`.
    Variables,
    File,
    /// The file with the address of the server that `run --with-server` started.
    AddressFile(PathBuf),
    /// `NATS_*`.
    NatsVariables,
    Context {
        name: String,
        named_by: &'static str,
    },
}

/// Where a value comes from.
#[derive(Debug, PartialEq, Eq)]
pub enum Origin {
    Flag(String),
    Variable(String),
    File { file: PathBuf, line: Option<usize> },
    AddressFile(PathBuf),
    Context { name: String, named_by: &'static str },
    Default,
}

/// Finds where values come from.
pub struct Origins<'s> {
    /// The lowest first.
    layers: Vec<Layer>,
    /// Settings and their flags.
    flags: Vec<(String, String)>,
    environment: &'s Environment,
    file: Option<&'s Path>,
    lines: BTreeMap<String, usize>,
}

impl<'s> Origins<'s> {
    /// Of these sources, the lowest first. `flags` has settings and their flags.
    pub fn new(
        layers: Vec<Layer>,
        flags: Vec<(String, String)>,
        environment: &'s Environment,
        file: Option<&'s Path>,
    ) -> Self {
        Self { layers, flags, environment, file, lines: file.map(lines_of).unwrap_or_default() }
    }

    /// Where the value of this setting comes from.
    pub fn of(&self, section: &Section, key: &str) -> Origin {
        let path = section.path(key);
        let Some(layer) = self.layers.iter().rev().find(|layer| has(&layer.table, section, key)) else {
            return Origin::Default;
        };
        // A list comes from one source as a whole, and so may a table.
        let setting = if section.number.is_some() { section.name } else { &path };
        match &layer.source {
            Source::Flags => {
                let flag = self.flags.iter().find(|(name, _)| name == setting);
                Origin::Flag(flag.map_or(path, |(_, flag)| flag.clone()))
            }
            Source::Variables => {
                let outer = std::iter::successors(Some(setting), |inner| Some(inner.rsplit_once('.')?.0));
                Origin::Variable(outer.into_iter().find_map(|name| self.environment.name_of(name)).unwrap_or(path))
            }
            Source::NatsVariables => {
                Origin::Variable(self.environment.nats_name_of(setting).map_or(path, str::to_owned))
            }
            Source::File => {
                let table = path.rsplit_once('.').map(|(table, _)| table);
                let line = self.lines.get(&path).or_else(|| self.lines.get(table?)).copied();
                Origin::File { file: self.file.map(Path::to_owned).unwrap_or_default(), line }
            }
            Source::AddressFile(file) => Origin::AddressFile(file.clone()),
            Source::Context { name, named_by } => Origin::Context { name: name.clone(), named_by },
        }
    }
}

/// Whether a source gives this setting. A list comes from the highest source that has it, as a whole: then that source may leave
/// out a key of an item.
fn has(table: &Table, section: &Section, key: &str) -> bool {
    match section.number {
        None => value_at(table, &section.path(key)).is_some(),
        Some(number) => {
            let items = table.get(section.name).and_then(Value::as_array);
            items.and_then(|items| items.get(number)?.as_table()).is_some_and(|item| item.contains_key(key))
        }
    }
}

impl Origin {
    /// As JSON: `{"source": "file", "name": "catchment.toml", "line": 3}`.
    pub fn json(&self) -> serde_json::Value {
        match self {
            Self::Flag(name) => json!({ "source": "flag", "name": name }),
            Self::Variable(name) => json!({ "source": "variable", "name": name }),
            Self::File { file, line } => {
                json!({ "source": "file", "name": file.to_string_lossy(), "line": line })
            }
            Self::AddressFile(file) => json!({ "source": "address_file", "name": file.to_string_lossy() }),
            Self::Context { name, named_by } => json!({ "source": "context", "name": name, "named_by": named_by }),
            Self::Default => json!({ "source": "default" }),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) | Self::Variable(name) => f.write_str(name),
            Self::File { file, line: Some(line) } => write!(f, "{}:{line}", file.display()),
            Self::File { file, line: None } => write!(f, "{}", file.display()),
            Self::AddressFile(file) => write!(f, "{} (run --with-server)", file.display()),
            Self::Context { name, named_by } => write!(f, "context {name} ({named_by})"),
            Self::Default => f.write_str("default"),
        }
    }
}
