//! What the command says of itself to shells, to `man` and in reports of problems: completions, pages, its version.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::collector::{catchment, fed, output, printed, stderr};

/// Whether this program is installed; says what is skipped where it is not.
fn has(program: &str, what: &str) -> bool {
    let there = Command::new("sh").args(["-c", &format!("command -v {program}")]).stdout(Stdio::null()).status();
    let there = there.expect("sh runs").success();
    if !there {
        eprintln!("skipped: {what}: {program} is not installed");
    }
    there
}

fn script(folder: &Path, shell: &str) -> String {
    let file = folder.join(if shell == "zsh" { "_catchment".to_owned() } else { format!("completions.{shell}") });
    std::fs::write(&file, printed(catchment().args(["completions", shell]))).expect("writes");
    file.to_str().expect("UTF-8").to_owned()
}

#[test]
fn bash_completes_commands_options_and_values() {
    if !has("bash", "completions of bash") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = script(folder.path(), "bash");
    for (words, expected) in [
        ("catchment compl", "completions"),
        ("catchment dead-letters re", "retry"),
        ("catchment run --with-s", "--with-server"),
        ("catchment check --format na", "nagios"),
        ("catchment config s", "show schema"),
        ("catchment compare-app", ""),
    ] {
        let complete = format!(
            "source {file}; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             _catchment catchment \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD - 1]}}\"; echo \"${{COMPREPLY[*]}}\""
        );
        let done = Command::new("bash").args(["--norc", "-c", &complete]).output().expect("bash runs");
        assert_eq!(String::from_utf8_lossy(&done.stdout).trim(), expected, "{words}: {}", stderr(&done));
    }
}

#[test]
fn fish_completes_and_zsh_reads_its_script() {
    let folder = tempfile::tempdir().expect("a folder");
    if has("fish", "completions of fish") {
        let file = script(folder.path(), "fish");
        let complete = format!(
            "source {file}; complete -C 'catchment dead-letters re'; complete -C 'catchment check --format na'"
        );
        let done = Command::new("fish")
            .args(["--no-config", "-c", &complete])
            .env("HOME", folder.path())
            .output()
            .expect("fish runs");
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(said.starts_with("retry\t") && said.contains("\nnagios\t"), "{said} {}", stderr(&done));
    }
    if has("zsh", "completions of zsh") {
        let file = script(folder.path(), "zsh");
        let done = Command::new("zsh").args(["-f", "-n", &file]).output().expect("zsh runs");
        assert!(done.status.success() && done.stderr.is_empty(), "{}", stderr(&done));
    }
}

/// Every command, as help lists them.
fn commands() -> Vec<String> {
    let help = printed(catchment().arg("--help"));
    let (_, list) = help.split_once("Commands:\n").expect("a list");
    let names = list
        .lines()
        .take_while(|line| line.starts_with("  "))
        .filter(|line| !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

#[test]
fn there_is_a_page_for_each_command_without_a_warning() {
    let folder = tempfile::tempdir().expect("a folder");
    let pages = folder.path().join("man/man1");
    printed(catchment().args(["man", "--dir"]).arg(&pages).env("SOURCE_DATE_EPOCH", "1767225600"));
    let commands = commands();
    assert!(commands.len() > 12, "{commands:?}");
    let inner = ["dead-letters-retry", "config-show"].map(str::to_owned);
    for name in commands.iter().chain(&inner) {
        let page = std::fs::read_to_string(pages.join(format!("catchment-{name}.1"))).expect(name);
        assert!(page.contains(".SH NAME\n") && page.contains(".SH \"SEE ALSO\"\n"), "{name}");
        assert!(page.contains("2026-01-01"), "{name}: {}", page.lines().nth(2).unwrap_or_default());
        let printed = printed(
            catchment()
                .arg("man")
                .args(if inner.contains(name) {
                    name.rsplitn(2, '-').collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>()
                } else {
                    vec![name.as_str()]
                })
                .env("SOURCE_DATE_EPOCH", "1767225600"),
        );
        assert_eq!(printed, page, "{name}");
    }
    for page in std::fs::read_dir(&pages).expect("reads").map(|entry| entry.expect("an entry").path()) {
        if has("mandoc", "the lint of pages") {
            let lint = Command::new("mandoc").args(["-Tlint", "-Wwarning"]).arg(&page).output().expect("mandoc runs");
            assert_eq!(String::from_utf8_lossy(&lint.stdout), "", "{}", page.display());
        }
        if has("groff", "the warnings of groff") {
            let done =
                Command::new("groff").args(["-man", "-ww", "-z", "-Tutf8"]).arg(&page).output().expect("groff runs");
            assert_eq!(stderr(&done), "", "{}", page.display());
        }
    }
    let page = printed(catchment().args(["man", "query"]));
    if has("man", "pages as man shows them") {
        let shown = fed(Command::new("man").args(["-l", "-"]).env("MANWIDTH", "100").env("LC_ALL", "C"), &page);
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        assert!(
            shown.contains("catchment query chat.messages.recent limit=20\n"),
            "examples keep their lines: {shown}"
        );
    }
}

#[test]
fn the_long_version_has_what_a_report_needs_and_never_fails() {
    let short = printed(catchment().arg("-V"));
    assert_eq!(short, format!("catchment {}\n", env!("CARGO_PKG_VERSION")));
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("catchment.toml"), "[brokr").expect("writes");
    let mut hostile = catchment();
    hostile.current_dir(folder.path()).arg("--version").env("CATCHMENT_CONFIG", "/nowhere").env("RUST_LOG", "=,=");
    let long = printed(&mut hostile);
    let lines: Vec<&str> = long.lines().collect();
    assert_eq!(lines[0], short.trim_end());
    assert_eq!(lines[1], format!("SQLite {}", catchment::rusqlite::version()));
    assert!(lines[2].starts_with("target ") && lines[3].starts_with("features check, cli, compare, "), "{long}");
    let closed = Command::new("sh").args(["-c", "exec \"$0\" --version >&-"]).arg(catchment().get_program()).output();
    assert_eq!(closed.expect("sh runs").status.code(), Some(0));
    let unknown = output(catchment().args(["completions", "tcsh"]));
    assert!(
        stderr(&unknown).contains("\"tcsh\": expected bash, elvish, fish, powershell or zsh"),
        "{}",
        stderr(&unknown)
    );
}

#[test]
fn packages_get_all_files_from_one_script() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/package-files");
    let mut write = Command::new(&script);
    write.arg(folder.path()).arg(catchment().get_program());
    let done = output(&mut write);
    assert!(done.status.success() && done.stdout.is_empty(), "{}", stderr(&done));
    for file in [
        "man/man1/catchment.1",
        "man/man1/catchment-run.1",
        "bash-completion/completions/catchment",
        "zsh/site-functions/_catchment",
        "fish/vendor_completions.d/catchment.fish",
        "catchment/settings.schema.json",
    ] {
        let size = std::fs::metadata(folder.path().join(file)).unwrap_or_else(|error| panic!("{file}: {error}")).len();
        assert!(size > 500, "{file}: {size}");
    }
    assert_eq!(output(&mut Command::new(&script)).status.code(), Some(2));
}
