//! README.md and the pages of docs/ show what happens: their files are written, their commands run, their output compared.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use catchment::Config;
use catchment::testing::TestDatabase;

use crate::support::collector::{Collector, catchment};
use crate::support::server::{needs, program};

/// A fenced block of a page.
struct Block<'p> {
    /// `sql migrations/001_lines.sql`, `console`
    info: &'p str,
    text: String,
}

fn blocks(page: &str) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(info) = line.strip_prefix("```") {
            let text: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            blocks.push(Block { info, text: text.join("\n") + "\n" });
        }
    }
    blocks
}

/// Commands and what each says: `$ command`, then its lines.
fn commands(text: &str) -> Vec<(&str, String)> {
    let mut commands: Vec<(&str, String)> = Vec::new();
    for line in text.lines() {
        match (line.strip_prefix("$ "), commands.last_mut()) {
            (Some(command), _) => commands.push((command, String::new())),
            (None, Some((_, said))) => said.extend([line, "\n"]),
            (None, None) => panic!("a console block begins with a command: {line}"),
        }
    }
    commands
}

/// The same with every digit of a time, and of a number as long as one, as `0`.
fn timeless(text: &str) -> String {
    let is_of_a_time = |word: &str| {
        let digits = word.bytes().filter(u8::is_ascii_digit).count();
        let others = word.bytes().filter(|byte| !byte.is_ascii_digit() && !b"-:.TZ".contains(byte)).count();
        digits >= 14 && others == 0
    };
    let mut timeless = String::new();
    for word in text.split_inclusive(|c: char| !(c.is_ascii_digit() || "-:.TZ".contains(c))) {
        let end = word.trim_end_matches(|c: char| !(c.is_ascii_digit() || "-:.TZ".contains(c)));
        if is_of_a_time(end.trim_start_matches(':')) {
            timeless.extend(word.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }));
        } else {
            timeless.push_str(word);
        }
    }
    timeless
}

/// Somebody who pastes the blocks of a page, one after the other, into one folder.
struct Reader {
    folder: tempfile::TempDir,
    /// Started with `&`.
    collectors: Vec<Collector>,
    ran: usize,
}

impl Reader {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self { folder, collectors: Vec::new(), ran: 0 }
    }

    /// Ours, with the settings and the brokers of nobody. A page that needs a broker starts one.
    fn environment(command: &mut Command) {
        for (name, value) in catchment().get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.env("NATS_URL", "nats://127.0.0.1:9").env("NATS_SERVER_BIN", program());
    }

    /// `sh` in the folder, where `catchment` is ours; what it prints.
    fn shell(&self, command: &str) -> String {
        let ours = catchment();
        let program = Path::new(ours.get_program()).parent().expect("a folder").to_owned();
        let path = format!("{}:{}", program.display(), std::env::var("PATH").expect("a path"));
        let mut shell = Command::new("sh");
        Self::environment(&mut shell);
        shell.args(["-c", &format!("exec 2>&1\n{command}")]).current_dir(self.folder.path());
        let done = shell.env("PATH", path).output().expect("sh runs");
        let text = String::from_utf8(done.stdout).expect("UTF-8");
        // A wait of more than a second is logged. On a busy machine there may be one.
        text.split_inclusive('\n').filter(|line| !line.contains("its collector is starting")).collect()
    }

    /// A collector. Nothing waits for it here: the next command has to.
    fn in_the_background(&mut self, command: &str) {
        let mut words = command.split(' ');
        assert_eq!((words.next(), words.next()), (Some("catchment"), Some("run")), "{command}");
        let mut run = catchment();
        Self::environment(&mut run);
        run.arg("run").args(words).current_dir(self.folder.path());
        let log = self.folder.path().join("run.log");
        self.collectors.push(Collector::start(run, &log));
    }

    fn does(&mut self, command: &str, said: &str) {
        let command = command.replace("target/release/catchment", "catchment");
        self.ran += 1;
        if let Some(command) = command.strip_suffix(" &") {
            self.in_the_background(command);
        } else if command == "kill $!; wait $!" {
            let collector = self.collectors.pop().expect("one was started");
            assert!(collector.stop().success());
        } else {
            assert_eq!(timeless(&self.shell(&command)), timeless(said), "{command}\n{}", self.log());
        }
    }

    fn log(&self) -> String {
        self.collectors.last().map(Collector::log).unwrap_or_default()
    }

    fn reads(&mut self, page: &str) {
        for block in blocks(page) {
            match block.info.split_once(' ') {
                Some((_, file)) => {
                    let file = self.folder.path().join(file);
                    std::fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
                    std::fs::write(file, block.text).expect("writes");
                }
                None if block.info == "console" => {
                    for (command, said) in commands(&block.text) {
                        self.does(command, &said);
                    }
                }
                // A part of a configuration, or the library; see below.
                None if ["toml", "rust", "rust,no_run"].contains(&block.info) => {}
                // What a terminal shows without being asked.
                None if block.info == "text" => {}
                None => panic!("neither a file nor a console: {}", block.info),
            }
        }
        assert!(self.ran > 0, "no command");
    }
}

