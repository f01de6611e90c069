//! The names in the pages: of tests, and of files of src/.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

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
    let page = include_str!("../../../docs/faults.md");
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
