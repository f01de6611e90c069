//! The prompt: reads statements from a terminal and runs them one after the other.

use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{CompletionType, Config, Editor};
use signal_hook::consts::SIGINT;

use super::commands::{COMMANDS, is_command};
use super::completion::Completion;
use super::history::history_file;
use super::output_format::{OutputFormat, run};
use super::tables;
use super::terminal_modes::restore_at_signals;
use crate::cli::failure;
use crate::cli::output::{Output, is_closed};
use crate::cli::values::printable;
use crate::store::{self, Reader};

/// How many statements the history keeps.
const KEPT: usize = 1_000;

/// A session at the prompt.
pub struct Prompt {
    paths: Vec<PathBuf>,
    reader: Reader,
    format: OutputFormat,
    editor: Editor<Completion, FileHistory>,
    history: Option<PathBuf>,
    /// The version of the tables whose names are completed.
    names_of: Option<i64>,
    /// Set by Ctrl-C while a statement runs.
    interrupted: Arc<AtomicBool>,
}

enum Next {
    Read,
    End,
}

impl Prompt {
    /// Opens the databases, to be read as one.
    ///
    /// # Errors
    ///
    /// A database or the terminal cannot be used.
    pub fn new(paths: &[PathBuf], format: OutputFormat) -> anyhow::Result<Self> {
        let interrupted = Arc::new(AtomicBool::new(false));
        let reader = open(paths, &interrupted)?;
        let config = Config::builder()
            .auto_add_history(false)
            .completion_type(CompletionType::List)
            .history_ignore_space(true)
            .max_history_size(KEPT)
            .context("cannot set up the prompt")?
            .build();
        let mut editor = Editor::with_config(config).context("cannot use the terminal")?;
        editor.set_helper(Some(Completion::default()));
        let history = history_file();
        if let Some(file) = &history {
            // There is none at the first start.
            let _ = editor.load_history(file);
        }
        restore_at_signals()?;
        // The terminal sends no signal while a line is edited.
        signal_hook::flag::register(SIGINT, Arc::clone(&interrupted)).context("cannot catch signals")?;
        let paths = paths.to_owned();
        Ok(Self { paths, reader, format, editor, history, names_of: None, interrupted })
    }

    /// Reads and runs statements until the user ends it.
    ///
    /// # Errors
    ///
    /// The terminal cannot be used any more. An error of a statement is printed.
    pub fn run(mut self) -> anyhow::Result<()> {
        let (version, sqlite) = (env!("CARGO_PKG_VERSION"), store::sqlite_version());
        let shown = self.paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
        println_to_output(&format!(
            "catchment {version}, SQLite {sqlite}, {}, read-only. A statement ends with ; and .help lists the commands.",
            printable(&shown)
        ))?;
        let name =
            self.paths.first().and_then(|path| path.file_stem()).unwrap_or_default().to_string_lossy().into_owned();
        let prompt = format!("{}> ", printable(&name));
        loop {
            self.refresh()?;
            match self.editor.readline(&prompt) {
                Ok(text) => {
                    if !text.trim().is_empty() {
                        self.keep(&text);
                    }
                    match self.execute(&text) {
                        Ok(Next::Read) => {}
                        Ok(Next::End) => return Ok(()),
                        Err(error) if is_closed(&error) => return Err(error),
                        Err(_) if self.interrupted.load(Ordering::Relaxed) => println_to_output("interrupted")?,
                        Err(error) => _ = failure::report(&error),
                    }
                }
                // The line is discarded.
                Err(ReadlineError::Interrupted) => {}
                Err(ReadlineError::Eof) => return Ok(()),
                Err(ReadlineError::Io(error)) if error.kind() == ErrorKind::InvalidData => {
                    println_to_output("")?;
                    failure::print("what was typed is not UTF-8; the line is discarded");
                }
                Err(error) => return Err(error).context("cannot read from the terminal"),
            }
        }
    }

    /// Opens the database again if necessary, and reads the names to complete.
    fn refresh(&mut self) -> anyhow::Result<()> {
        if self.reader.is_outdated() {
            self.reader = open(&self.paths, &self.interrupted)?;
        }
        // A long statement may be interrupted after its end.
        self.interrupted.store(false, Ordering::Relaxed);
        let version = self.reader.schema_version().ok();
        if version != self.names_of
            && let (Ok(names), Some(completion)) = (self.reader.names(), self.editor.helper_mut())
        {
            (completion.names, self.names_of) = (names, version);
        }
        Ok(())
    }

    fn keep(&mut self, text: &str) {
        let added = self.editor.add_history_entry(text);
        if let (Ok(true), Some(file)) = (added, &self.history)
            && let Err(error) = self.editor.append_history(file)
        {
            log::debug!("history {}: {error}", file.display());
        }
    }

    fn execute(&mut self, text: &str) -> anyhow::Result<Next> {
        // Several lines that were pasted at once.
        if let Some((first, rest)) = text.split_once('\n')
            && is_command(first)
        {
            return match self.execute(first)? {
                Next::Read => self.execute(rest),
                Next::End => Ok(Next::End),
            };
        }
        let mut output = Output::new();
        if is_command(text) {
            let text = text.trim().trim_end_matches(';').trim_end();
            let (command, argument) = match text.split_once(char::is_whitespace) {
                Some((command, argument)) => (command, Some(argument.trim()).filter(|argument| !argument.is_empty())),
                None => (text, None),
            };
            match (command.trim_start_matches('.'), argument) {
                ("quit" | "exit", None) => return Ok(Next::End),
                ("help", None) => {
                    for (command, does) in COMMANDS {
                        writeln!(output, "{command:<10}{does}")?;
                    }
                    writeln!(output, "{:<10}run SQL that reads; Ctrl-C interrupts it", "…;")?;
                }
                ("tables", None) => tables::print_list(&self.reader, self.format, &mut output)?,
                ("schema", table) => {
                    let table = table.map(|name| name.trim_matches('"'));
                    tables::print_schema(&self.reader, table, self.format, ".tables", &mut output)?;
                }
                ("mode", Some(name)) if OutputFormat::named(name).is_some() => {
                    self.format = OutputFormat::named(name).unwrap_or(self.format);
                    writeln!(output, "rows are printed as {name}")?;
                }
                ("mode", _) => anyhow::bail!(".mode takes table, json or csv"),
                _ => anyhow::bail!("there is no command {}; .help lists them", printable(text.trim())),
            }
        } else {
            let ran = run(&self.reader, text, self.format, &mut output);
            // Rows before an error are printed before it.
            output.flush()?;
            ran?;
        }
        output.flush()?;
        Ok(Next::Read)
    }
}

fn open(paths: &[PathBuf], interrupted: &Arc<AtomicBool>) -> anyhow::Result<Reader> {
    let reader = Reader::open_all(&paths.iter().map(PathBuf::as_path).collect::<Vec<_>>())?;
    reader.interrupt_when(Arc::clone(interrupted))?;
    Ok(reader)
}

fn println_to_output(line: &str) -> anyhow::Result<()> {
    let mut output = Output::new();
    writeln!(output, "{line}")?;
    Ok(output.flush()?)
}
