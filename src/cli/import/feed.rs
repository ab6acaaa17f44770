//! The files of a run, read line by line into commands.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use dramatis_events::EntityId;
use jiff::civil::Date;

use super::parse::{self, Line};
use super::plan::{self, Command, FileState, Planner};
use super::report::Report;

/// The longest line that is read, bytes; a longer one is no chat log's.
const LINE_BYTES_MAX: usize = 1024 * 1024;

struct Open {
    reader: BufReader<File>,
    state: FileState,
    label: String,
    line: u64,
}

/// All files of a run, in the order given.
pub(super) struct Feed {
    files: VecDeque<PathBuf>,
    date: Option<Date>,
    planner: Planner,
    open: Option<Open>,
    bytes: u64,
}

impl Feed {
    /// Checks every file before anything is sent: that it can be read, and that its first
    /// message has a room and a date.
    pub(super) fn new(files: Vec<PathBuf>, room: Option<String>, date: Option<Date>) -> anyhow::Result<Self> {
        if let Some(room) = &room {
            EntityId::parse(room).context("--room")?;
        }
        let mut bytes = 0;
        for path in &files {
            bytes += check(path, room.as_deref(), date)?;
        }
        Ok(Self { files: files.into(), date, planner: Planner::new(room), open: None, bytes })
    }

    /// The size of all files, bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Plans the next line; false once all files are read.
    pub(super) fn next(&mut self, report: &mut Report, commands: &mut Vec<Command>) -> anyhow::Result<bool> {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => match self.files.pop_front() {
                Some(path) => start(&path, self.date)?,
                None => return Ok(false),
            },
        };
        let Some(bytes) = read_line(&mut open.reader, &open.label)? else {
            report.files += 1;
            return Ok(true);
        };
        open.line += 1;
        let origin: Arc<str> = format!("{}:{}", open.label, open.line).into();
        let text = parse::decode(&bytes);
        let planned = self.planner.line(&mut open.state, &origin, &text, commands);
        report.line(bytes.len(), &origin, planned);
        self.open = Some(open);
        Ok(true)
    }
}

fn start(path: &Path, date: Option<Date>) -> anyhow::Result<Open> {
    let state = FileState::new(stem(path), date_of(path, date));
    let label = path.display().to_string();
    Ok(Open { reader: reader(path)?, state, label, line: 0 })
}

fn reader(path: &Path) -> anyhow::Result<BufReader<File>> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(BufReader::with_capacity(64 * 1024, file))
}

/// One line with its end; `None` at the end of the file.
fn read_line(reader: &mut BufReader<File>, label: &str) -> anyhow::Result<Option<Vec<u8>>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let limit = u64::try_from(LINE_BYTES_MAX).unwrap_or(u64::MAX);
    reader.take(limit).read_until(b'\n', &mut bytes).with_context(|| format!("cannot read {label}"))?;
    anyhow::ensure!(
        bytes.len() < LINE_BYTES_MAX,
        "{label}: expected lines of less than {LINE_BYTES_MAX} bytes, got a longer one: is it a chat log?"
    );
    Ok((!bytes.is_empty()).then_some(bytes))
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn date_of(path: &Path, given: Option<Date>) -> Option<Date> {
    given.or_else(|| plan::date_in(&path.file_name().unwrap_or_default().to_string_lossy()))
}

/// Looks at a file's first message; returns the file's size in bytes.
fn check(path: &Path, room: Option<&str>, date: Option<Date>) -> anyhow::Result<u64> {
    let label = path.display().to_string();
    let mut reader = reader(path)?;
    let size = reader.get_ref().metadata().map_or(0, |metadata| metadata.len());
    while let Some(bytes) = read_line(&mut reader, &label)? {
        let text = parse::decode(&bytes);
        let Ok(Line::Message(message)) = parse::parse(&text) else { continue };
        if message.place.is_none() {
            anyhow::ensure!(
                date_of(path, date).is_some(),
                "{label}: its lines have no date and its name has none either (expected YYYY-MM-DD in it): \
                 give one by --date"
            );
        }
        let stem = stem(path);
        let channel = message.place.map(|(channel, _)| channel);
        let name = room.or(channel).unwrap_or(&stem);
        EntityId::parse(name).with_context(|| format!("{label}: name its room by --room"))?;
        break;
    }
    Ok(size)
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
        while feed.next(&mut report, &mut commands).unwrap() {}
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
        assert!(Feed::new(vec![file(&dir, "x", b"#x 2010-03-08 [01:00:00] <a> hi")], None, None).is_ok());
    }
}