fn holds(page: &str) {
    Reader::new().reads(page);
}

#[test]
fn the_readme_is_as_documented() {
    let mut reader = Reader::new();
    // What `make run` does.
    let run = "run --with-server";
    assert!(include_str!("../../Makefile").contains(&format!("$(target)/release/catchment {run}\n")));
    reader.in_the_background(&format!("catchment {run}"));
    let page = include_str!("../../README.md");
    let shown = blocks(page).into_iter().find(|block| block.info == "text" && block.text.contains("collecting stream"));
    let shown = shown.expect("what it prints").text;
    let (log, hints) = shown.split_once("\n\n").expect("a log, then what to type");
    reader.collectors[0].said("collecting stream EVENTS");
    assert_eq!(without_port(&timeless(&reader.log())).trim_end(), without_port(&timeless(log)));
    // What it says to type is what is typed next.
    for command in hints.lines().filter_map(|line| line.find("target/release/").map(|at| &line[at..])) {
        assert!(page.contains(&format!("\n$ {command}\n")), "{command}");
    }
    reader.reads(page);
}

/// The same without the number after `127.0.0.1:`.
fn without_port(text: &str) -> String {
    let mut parts = text.split("127.0.0.1:");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + "127.0.0.1:" + part.trim_start_matches(|c: char| c.is_ascii_digit()))
}

/// Somebody may try several pages in one folder.
#[test]
fn no_two_pages_have_a_file_or_a_database_of_one_name() {
    let mut owners = std::collections::BTreeMap::new();
    for (page, text) in pages() {
        for block in blocks(&text) {
            let file = block.info.split_once(' ').map(|(_, file)| file.to_owned());
            let path = block.text.lines().find_map(|line| line.strip_prefix("path = \"")).filter(|_| file.is_some());
            let database = path.and_then(|path| path.split('"').next()).map(str::to_owned);
            for name in file.into_iter().chain(database) {
                let owner = owners.entry(name.clone()).or_insert_with(|| page.clone());
                assert_eq!(*owner, page, "{name}");
            }
        }
    }
    assert!(owners.len() > 15, "{owners:?}");
}

/// Otherwise the collector of one page would still run while the next one is tried.
#[test]
fn a_page_that_starts_a_collector_stops_it() {
    for (page, text) in pages() {
        let all: Vec<Block<'_>> = blocks(&text).into_iter().filter(|block| block.info == "console").collect();
        let all: Vec<&str> = all.iter().flat_map(|block| commands(&block.text)).map(|(command, _)| command).collect();
        let started = all.iter().filter(|command| command.ends_with(" &")).count();
        let stopped = all.iter().filter(|command| **command == "kill $!; wait $!").count();
        assert_eq!(started, stopped, "{page}");
    }
}

