//! Logs made for these tests, and looking at what the commands leave of them.
#![allow(unreachable_pub, reason = "shared by the files of one test binary")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use dramatis::clock::{Clock, ManualClock, SystemClock};
use dramatis::log::embedded::offline::{self, Damage, Observer, Place, Verified};
use dramatis::log::embedded::{EmbeddedLog, OpenError, Options};
use dramatis::log::{Append, EventLog, Expected, Filter, ReadLimit};
use dramatis_events::{
    CommandId, CommandStamp, ContentHash, Envelope, EventId, EventName, MemberId, Recorded, Revision,
    StreamId, UnixMillis,
};

use crate::support::{PATIENCE, dramatis};

/// Between its fork and its program a child holds what this process holds, locks too: no lock is
/// given back in the meantime.
static FORKS: RwLock<()> = RwLock::new(());

/// Does something that starts a process.
pub fn spawning<T>(act: impl FnOnce() -> T) -> T {
    let _alone = FORKS.write().unwrap_or_else(PoisonError::into_inner);
    act()
}

/// Does something that gives a lock back.
pub fn unlocking<T>(act: impl FnOnce() -> T) -> T {
    let _no_forks = FORKS.read().unwrap_or_else(PoisonError::into_inner);
    act()
}

/// Small segments, and nothing read from memory.
pub fn options() -> Options {
    // What is closed has moved when the log has ended, on a slow disk too.
    let moving_patience = Duration::from_mins(5);
    Options { segment_bytes: 4 * 1024, live_bytes_max: 1, moving_patience, ..Options::default() }
}

pub fn envelope(stream: &StreamId, number: u64) -> Envelope {
    let id = format!("c{number}");
    let stamp = CommandStamp { id: CommandId::parse(&id).unwrap(), hash: ContentHash::of(&[id.as_bytes()]) };
    Envelope {
        id: EventId::at(stream, Revision::new(number)),
        name: EventName::parse(if number == 0 { "RoomOpened" } else { "MessagePosted" }).unwrap(),
        version: 1,
        occurred_at: None,
        author: MemberId::parse("alice").unwrap(),
        command: Some(stamp),
        correlation_id: None,
        causation_id: None,
        subject: None,
        data: format!("{{\"text\":\"the words of message {number}\"}}").into(),
    }
}

/// A data directory with a log of so many events, three a batch, in two rooms.
pub struct Data {
    pub dir: tempfile::TempDir,
    pub cold: Option<PathBuf>,
}

impl Data {
    pub fn new(events: u64) -> Self {
        let data = Self::empty();
        data.grow(events, &options());
        data
    }

    /// An empty directory.
    pub fn empty() -> Self {
        let data = Self { dir: tempfile::tempdir().unwrap(), cold: None };
        std::fs::create_dir(data.log_dir()).unwrap();
        data
    }

    /// The same with all closed segments but one in the cold tier.
    pub fn with_cold_tier(events: u64) -> (Self, tempfile::TempDir) {
        let cold = tempfile::tempdir().unwrap();
        let data = Self { dir: tempfile::tempdir().unwrap(), cold: Some(cold.path().to_owned()) };
        let config = format!("[log]\ncold_dir = '{}'\n", cold.path().display());
        std::fs::write(data.dir.path().join("dramatis.toml"), config).unwrap();
        data.grow(events, &Options { hot_segments_max: 1, cold_dir: data.cold.clone(), ..options() });
        (data, cold)
    }

