//! The files that use an inferred table: a migration, and settings or a route for them.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::table::{InferredTable, toml_text};
use crate::config::{Config, Migrations};
use crate::store::migrations::number_of;

/// A file and its text.
#[derive(Clone, Debug, PartialEq)]
pub struct NewFile {
    pub path: PathBuf,
    pub text: String,
}

/// The files for one table.
#[derive(Clone, Debug, PartialEq)]
pub struct Files {
    pub migration: NewFile,
    /// Whole settings, or a route for the end of the settings in use.
    pub settings: NewFile,
    /// The settings in use, to which the route has to be added.
    pub existing: Option<PathBuf>,
}

impl Files {
    /// The files for a table, in `folder` or beside the settings in use.
    ///
    /// # Errors
    ///
    /// The folder of the migrations cannot be read.
    pub fn new(table: &InferredTable, config: &Config, existing: Option<&Path>, folder: &Path) -> anyhow::Result<Self> {
        let migrations = match (&config.database.migrations, existing) {
            (Some(Migrations::Folder(folder)), Some(_)) => folder.clone(),
            _ => beside(folder, "migrations"),
        };
        let name = format!("{:03}_{}.sql", next_number(&migrations)?, table.name);
        let migration = NewFile { path: migrations.join(name), text: table.migration() };
        let settings = match existing {
            Some(_) => NewFile { path: beside(folder, &format!("{}.route.toml", table.name)), text: table.route() },
            None => NewFile { path: beside(folder, "catchment.toml"), text: whole_settings(table, config) },
        };
        Ok(Self { migration, settings, existing: existing.map(Path::to_owned) })
    }

    /// Both files.
    pub fn all(&self) -> [&NewFile; 2] {
        [&self.migration, &self.settings]
    }

    /// Writes both files, or none if one is there.
    ///
    /// # Errors
    ///
    /// A file is there already or cannot be written.
    pub fn write(&self) -> anyhow::Result<()> {
        if let Some(file) = self.all().into_iter().find(|file| file.path.symlink_metadata().is_ok()) {
            anyhow::bail!(
                "{} exists already: use it if an earlier infer wrote it; else give another --table or --dir",
                file.path.display()
            );
        }
        let [migration, settings] = self.all();
        let cannot = |file: &NewFile| format!("cannot write {}", file.path.display());
        migration.write().with_context(|| cannot(migration))?;
        settings.write().with_context(|| cannot(settings)).inspect_err(|_| {
            // One without the other would be of no use.
            let _ = fs::remove_file(&migration.path);
        })
    }

    /// The settings with which a collector would use the files, with no other route or query: to try them out.
    ///
    /// # Errors
    ///
    /// The existing migrations cannot be read.
    pub fn config(&self, config: &Config) -> anyhow::Result<Config> {
        let mut scripts = Vec::new();
        if let (Some(Migrations::Folder(folder)), Some(_)) = (&config.database.migrations, &self.existing) {
            for path in sql_files(folder)? {
                let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
                scripts.push((path.display().to_string(), text));
            }
        }
        scripts.push((self.migration.path.display().to_string(), self.migration.text.clone()));
        let mut tried = Config::from_toml(&self.settings.text)?;
        tried.broker = config.broker.clone();
        tried.database = config.database.clone();
        tried.database.migrations = Some(Migrations::scripts(scripts));
        tried.broker.subjects = tried.routes.iter().map(|route| route.subject.clone()).collect();
        Ok(tried)
    }
}

impl NewFile {
    fn write(&self) -> std::io::Result<()> {
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        // A file that was made since the check is not overwritten either.
        OpenOptions::new().write(true).create_new(true).open(&self.path)?.write_all(self.text.as_bytes())
    }
}

/// Settings that collect the subject and nothing else.
fn whole_settings(table: &InferredTable, config: &Config) -> String {
    let broker = &config.broker;
    // A server with a password in its address is not written down.
    let is_default = broker.servers == crate::config::BrokerConfig::default().servers || broker.address_file.is_some();
    let servers: Vec<String> = broker.servers.iter().map(|server| toml_text(server)).collect();
    let servers = match servers.iter().any(|server| server.contains('@')) {
        _ if is_default => String::new(),
        true => "# servers and credentials: see NATS_URL, --context and the page on configuration\n".to_owned(),
        false => format!("servers = [{}]\n", servers.join(", ")),
    };
    format!(
        "[broker]\n{servers}stream = {}\nsubjects = [{}]\n\n[database]\npath = {}\nmigrations = \"migrations\"\n\n{}",
        toml_text(&broker.stream),
        toml_text(table.subject.as_str()),
        toml_text(&config.database.path.to_string_lossy()),
        table.route()
    )
}

fn beside(folder: &Path, name: &str) -> PathBuf {
    if folder == Path::new(".") { name.into() } else { folder.join(name) }
}

/// The number of the next migration in a folder, which may be missing.
fn next_number(folder: &Path) -> anyhow::Result<i64> {
    let numbers = sql_files(folder)?.iter().filter_map(|path| number_of(path)).max();
    Ok(numbers.unwrap_or(0) + 1)
}

/// The migrations of a folder. None if the folder is missing.
fn sql_files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let cannot = || format!("cannot read {}", folder.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(cannot)? {
        files.push(entry.with_context(cannot)?.path());
    }
    files.retain(|path| number_of(path).is_some());
    files.sort();
    Ok(files)
}
