//! The files of a run, read line by line into commands, on a thread of its own: a pipe may stand
//! still for as long as whoever fills it likes, and the connection must not.

use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use dramatis_events::EntityId;
use jiff::civil::Date;
use tokio::sync::mpsc;

use super::clock::{Dial, Look};
use super::lines::{self, LINE_BYTES_MAX, Line, Lines, Opened, Source};
use super::parse::{self, Line as Said};
use super::plan::{self, Command, Counted, FileState, Planner, Problem};

/// How far into what can be read only once its first message is looked for, bytes: it is kept
/// meanwhile.
const LOOK_AHEAD_BYTES_MAX: usize = 256 * 1024;
/// Lines that are handed on at once, where they need not be waited for.
const LINES_AT_ONCE_MAX: usize = 64;
/// Such batches read and not yet sent.
const BATCHES_AHEAD_MAX: usize = 16;

type FileLines = Lines<File>;

struct Open {
    lines: FileLines,
    state: FileState,
    label: String,
    line: u64,
}

/// A file that is still to be read.
struct Waiting {
    path: PathBuf,
    /// What can be read only once stays open.
    opened: Option<FileLines>,
}

/// What was read.
pub(super) enum Read {
    /// A line, what came of it, and its commands.
    Line {
        /// Its bytes in the file.
        bytes: usize,
        /// `file:line`.
        origin: Arc<str>,
        /// What it was.
        planned: Result<Counted, Problem>,
        /// What is odd about its time.
        warning: Option<String>,
        /// To be sent, in this order.
        commands: Vec<Command>,
    },
    /// The end of a file.
    FileEnd,
}

/// All files of a run, in the order given.
pub(super) struct Feed {
    files: VecDeque<Waiting>,
    date: Option<Date>,
    planner: Planner,
    open: Option<Open>,
    bytes: Option<u64>,
}

impl Feed {
    /// Checks every file before anything is sent: that it can be read, and that its first
    /// message has a room and a date.
    pub(super) fn new(paths: Vec<PathBuf>, room: Option<String>, date: Option<Date>) -> anyhow::Result<Self> {
        if let Some(room) = &room {
            EntityId::parse(room).context("--room")?;
        }
        let (mut files, mut bytes, mut named) = (VecDeque::new(), Some(0), HashSet::new());
        for path in paths {
            let (lines, file) = check(&path, room.as_deref(), date)?;
            let label = path.display();
            let why = match file.source {
                Source::Regular => "what it holds would be recorded twice",
                Source::Once => "it can be read only once",
            };
            anyhow::ensure!(named.insert(file.identity), "{label}: {why}: name it once");
            let opened = match file.source {
                Source::Regular => {
                    bytes = bytes.map(|bytes| bytes + file.bytes);
                    None
                }
                Source::Once => {
                    bytes = None;
                    Some(lines)
                }
            };
            files.push_back(Waiting { path, opened });
        }
        Ok(Self { files, date, planner: Planner::new(room), open: None, bytes })
    }

    /// The size of all files, bytes; `None` where that is not known, as of a pipe.
    pub(super) fn bytes(&self) -> Option<u64> {
        self.bytes
    }

