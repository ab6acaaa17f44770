//! How far a walk over the log's files is: a bar on a terminal, a line now and then elsewhere.
//! What is found is printed at once.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::output;
use crate::log::embedded::offline::{Damage, Observer};

/// How often progress is told where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(2);

/// Follows a walk.
pub(in crate::cli) struct Progress {
    bar: Option<ProgressBar>,
    /// Whether findings are printed as they come, or kept for one document at the end.
    print: bool,
    bytes: u64,
    done: u64,
    started: Instant,
    told: Instant,
    /// All damage, if it is not printed.
    pub(super) damage: Vec<Damage>,
    /// All notes, if they are not printed.
    pub(super) notes: Vec<String>,
}

impl Progress {
    /// Prints what is found, or keeps it.
    pub(in crate::cli) fn new(print: bool) -> Self {
        let now = Instant::now();
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = "{wide_bar} {percent:>3} %  {bytes} of {total_bytes}, {bytes_per_sec}, eta {eta}";
            let style = ProgressStyle::with_template(style);
            ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self { bar, print, bytes: 0, done: 0, started: now, told: now, damage: Vec::new(), notes: Vec::new() }
    }

    /// So many bytes are done, of so many.
    pub(in crate::cli) fn reach(&mut self, done: u64, total: u64) {
        self.begin(total);
        self.advance(done.saturating_sub(self.done));
    }

    /// Removes the bar.
    pub(in crate::cli) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    /// Prints a line of the report without breaking the bar.
    fn say(&self, line: &str) {
        let line = format!("{line}\n");
        match &self.bar {
            Some(bar) => bar.suspend(|| output::report(&line)),
            None => output::report(&line),
        }
    }
}

impl Observer for Progress {
    fn begin(&mut self, bytes: u64) {
        self.bytes = bytes;
        if let Some(bar) = &self.bar {
            bar.set_length(bytes);
        }
    }

    fn advance(&mut self, bytes: u64) {
        self.done += bytes;
        if let Some(bar) = &self.bar {
            bar.set_position(self.done);
        } else if self.told.elapsed() >= LINE_EVERY {
            self.told = Instant::now();
            let percent = self.done.saturating_mul(100) / self.bytes.max(1);
            let elapsed_ms = self.started.elapsed().as_millis().max(1);
            let rate = u128::from(self.done) * 1_000 / elapsed_ms;
            let left = u128::from(self.bytes.saturating_sub(self.done));
            let (done, bytes, eta_s) = (self.done, self.bytes, left / rate.max(1));
            output::tell(&format!("{percent} %: {done} of {bytes} bytes, {rate} bytes/s, eta {eta_s} s"));
        }
    }

    fn damage(&mut self, damage: &Damage) {
        if self.print {
            self.say(&format!("DAMAGED  {} byte {}: {}", damage.file, damage.offset, damage.reason));
        } else {
            self.damage.push(damage.clone());
        }
    }

    fn note(&mut self, note: &str) {
        if self.print {
            self.say(&format!("note     {note}"));
        } else {
            self.notes.push(note.to_owned());
        }
    }
}