#[test]
fn a_page_whose_commands_need_a_broker_starts_one() {
    for (page, text) in pages() {
        let all: Vec<Block<'_>> = blocks(&text).into_iter().filter(|block| block.info == "console").collect();
        let all: Vec<&str> = all.iter().flat_map(|block| commands(&block.text)).map(|(command, _)| command).collect();
        let needs_one = |command: &&str| {
            ["run", "publish", "query"].iter().any(|name| command.starts_with(&format!("catchment {name} ")))
        };
        if let Some(first) = all.into_iter().find(needs_one) {
            assert!(first.contains("--with-server"), "{page}: {first}");
        }
    }
}

#[test]
fn rust_in_the_pages_is_whole_programs_that_the_documentation_tests_compile() {
    let (root, library) = (Path::new(env!("CARGO_MANIFEST_DIR")), include_str!("../../src/lib.rs"));
    let mut programs = 0;
    for (page, text) in &pages() {
        let page = Path::new(page).strip_prefix(root).expect("in the folder").display().to_string();
        for block in blocks(text).iter().filter(|block| block.info.starts_with("rust")) {
            // A part that needs files: `migrations::migrations_can_be_part_of_a_program` compiles it.
            if block.info == "rust" && page == "docs/migrations.md" {
                continue;
            }
            assert_eq!(block.info, "rust,no_run", "{page}: it is compiled and not run");
            assert!(block.text.contains("\nfn main() ") && block.text.starts_with("use "), "{page}: it is a part");
            let included = format!("#[cfg(doctest)]\n#[doc = include_str!(\"../{page}\")]");
            assert!(library.contains(&included), "{page} is not among the documentation tests of src/lib.rs");
            programs += 1;
        }
    }
    assert!(programs >= 2, "{programs} programs");
}

#[test]
fn the_documented_versions_of_sqlite_and_rusqlite_are_those_in_use() {
    let library = include_str!("../../src/lib.rs");
    let sqlite = catchment::rusqlite::version();
    let (minor, _) = sqlite.rsplit_once('.').expect("three numbers");
    assert!(library.contains(&format!("//! SQLite {minor} is built in, ")), "it is SQLite {sqlite}");
    let manifest: toml::Table = include_str!("../../Cargo.toml").parse().expect("TOML");
    let rusqlite = manifest["dependencies"]["rusqlite"]["version"].as_str().expect("a version");
    assert!(library.contains(&format!(" by rusqlite {rusqlite} ")), "it is rusqlite {rusqlite}");
}

#[test]
fn migrations_are_as_documented() {
    holds(include_str!("../../docs/migrations.md"));
}

#[test]
fn dead_letters_are_as_documented() {
    holds(include_str!("../../docs/dead-letters.md"));
}

#[test]
fn configuration_is_as_documented() {
    holds(include_str!("../../docs/configuration.md"));
}

#[test]
fn permissions_are_as_documented() {
    holds(include_str!("../../docs/permissions.md"));
}

#[test]
fn replay_gaps_and_verify_are_as_documented() {
    holds(include_str!("../../docs/replay.md"));
}

/// The pages that a user reads.
fn pages() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = std::fs::read_dir(root.join("docs")).expect("reads").map(|entry| entry.expect("an entry").path());
    let pages = docs.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let read = |path: std::path::PathBuf| {
        let text = std::fs::read_to_string(&path).expect("reads");
        (path.display().to_string(), text)
    };
    pages.chain([root.join("README.md")]).map(read).collect()
}

/// A part of a configuration has no tables; but for that its statements must do.
fn only_lacks_tables(mut config: Config, page: &str) {
    config.database.migrations = None;
    if let Err(refused) = TestDatabase::new(&config) {
        assert!(refused.to_string().contains("no such table"), "{page}: {refused}");
    }
}