    /// Reads on a thread of its own, not further ahead than [`BATCHES_AHEAD_MAX`]. The end of what
    /// comes is that of the last file.
    pub(super) fn start(mut self) -> std::io::Result<mpsc::Receiver<anyhow::Result<Vec<Read>>>> {
        let (batches, incoming) = mpsc::channel(BATCHES_AHEAD_MAX);
        let read_all = move || {
            while let Some(batch) = self.batch().transpose() {
                let failed = batch.is_err();
                if batches.blocking_send(batch).is_err() || failed {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("import-read".to_owned()).spawn(read_all)?;
        Ok(incoming)
    }

    /// The next lines, as many as are there already, or else the next one; `None` once all files are
    /// read.
    fn batch(&mut self) -> anyhow::Result<Option<Vec<Read>>> {
        let mut batch = Vec::new();
        while let Some(read) = self.next()? {
            batch.push(read);
            let waits = self.open.as_ref().is_none_or(|open| !open.lines.has_next());
            if waits || batch.len() >= LINES_AT_ONCE_MAX {
                break;
            }
        }
        Ok((!batch.is_empty()).then_some(batch))
    }

    /// Plans the next line; `None` once all files are read.
    fn next(&mut self) -> anyhow::Result<Option<Read>> {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => match self.files.pop_front() {
                Some(file) => start(file, self.date)?,
                None => return Ok(None),
            },
        };
        let Some(line) = open.lines.next().with_context(|| unreadable(&open.label))? else {
            return Ok(Some(Read::FileEnd));
        };
        open.line += 1;
        let origin: Arc<str> = format!("{}:{}", open.label, open.line).into();
        let mut commands = Vec::new();
        let planned = match &line {
            Line::Whole(bytes) => {
                self.planner.line(&mut open.state, &origin, &parse::decode(bytes), &mut commands)
            }
            Line::TooLong(bytes) => Err(Problem::Unparsed(format!(
                "expected a line of less than {LINE_BYTES_MAX} bytes, got one of {bytes}"
            ))),
        };
        let warning = open.state.take_warning();
        self.open = Some(open);
        Ok(Some(Read::Line { bytes: line.len(), origin, planned, warning, commands }))
    }
}

fn start(Waiting { path, opened }: Waiting, date: Option<Date>) -> anyhow::Result<Open> {
    let label = path.display().to_string();
    let (lines, dial) = if let Some(lines) = opened {
        // It cannot be looked at ahead of time.
        (lines, Dial::default())
    } else {
        let dial = dial(&path).with_context(|| unreadable(&label))?;
        (lines::open(&path).with_context(|| unreadable(&label))?.0, dial)
    };
    let state = FileState::new(stem(&path), date_of(&path, date), dial);
    Ok(Open { lines, state, label, line: 0 })
}

/// How many hours the clock of a file counts, as all of its messages tell.
fn dial(path: &Path) -> std::io::Result<Dial> {
    let (mut lines, _) = lines::open(path)?;
    let mut look = Look::default();
    while !look.is_settled()
        && let Some(line) = lines.next()?
    {
        if let Line::Whole(bytes) = &line
            && let Ok(Said::Message(message)) = parse::parse(&parse::decode(bytes))
        {
            look.at(&message);
        }
    }
    Ok(look.dial())
}

fn unreadable(label: &str) -> String {
    format!("cannot read {label}")
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn date_of(path: &Path, given: Option<Date>) -> Option<Date> {
    given.or_else(|| plan::date_in(&path.file_name().unwrap_or_default().to_string_lossy()))
}

/// Opens a file and looks at its first message.
fn check(path: &Path, room: Option<&str>, date: Option<Date>) -> anyhow::Result<(FileLines, Opened)> {
    let label = path.display().to_string();
    let (mut lines, file) = lines::open(path).with_context(|| unreadable(&label))?;
    if room.is_some() && date.is_some() && file.source == Source::Once {
        return Ok((lines, file));
    }
    let mut looked_at = 0;
    loop {
        let passed;
        let line = match file.source {
            // It is opened again: nothing of it is kept.
            Source::Regular => {
                passed = lines.next().with_context(|| unreadable(&label))?;
                passed.as_ref()
            }
            Source::Once => lines.look_ahead().with_context(|| unreadable(&label))?,
        };
        let Some(line) = line else { return Ok((lines, file)) };
        looked_at += line.len();
        let text = match line {
            Line::Whole(bytes) => parse::decode(bytes),
            Line::TooLong(_) => "".into(),
        };
        if let Ok(Said::Message(message)) = parse::parse(&text) {
            let channel = message.place.map(|(channel, _)| channel);
            anyhow::ensure!(
                channel.is_some() || date_of(path, date).is_some(),
                "{label}: its lines have no date and its name has none either (expected YYYY-MM-DD in it): \
                 give one by --date"
            );
            let stem = stem(path);
            let name = room.or(channel).unwrap_or(&stem);
            EntityId::parse(name).with_context(|| format!("{label}: name its room by --room"))?;
            return Ok((lines, file));
        }
        anyhow::ensure!(
            looked_at < LOOK_AHEAD_BYTES_MAX || file.source == Source::Regular,
            "{label}: expected a message in its first {LOOK_AHEAD_BYTES_MAX} bytes, to tell its room and date: \
             give both by --room and --date"
        );
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests may fail loudly"
)]
mod tests {
    use super::*;
    use crate::cli::import::report::Report;

    fn file(dir: &tempfile::TempDir, name: &str, bytes: &[u8]) -> PathBuf {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    #[test]
    fn files_become_rooms_named_by_their_stem() {
        let dir = tempfile::tempdir().unwrap();
        let files = vec![
            file(
                &dir,
                "2004-11-15_03.raw.txt",
                b"[12:00] <a> caf\xe9\r\nnonsense\n[12:01] <\xe9> hi\n=== b sulks",
            ),
            file(&dir, "2004-11-16.raw.txt", b"[12:00] <a> hi"),
        ];
        let mut feed = Feed::new(files, None, None).unwrap();
        let (mut report, mut commands) = (Report::default(), Vec::new());
        while let Some(read) = feed.next().unwrap() {
            commands.extend(report.read(read));
        }
        let rooms: Vec<&str> = commands.iter().map(|command| &*command.room).collect();
        assert_eq!(rooms[..3], ["2004-11-15_03.raw"; 3]);
        assert_eq!(rooms[3..], ["2004-11-16.raw"; 3]);
        assert!(commands[2].frame.contains(r#"{"text":"café"}"#), "{}", commands[2].frame);
        assert_eq!((report.files, report.lines, report.messages), (2, 5, 3));
        assert_eq!((report.unparsed, report.refused), (1, 1));
        let problems = report.take_problems().join("\n");
        assert!(problems.contains("2004-11-15_03.raw.txt:2: not understood: expected"), "{problems}");
        assert!(problems.contains("2004-11-15_03.raw.txt:3: refused: a user id must be"), "{problems}");
    }

    #[test]
    fn what_cannot_be_imported_is_said_before_anything_is_sent() {
        let dir = tempfile::tempdir().unwrap();
        let error = |name: &str, bytes: &[u8], room: Option<&str>| {
            let files = vec![file(&dir, name, bytes)];
            format!("{:#}", Feed::new(files, room.map(str::to_owned), None).err().unwrap())
        };
        assert!(error("lobby.txt", b"[12:00] <a> hi", None).contains("give one by --date"));
        assert!(error("my log 2004-11-15.txt", b"[12:00] <a> hi", None).contains("name its room by --room"));
        assert!(error("2004-11-15.txt", b"[12:00] <a> hi", Some("a/b")).starts_with("--room: an entity id"));
        assert!(Feed::new(vec![dir.path().join("missing")], None, None).is_err());
        let day = file(&dir, "2004-11-15.txt", b"[12:00] <a> hi");
        let same = dir.path().join(".").join("2004-11-15.txt");
        let twice = Feed::new(vec![day, same], None, None).err().unwrap();
        assert!(twice.to_string().contains("name it once"), "{twice}");
        assert!(Feed::new(vec![file(&dir, "x", b"#x 2010-03-08 [01:00:00] <a> hi")], None, None).is_ok());
    }
}
