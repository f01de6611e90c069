//! The pages of the documentation, and the blocks in them.

use std::path::Path;

/// A fenced block of a page.
pub struct Block<'p> {
    /// `sql migrations/001_lines.sql`, `console`
    pub info: &'p str,
    pub text: String,
}

pub fn blocks(page: &str) -> Vec<Block<'_>> {
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
pub fn commands(text: &str) -> Vec<(&str, String)> {
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

/// The pages that a user reads.
pub fn pages() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = std::fs::read_dir(root.join("docs")).expect("reads").map(|entry| entry.expect("an entry").path());
    let pages = docs.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let read = |path: std::path::PathBuf| {
        let text = std::fs::read_to_string(&path).expect("reads");
        (path.display().to_string(), text)
    };
    pages.chain([root.join("README.md")]).map(read).collect()
}
