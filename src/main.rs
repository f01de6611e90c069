//! The `catchment` command. Exit status: 0 done, 1 failed, 2 wrong usage or configuration; `check` has those of monitoring
//! plug-ins.

fn main() -> std::process::ExitCode {
    catchment::unversioned::run_command()
}
