//! What `--version` prints: everything that a report of a problem needs about this program.

use std::sync::LazyLock;

use crate::store::sqlite_version;

/// After the program's name: its version, then a line each for SQLite, the target and the features.
pub static LONG: LazyLock<String> = LazyLock::new(|| {
    format!(
        "{}\nSQLite {}\ntarget {}{}\nfeatures {}",
        env!("CARGO_PKG_VERSION"),
        sqlite_version(),
        target(),
        if cfg!(debug_assertions) { " (debug build)" } else { "" },
        features().join(", ")
    )
});

/// The system that this program was built for, as compilers name it: `x86_64-unknown-linux-musl`.
fn target() -> String {
    let environment = [(cfg!(target_env = "gnu"), "gnu"), (cfg!(target_env = "musl"), "musl")];
    let abi = [(cfg!(target_abi = "eabihf"), "eabihf"), (cfg!(target_abi = "eabi"), "eabi")];
    let chosen = |names: &[(bool, &'static str)]| names.iter().find(|(is, _)| *is).map_or("", |(_, name)| *name);
    let last = [chosen(&environment), chosen(&abi)].concat();
    let arch = std::env::consts::ARCH;
    match std::env::consts::OS {
        "macos" => format!("{arch}-apple-darwin"),
        os if last.is_empty() => format!("{arch}-unknown-{os}"),
        os => format!("{arch}-unknown-{os}-{last}"),
    }
}

fn features() -> Vec<&'static str> {
    let all = [(cfg!(feature = "check"), "check"), (true, "cli"), (cfg!(feature = "compare"), "compare")];
    all.into_iter().filter(|(is, _)| *is).map(|(_, name)| name).chain(["toml"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_names_sqlite_the_target_and_the_features() {
        let lines: Vec<&str> = LONG.lines().collect();
        assert_eq!(lines[0], env!("CARGO_PKG_VERSION"));
        assert_eq!(lines[1], format!("SQLite {}", sqlite_version()));
        assert!(lines[2].starts_with(&format!("target {}-", std::env::consts::ARCH)), "{}", lines[2]);
        assert!(lines[3].starts_with("features ") && lines[3].contains("cli, "), "{}", lines[3]);
        assert_eq!(lines.len(), 4);
    }
}
