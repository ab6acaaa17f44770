//! What an import tells: counts, problems line by line, progress.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::feed::Read;
use super::plan::{Command, Counted, Problem};
use crate::cli::output;

/// How often progress is told where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(2);

/// Counts of a run.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) files: u64,
    pub(super) lines: u64,
    pub(super) bytes: u64,
    pub(super) messages: u64,
    pub(super) actions: u64,
    pub(super) system: BTreeMap<&'static str, u64>,
    /// Commands sent; one that goes again counts once.
    pub(super) sent: u64,
    /// Commands whose event was recorded now.
    pub(super) recorded: u64,
    /// Commands whose event was recorded by an earlier run.
    pub(super) duplicates: u64,
    /// Commands that had nothing to do, such as joining twice.
    pub(super) unchanged: u64,
    pub(super) refused: u64,
    /// Commands of who did not get into a full room: why is told of their joining alone.
    pub(super) excluded: u64,
    full_rooms: BTreeSet<Arc<str>>,
    pub(super) unparsed: u64,
    /// Lines whose time is odd.
    pub(super) warned: u64,
    problems: Vec<String>,
}

impl Report {
    /// Counts what was read; its commands are to be sent.
    pub(super) fn read(&mut self, read: Read) -> Vec<Command> {
        let Read::Line { bytes, origin, planned, warning, commands } = read else {
            self.files += 1;
            return Vec::new();
        };
        self.lines += 1;
        self.bytes += u64::try_from(bytes).unwrap_or(0);
        if let Some(warning) = warning {
            self.warned += 1;
            self.problems.push(format!("{origin}: {warning}"));
        }
        match planned {
            Ok(counted) => self.count(counted),
            Err(Problem::Refused(counted, reason)) => {
                self.count(counted);
                self.refuse(&origin, &reason);
            }
            Err(Problem::Unparsed(reason)) => {
                self.unparsed += 1;
                self.problems.push(format!("{origin}: not understood: {reason}"));
            }
        }
        commands
    }

    /// Counts a refused line and notes why.
    pub(super) fn refuse(&mut self, origin: &Arc<str>, reason: &str) {
        self.refused += 1;
        self.problems.push(format!("{origin}: refused: {reason}"));
    }

    /// Notes that a room took no more members.
    pub(super) fn full(&mut self, room: &Arc<str>) {
        self.full_rooms.insert(room.clone());
    }

    /// Whether a room took no more members at some time.
    pub(super) fn is_full(&self, room: &str) -> bool {
        self.full_rooms.contains(room)
    }

    fn count(&mut self, counted: Counted) {
        match counted {
            Counted::Message => self.messages += 1,
            Counted::Action => self.actions += 1,
            Counted::System(kind) => *self.system.entry(kind).or_default() += 1,
        }
    }

    /// Whether there were lines and none of them could be read.
    pub(super) fn is_of_nothing(&self) -> bool {
        self.lines > 0 && self.unparsed == self.lines
    }

    /// Commands with a positive answer.
    pub(super) fn acknowledged(&self) -> u64 {
        self.recorded + self.duplicates + self.unchanged
    }

    /// The problems since the last call, `file:line: reason` each.
    pub(super) fn take_problems(&mut self) -> Vec<String> {
        std::mem::take(&mut self.problems)
    }

    /// The summary, a few lines.
    pub(super) fn summary(&self, elapsed: Duration) -> String {
        let mut text = format!(
            "files      {}\nlines      {}\nmessages   {}\nactions    {}\nsystem     {}",
            self.files,
            self.lines,
            self.messages,
            self.actions,
            self.system.values().sum::<u64>(),
        );
        for (index, (kind, count)) in self.system.iter().enumerate() {
            let between = if index == 0 { " (" } else { ", " };
            // Writing to a String cannot fail.
            let _ = write!(text, "{between}{kind} {count}");
        }
        text.push_str(if self.system.is_empty() { "\n" } else { ")\n" });
        let _ = write!(
            text,
            "sent       {}\nrecorded   {}\nduplicates {}\nunchanged  {}\nrefused    {}\nunparsed   {}\nwarned     {}\n\
             elapsed    {:.2} s\nlines/s    {}",
            self.sent,
            self.recorded,
            self.duplicates,
            self.unchanged,
            self.refused,
            self.unparsed,
            self.warned,
            elapsed.as_secs_f64(),
            self.lines_per_second(elapsed),
        );
        if !self.full_rooms.is_empty() {
            let rooms: Vec<_> = self.full_rooms.iter().map(|room| &**room).collect();
            let _ = write!(
                text,
                "\nexcluded   {} (full rooms: {}; who does not leave stays a member: raise room.members_max on the server and \
                 import again, what lacks is then recorded behind the rest)",
                self.excluded,
                rooms.join(", "),
            );
        }
        text
    }

    fn lines_per_second(&self, elapsed: Duration) -> u128 {
        u128::from(self.lines) * 1_000 / elapsed.as_millis().max(1)
    }
}

/// Shows progress on standard error: a bar on a terminal, a line now and then elsewhere.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    /// `None` where it is not known.
    bytes: Option<u64>,
    started: Instant,
    told: Instant,
}

impl Progress {
    /// For files of this size in total, if it is known.
    pub(super) fn new(bytes: Option<u64>) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let (bar, style) = match bytes {
                Some(bytes) => (ProgressBar::new(bytes), "{wide_bar} {percent:>3} %  {msg}  eta {eta}"),
                None => (ProgressBar::no_length(), "{bytes} read  {msg}"),
            };
            let style = ProgressStyle::with_template(style);
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        let now = Instant::now();
        Self { bar, bytes, started: now, told: now }
    }

    /// Time since the start.
    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Prints new problems, and how far the run is.
    pub(super) fn tell(&mut self, report: &mut Report) {
        for problem in report.take_problems() {
            self.say(&problem);
        }
        let rate = report.lines_per_second(self.elapsed());
        if let Some(bar) = &self.bar {
            bar.set_position(report.bytes);
            bar.set_message(format!("{} lines, {rate} lines/s", report.lines));
        } else if self.told.elapsed() >= LINE_EVERY {
            self.told = Instant::now();
            let (lines, acknowledged) = (report.lines, report.acknowledged());
            let far = format!("{lines} lines read, {acknowledged} acknowledged, {rate} lines/s");
            self.say(&match self.bytes {
                None => far,
                Some(bytes) => {
                    let percent = report.bytes.saturating_mul(100) / bytes.max(1);
                    let left = u128::from(bytes.saturating_sub(report.bytes));
                    let eta_s = left * self.elapsed().as_millis() / u128::from(report.bytes.max(1)) / 1_000;
                    format!("{percent} %: {far}, eta {eta_s} s")
                }
            });
        }
    }

    /// Prints one line without breaking the bar.
    pub(super) fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| output::tell(text)),
            None => output::tell(text),
        }
    }

    /// Removes the bar.
    pub(super) fn finish(&mut self, report: &mut Report) {
        self.tell(report);
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
