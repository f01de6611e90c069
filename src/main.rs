//! The `catchment` command. Exit status: 0 done, 1 failed, 2 wrong usage or configuration; `check` has those of monitoring
//! plug-ins.

/// Messages are allocated by the thread that reads them and freed by the one that fills the batch. This allocator is faster at that
/// than the system's; docs/performance.md has the figures.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    catchment::unversioned::run_command()
}