#[test]
fn every_configuration_in_the_pages_is_one() {
    let (mut whole, mut parts) = (0, 0);
    for (page, text) in &pages() {
        for block in blocks(text) {
            // Another program's.
            if !block.info.starts_with("toml") || block.info.ends_with("Cargo.toml") {
                continue;
            }
            let config = Config::from_toml(&block.text).unwrap_or_else(|e| panic!("{page}: {e}:\n{}", block.text));
            let config = config.resolved().expect("it is valid");
            let Some((_, file)) = block.info.split_once(' ') else {
                parts += 1;
                only_lacks_tables(config, page);
                continue;
            };
            assert!(text.contains(&format!(" -c {file} ")), "{page}: no command runs {file}");
            whole += 1;
        }
    }
    assert!(whole >= 4 && parts >= 4, "{whole} whole ones and {parts} parts");
}

/// Targets of a page's links, `[text](target)`; without those to other sites and within the page.
fn links(page: &str) -> impl Iterator<Item = &str> {
    let targets = page.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
    targets
        .filter(|target| !target.contains("://"))
        .filter_map(|target| target.split('#').next())
        .filter(|file| !file.is_empty())
}

#[test]
fn every_link_in_the_pages_leads_to_a_file() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let others = ["ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "fuzz/README.md"].map(|name| {
        let path = root.join(name);
        let text = std::fs::read_to_string(&path).expect("reads");
        (path.display().to_string(), text)
    });
    let mut found = 0;
    for (page, text) in pages().iter().chain(&others) {
        let folder = Path::new(page).parent().expect("a folder");
        for target in links(text) {
            assert!(folder.join(target).exists(), "{page}: {target}");
            found += 1;
        }
    }
    assert!(found > 30, "{found} links");
}

#[test]
fn every_setting_has_its_place_on_the_page() {
    let page = include_str!("../../docs/configuration.md");
    let table = |name: &str| format!("[{name}]\nno-setting = 1");
    let tables = [
        "broker",
        "broker.prefetch",
        "broker.core",
        "broker.tls",
        "database",
        "batch",
        "service",
        "backup",
        "observe",
        "upkeep",
        "[route]",
        "[query]",
    ];
    for text in tables.map(table).into_iter().chain(["no-setting = 1".to_owned()]) {
        let said = Config::from_toml(&text).expect_err("there is no such setting").to_string();
        let (_, known) = said.split_once("expected one of ").unwrap_or_else(|| panic!("{said}"));
        for setting in known.lines().next().expect("a line").split(", ").map(|name| name.trim_matches('`')) {
            let shown =
                [format!("`{setting}`"), format!("\n{setting} = "), format!(" {setting} = "), format!("[{setting}]")];
            let nested = format!(".{setting}]");
            assert!(shown.iter().chain([&nested]).any(|shown| page.contains(shown)), "{setting} of {text}");
        }
    }
}

#[test]
fn operations_are_as_documented() {
    holds(include_str!("../../docs/operations.md"));
}

#[test]
fn backups_are_as_documented() {
    holds(include_str!("../../docs/backup.md"));
}

#[test]
fn exports_are_as_documented() {
    holds(include_str!("../../docs/export.md"));
}

#[test]
fn monitoring_is_as_documented() {
    holds(include_str!("../../docs/monitoring.md"));
}

#[test]
fn the_log_is_as_documented() {
    holds(include_str!("../../docs/logs.md"));
}

#[test]
fn retention_is_as_documented() {
    holds(include_str!("../../docs/retention.md"));
}

#[test]
fn partitions_are_as_documented() {
    if needs((2, 12), "partitions of whole subjects") {
        holds(include_str!("../../docs/scaling.md"));
    }
}

#[test]
fn the_spool_is_as_documented() {
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("skipped: the_spool_is_as_documented: no python3");
        return;
    }
    holds(include_str!("../../docs/spool.md"));
}