    pub fn log_dir(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    pub fn grow(&self, events: u64, options: &Options) {
        let clock = ManualClock::default();
        clock.set(UnixMillis::new(1_100_000_000_000));
        let log = self.opened(options, &clock);
        block_on(async {
            for room in 0..events.div_ceil(3) {
                let stream =
                    StreamId::parse(if room % 2 == 0 { "room-main.den" } else { "room-main.attic" }).unwrap();
                let head = log.stream_head(&stream).await.unwrap();
                let next = head.map_or(0, |head| head.get() + 1);
                let envelopes = (next..next + 3).map(|number| envelope(&stream, number)).collect();
                clock.set(UnixMillis::new(1_100_000_000_000 + i64::try_from(room).unwrap() * 1_000));
                log.append(Append { stream, expected: Expected::after(head), envelopes }).await.unwrap();
            }
        });
        unlocking(|| drop(log));
    }

    pub fn open(&self) -> EmbeddedLog {
        self.opened(&self.options(), &SystemClock)
    }

    /// A process that another test has just started holds for a moment what this one held then: what a
    /// process started with is closed after who started it goes on.
    fn opened(&self, options: &Options, clock: &(impl Clock + Clone + 'static)) -> EmbeddedLog {
        let started = Instant::now();
        loop {
            match EmbeddedLog::open(&self.log_dir(), options.clone(), Arc::new(clock.clone())) {
                Err(OpenError::InUse { .. }) if started.elapsed() < PATIENCE => std::thread::yield_now(),
                opened => return opened.unwrap(),
            }
        }
    }

    pub fn options(&self) -> Options {
        Options { cold_dir: self.cold.clone(), ..options() }
    }

    /// The files that a repair moved aside in the log's directory.
    pub fn cut_folder(&self) -> Vec<PathBuf> {
        let entries = |dir: &Path| -> Vec<PathBuf> {
            std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect()
        };
        let all = entries(&self.log_dir());
        let folder = all.iter().find(|path| name(path).starts_with("cut-")).unwrap();
        entries(folder)
    }

    pub fn events(&self) -> Vec<Arc<Recorded>> {
        let limit = ReadLimit { events: 100_000, bytes: usize::MAX };
        let log = self.open();
        let events = block_on(log.read_all(None, Filter::default(), limit)).unwrap().events;
        unlocking(|| drop(log));
        events
    }

    pub fn place(&self) -> Place {
        Place { dir: self.log_dir(), cold: self.cold.clone() }
    }

    /// Files with this ending, hot and cold, in order.
    pub fn files(&self, ending: &str) -> Vec<PathBuf> {
        let dirs = [Some(self.log_dir()), self.cold.clone()].into_iter().flatten();
        let mut paths: Vec<_> = dirs
            .flat_map(|dir| std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == ending))
            .collect();
        paths.sort_by_key(|path| name(path));
        paths
    }

    /// Every file of the log with its bytes, but the lock, which names who had it last.
    pub fn contents(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut all: Vec<_> = std::fs::read_dir(self.log_dir())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| name(path) != "LOCK")
            .map(|path| {
                (path.clone(), if path.is_dir() { Vec::new() } else { std::fs::read(&path).unwrap() })
            })
            .collect();
        all.sort();
        all
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        let mut command = dramatis();
        command.arg("log").args(arguments).arg("--data").arg(self.dir.path());
        if self.cold.is_some() {
            command.arg("--config").arg(self.dir.path().join("dramatis.toml"));
        }
        output(&mut command)
    }

    /// Runs the command, which must end with this code: what it prints, without what is never twice
    /// the same.
    pub fn told(&self, arguments: &[&str], code: i32) -> String {
        let output = self.run(arguments);
        let (told, error) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{told}\n{error}");
        let told = if error.is_empty() { told } else { format!("{told}--\n{error}") };
        told.lines().map(|line| self.plain(line) + "\n").collect()
    }

    /// The log's epoch as its file tells it, before the checksum.
    pub fn epoch_text(&self) -> String {
        let text = std::fs::read_to_string(self.log_dir().join("epoch")).unwrap();
        text.split_whitespace().next().unwrap().to_owned()
    }

    pub fn plain(&self, line: &str) -> String {
        let line = line.replace(&self.epoch_text(), "<epoch>");
        let line = match line.split_once("lies in cut-") {
            Some((before, after)) => format!("{before}lies in <folder>{}", after.split_once(';').unwrap().1),
            None => line,
        };
        let line = line.replace(self.dir.path().to_str().unwrap(), "<data>");
        let (before, last) = line.rsplit_once(' ').unwrap_or(("", &line));
        if before.starts_with("link") && last.len() == 64 {
            return format!("{before} <link>");
        }
        if let Some((before, _)) = before.rsplit_once(' ').filter(|(before, _)| before.starts_with("lost:")) {
            return format!("{before} <n> bytes");
        }
        // How far the open segment's file reaches is the writer's affair.
        match before.rsplit_once(' ') {
            Some((before, _)) if before.starts_with("segments") => format!("{before} <n> {last}"),
            _ => line,
        }
    }
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

pub fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

pub fn flip(path: &Path, at: usize) {
    change(path, |bytes| bytes[at] ^= 0x40);
}

pub fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

/// Runs a command to its end.
pub fn output(command: &mut Command) -> Output {
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    spawning(|| command.spawn()).unwrap().wait_with_output().unwrap()
}

/// Keeps what is found.
#[derive(Debug, Default)]
pub struct Found {
    pub damage: Vec<Damage>,
    pub notes: Vec<String>,
    pub bytes: (u64, u64),
}

impl Observer for Found {
    fn begin(&mut self, bytes: u64) {
        self.bytes.0 = bytes;
    }
    fn advance(&mut self, bytes: u64) {
        self.bytes.1 += bytes;
    }
    fn damage(&mut self, damage: &Damage) {
        self.damage.push(damage.clone());
    }
    fn note(&mut self, note: &str) {
        self.notes.push(note.to_owned());
    }
}

pub fn verify(data: &Data) -> (Verified, Found) {
    let mut found = Found::default();
    let verified = offline::verify(&data.place(), &mut found).unwrap();
    assert_eq!(verified.damaged, u64::try_from(found.damage.len()).unwrap());
    (verified, found)
}
