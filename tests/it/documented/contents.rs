//! What the pages have: settings that exist, links that lead somewhere, programs that are compiled, commands that fit each other.

use std::path::Path;

use catchment::Config;
use catchment::testing::TestDatabase;

use super::pages::{Block, blocks, commands, pages};

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
    let (root, library) = (Path::new(env!("CARGO_MANIFEST_DIR")), include_str!("../../../src/lib.rs"));
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
    let library = include_str!("../../../src/lib.rs");
    let sqlite = catchment::rusqlite::version();
    let (minor, _) = sqlite.rsplit_once('.').expect("three numbers");
    assert!(library.contains(&format!("//! SQLite {minor} is built in, ")), "it is SQLite {sqlite}");
    let manifest: toml::Table = include_str!("../../../Cargo.toml").parse().expect("TOML");
    let rusqlite = manifest["dependencies"]["rusqlite"]["version"].as_str().expect("a version");
    assert!(library.contains(&format!(" by rusqlite {rusqlite} ")), "it is rusqlite {rusqlite}");
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
    let page = include_str!("../../../docs/configuration.md");
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