#[test]
fn queries_are_as_documented() {
    holds(include_str!("../../docs/queries.md"));
}

#[test]
fn only_times_are_left_out_of_a_comparison() {
    assert_eq!(
        timeless("at 2026-11-23T16:54:59Z; 17, x 2026-11-23T16:54:59.491847Z"),
        "at 0000-00-00T00:00:00Z; 17, x 0000-00-00T00:00:00.000000Z"
    );
    assert_eq!(timeless("\"published_us\":1795452899430223,\"n\":3"), "\"published_us\":0000000000000000,\"n\":3");
    assert_eq!(timeless("stored 1 of 2; line 1:17"), "stored 1 of 2; line 1:17");
}

/// The tests that a page names: `module::function`, or a module `…::tests`.
fn named_tests(page: &str) -> Vec<&str> {
    let is_path = |text: &&str| {
        let is_word = |word: &str| {
            !word.is_empty() && word.bytes().all(|b| b == b'_' || b.is_ascii_lowercase() || b.is_ascii_digit())
        };
        text.contains("::") && text.split("::").all(is_word)
    };
    let rows = page.lines().filter_map(|line| line.strip_prefix('|')?.trim_end().strip_suffix('|')?.rsplit('|').next());
    rows.flat_map(|tests| tests.split('`')).filter(is_path).collect()
}

/// Whether there is such a test, here or beside the code.
fn is_there(test: &str) -> bool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (module, name) = test.rsplit_once("::").expect("a path");
    // Tests of a module are in a file of their own, or in the module's.
    let modules = [Some(module), module.strip_suffix("::tests")].into_iter().flatten();
    modules.map(|module| module.replace("::", "/")).any(|module| {
        let files = ["tests/it", "src"].map(|folder| [".rs", "/mod.rs"].map(|end| format!("{folder}/{module}{end}")));
        files.as_flattened().iter().filter_map(|file| std::fs::read_to_string(root.join(file)).ok()).any(|text| {
            text.contains(&format!("fn {name}() {{"))
                || text.lines().any(|line| line.starts_with(&format!("mod {name}")))
        })
    })
}

#[test]
fn every_fault_on_the_page_names_tests_that_exist() {
    let page = include_str!("../../docs/faults.md");
    let tests = named_tests(page);
    assert!(tests.len() > 100, "only {} are found", tests.len());
    let missing: Vec<_> = tests.into_iter().filter(|test| !is_there(test)).collect();
    assert!(missing.is_empty(), "there is no {missing:?}");
    assert!(!is_there("links::no_such_test") && !is_there("no_such_module::tests"));
    assert!(!page.contains("`…"), "a name is written in full");
}

fn is_source(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "rs")
}

/// The files below a folder, without those of tests.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("reads") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("UTF-8");
        if path.is_dir() && name != "tests" {
            found.extend(sources(&path));
        } else if is_source(Path::new(name)) && !["mod.rs", "lib.rs", "tests.rs"].contains(&name) {
            found.push(path);
        }
    }
    found
}

#[test]
fn architecture_names_every_file_and_no_other() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("ARCHITECTURE.md")).expect("reads");
    let files = sources(&root.join("src"));
    let names: BTreeSet<_> = files.iter().filter_map(|file| file.file_name()?.to_str()).collect();
    assert!(files.len() > 200, "only {} are found", files.len());
    let quoted = page.split('`').skip(1).step_by(2).filter(|text| is_source(Path::new(text)));
    let on_page: BTreeSet<_> = quoted.filter_map(|path| path.rsplit('/').next()).collect();
    let missing: Vec<_> = names.difference(&on_page).collect();
    let gone: Vec<_> = on_page.difference(&names).collect();
    assert!(missing.is_empty() && gone.is_empty(), "not on the page: {missing:?}; not in src/: {gone:?}");
}
