//! `catchment top`: the figures of the running collector, live.

mod figures_line;
mod screen;
mod series;
mod view;
mod watch;

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

use clap::Args;

use super::output::Output;
use super::quantities::{whole, written_duration};
use super::settings::{DatabaseArgs, Settings};
use super::signals::Signals;
use figures_line::FiguresLine;
use screen::{Key, Screen};
use series::Series;
use view::{Style, View};
use watch::Watch;

/// Show the figures of the running collector of a database, live
///
/// In a terminal, q or Ctrl-C ends it. It goes on while no collector runs, and shows the next one. Where standard input or output is no
/// terminal, or with --json, it prints a line of JSON for each second.
#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub struct Top {
    #[command(flatten)]
    database: DatabaseArgs,

    /// Time between two looks
    #[arg(short, long, value_name = "TIME", value_parser = written_duration, default_value = "1s")]
    interval: humantime::Duration,

    /// End after this many looks
    #[arg(short = 'n', long, value_name = "COUNT", value_parser = whole::<u64>(1..=u64::MAX, 60))]
    count: Option<u64>,

    /// Print a JSON object a line for each look, also in a terminal
    #[arg(short, long)]
    json: bool,
}

const AFTER_HELP: &str = "\
Rates are those between two looks; percentiles are of the last minute. catchment status has more figures, once.
JSON: {\"at\", \"state\", \"pending\", \"queued\", \"behind_seconds\", \"received_per_second\", \"committed_per_second\", \"batch_events\", \
\"commit_p50_seconds\", \"commit_p99_seconds\", \"delay_p50_seconds\", \"delay_p99_seconds\", \"committed\", \"dead_letters\", \
\"wal_bytes\", \"file_bytes\", \"reason\"}. While no collector runs, \"state\" is absent and all figures are null.
The environment variable NO_COLOR turns colours off.

Examples:
  catchment top
  catchment top --database chat.db --interval 5s
  catchment top -n 1 --json";

/// The shortest time between two looks.
const SHORTEST: Duration = Duration::from_millis(100);

impl Top {
    /// Shows the figures until it is ended.
    pub fn run(&self, settings: &Settings) -> anyhow::Result<()> {
        let path = settings.for_database(&self.database)?.database.path;
        let signals = Signals::catch()?;
        let watch = Watch::start(&path, (*self.interval).max(SHORTEST))?;
        let can_draw = std::env::var_os("TERM").is_some_and(|name| !name.is_empty() && name != "dumb");
        let is_terminal = io::stdin().is_terminal() && io::stdout().is_terminal() && can_draw;
        if self.json || !is_terminal { self.print_lines(&watch, &signals) } else { self.draw(&path, &watch, &signals) }
    }

    fn print_lines(&self, watch: &Watch, signals: &Signals) -> anyhow::Result<()> {
        let mut output = Output::new();
        let (mut series, mut looks) = (Series::default(), 0);
        loop {
            if let Some(status) = signals.interrupted() {
                return Err(status.into());
            }
            output.check_open()?;
            let Some(look) = watch.next(Duration::from_millis(100)) else { continue };
            series.add(&look);
            serde_json::to_writer(&mut output, &FiguresLine::of(&look, &series))?;
            writeln!(output)?;
            output.flush()?;
            looks += 1;
            if self.count.is_some_and(|count| looks >= count) {
                return Ok(());
            }
        }
    }

    fn draw(&self, path: &Path, watch: &Watch, signals: &Signals) -> anyhow::Result<()> {
        let style = Style { colors: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) };
        let mut screen = Screen::enter()?;
        let mut view = View::new(path, style);
        let (mut size, mut looks) = (Screen::size(), 0);
        screen.draw(&view.lines(size))?;
        loop {
            if let Some(status) = signals.interrupted() {
                return Err(status.into());
            }
            let is_due = match screen.key(Duration::from_millis(50))? {
                Some(Key::Quit) => return Ok(()),
                Some(Key::Suspend) => {
                    screen.suspend()?;
                    true
                }
                Some(Key::Redraw) => true,
                None => false,
            };
            let look = watch.next(Duration::ZERO);
            let now = Screen::size();
            if is_due || look.is_some() || now != size {
                size = now;
                looks += u64::from(look.is_some());
                if let Some(look) = look {
                    view.add(look);
                }
                screen.draw(&view.lines(size))?;
            }
            if self.count.is_some_and(|count| looks >= count) {
                return Ok(());
            }
        }
    }
}
