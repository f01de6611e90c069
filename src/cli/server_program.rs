//! Which nats-server to start.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// The program's file name.
const NAME: &str = "nats-server";

/// Finds a nats-server: the program that `NATS_SERVER_BIN` names, else the first on the `PATH`, else one that belongs to this program:
/// in the same folder, or in `target/nats/bin`, where `make` installs it, if this program is in `target/release` or `target/debug`.
/// Nothing is taken from the current directory, which may be anybody's.
///
/// # Errors
///
/// There is none; the text says how to get one.
pub fn find() -> anyhow::Result<PathBuf> {
    if let Some(given) = std::env::var_os("NATS_SERVER_BIN").filter(|program| !program.is_empty()).map(PathBuf::from) {
        let found = if given.components().count() > 1 { Some(given.clone()) } else { on_path(&given) };
        return found.filter(|file| is_program(file)).with_context(|| {
            format!("NATS_SERVER_BIN is {}, which is not a program; name a nats-server or unset it", given.display())
        });
    }
    if let Some(found) = on_path(Path::new(NAME)) {
        return Ok(found);
    }
    let own = std::env::current_exe().ok();
    if let Some(found) = own.as_deref().and_then(beside) {
        return Ok(found);
    }
    bail!(
        "no nats-server on the PATH or beside {}; install one (Debian package nats-server, Python package nats-server-bin, or a release \
         of nats-io/nats-server), or name the program with NATS_SERVER_BIN",
        own.as_deref().unwrap_or(Path::new("this program")).display()
    )
}

/// The first program of this name on the `PATH`. An entry that is empty or relative is in the current directory and does not count.
fn on_path(name: &Path) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let folders = std::env::split_paths(&path).filter(|folder| folder.is_absolute());
    folders.map(|folder| folder.join(name)).find(|file| is_program(file))
}

/// The nats-server that belongs to the program `own`.
fn beside(own: &Path) -> Option<PathBuf> {
    let folder = own.parent()?;
    let target = folder.parent().filter(|_| folder.ends_with("release") || folder.ends_with("debug"));
    let installed = target.map(|target| target.join("nats/bin").join(NAME));
    let candidates = [Some(folder.join(NAME)), installed].into_iter().flatten();
    let owner = owner(own)?;
    // Who can replace this program can replace the server too; nobody else's program is started.
    let is_ours = |file: &Path| {
        let parts = [Some(file), file.parent()].into_iter().flatten();
        parts.map(self::owner).all(|id| id.is_some_and(|id| id == owner || id == 0))
    };
    candidates.into_iter().find(|file| is_program(file) && is_ours(file))
}

fn owner(path: &Path) -> Option<u32> {
    std::fs::metadata(path).ok().map(|file| file.uid())
}

fn is_program(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(file: &Path) {
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
        std::fs::write(file, "").expect("writes");
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o755)).expect("changes");
    }

    #[test]
    fn a_server_that_belongs_to_the_program_is_found() {
        let root = tempfile::tempdir().expect("a folder");
        let at = |path: &str| root.path().join(path);
        for own in ["target/release/catchment", "target/debug/catchment", "bin/catchment"] {
            program(&at(own));
        }
        assert_eq!(beside(&at("target/release/catchment")), None);
        program(&at("target/nats/bin/nats-server"));
        program(&at("nats/bin/nats-server"));
        for own in ["target/release/catchment", "target/debug/catchment"] {
            assert_eq!(beside(&at(own)), Some(at("target/nats/bin/nats-server")), "{own}");
        }
        assert_eq!(beside(&at("bin/catchment")), None, "it was not built in a target folder");
        program(&at("bin/nats-server"));
        assert_eq!(beside(&at("bin/catchment")), Some(at("bin/nats-server")));
        // A text file is no program.
        std::fs::set_permissions(at("bin/nats-server"), std::fs::Permissions::from_mode(0o644)).expect("changes");
        assert_eq!(beside(&at("bin/catchment")), None);
    }
}
