//! What pages and documentation name exists: public items, and threads.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn read(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// The public types with the names of their members, from `docs/public-items.txt`.
fn members() -> BTreeMap<String, BTreeSet<String>> {
    let items = read(&root().join("docs/public-items.txt"));
    let mut types: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut owner = String::new();
    for line in items.lines() {
        if let Some(member) = line.strip_prefix("    ") {
            let member = member.trim_start_matches("pub ").trim_start_matches("fn ");
            types.entry(owner.clone()).or_default().insert(word(member).to_owned());
        } else if let Some(("struct" | "enum" | "trait", name)) = line.split_once(' ') {
            let path = name.split(' ').next().unwrap_or_default();
            path.rsplit("::").next().unwrap_or_default().clone_into(&mut owner);
            types.entry(owner.clone()).or_default();
        } else {
            owner.clear();
        }
    }
    types
}

/// The name at the start of a text.
fn word(text: &str) -> &str {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    &text[..text.find(|c: char| !is_part(c)).unwrap_or(text.len())]
}

/// Each `Type::member` of a text.
fn named(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.match_indices("::").filter_map(|(at, _)| {
        let before = &text[..at];
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let owner = &before[before.rfind(|c: char| !is_part(c)).map_or(0, |end| end + 1)..];
        let member = word(&text[at + 2..]);
        (owner.starts_with(|c: char| c.is_ascii_uppercase()) && !member.is_empty()).then_some((owner, member))
    })
}

#[test]
fn every_public_item_on_the_pages_exists() {
    let types = members();
    let mut found = 0;
    let pages = std::fs::read_dir(root().join("docs")).expect("reads").map(|entry| entry.expect("an entry").path());
    let pages = pages.filter(|file| file.extension().is_some_and(|extension| extension == "md"));
    for page in
        pages.chain(["README.md", "ARCHITECTURE.md", "SECURITY.md", "examples/bot.rs"].map(|name| root().join(name)))
    {
        let text = read(&page);
        for (owner, member) in named(&text) {
            // `default` is from the standard library's trait.
            let Some(members) = types.get(owner).filter(|_| member != "default") else { continue };
            assert!(members.contains(member), "{}: {owner}::{member} is no public item", page.display());
            found += 1;
        }
    }
    assert!(found > 20, "{found}");
    assert!(types["Status"].contains("lost_events") && types["Collector"].contains("wait_for"), "{types:?}");
}

/// The source files below a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("reads").map(|entry| entry.expect("an entry").path());
    let files = |path: PathBuf| if path.is_dir() { sources(&path) } else { vec![path] };
    entries.flat_map(files).filter(|file| file.extension().is_some_and(|extension| extension == "rs")).collect()
}

#[test]
fn the_documentation_names_every_thread_of_the_library() {
    let documented = read(&root().join("src/lib.rs"));
    let mut threads = BTreeSet::new();
    for folder in ["broker", "maintenance", "pipeline", "query", "record", "store", "upkeep"] {
        for file in sources(&root().join("src").join(folder)) {
            let text = read(&file);
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            let literals = code.split('"').skip(1).step_by(2).filter(|literal| literal.starts_with("catchment-"));
            // Consumers and headers have names that begin so too.
            let literals = literals.filter(|literal| {
                !literal.ends_with('-') && !["catchment-reply-to", "catchment-event"].contains(literal)
            });
            threads.extend(literals.map(|name| name.replace("{number}", "0")));
        }
    }
    for thread in &threads {
        assert!(documented.contains(&format!("//! | `{thread}`")), "{thread} is not in the table of src/lib.rs");
    }
    assert!(threads.len() >= 12, "{threads:?}");
}
