//! A power failure after a kill: what was written and not synced is dropped, all of it or by
//! sectors in any order. `drop_unsynced.c`, preloaded into the server, notes how to; this
//! builds it, reads its journals and takes the changes back.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::imports::Chance;
use super::rounds::Environment;

const SECTOR: usize = 512;
const RECORD_BYTES: usize = 72;
const MAGIC: u32 = 0x444e_5553;

/// The layer over one directory, over several processes until the next failure.
pub struct Layer {
    library: PathBuf,
    dir: PathBuf,
    /// Journals of the processes since the last failure, and files without names.
    home: PathBuf,
    runs: u32,
}

/// How much of what was not synced is lost.
#[derive(Debug, Clone, Copy)]
pub enum Failure {
    /// All of it.
    All,
    /// Of each sector the newest content stays with this chance in a hundred; else it is of any
    /// age since the last sync.
    Sectors(u64),
    /// What came after some moment, and a part of the write at that moment.
    Cut,
}

/// How much longer a sync takes than it would, microseconds: most kills then find one under way.
const SYNC_US: &str = "8000";
/// It is never synced and says nothing about the log.
const LOCK: &str = "LOCK";

/// What a failure took back of the log's files, their lock apart.
#[derive(Debug, Default, Clone, Copy)]
pub struct Dropped {
    /// Writes that had not been synced.
    pub writes: usize,
    /// Sectors whose content is another one now.
    pub sectors: usize,
    /// Files whose length is another one now.
    pub lengths: usize,
    /// Names made, changed or removed that are now as before.
    pub names: usize,
}

impl Dropped {
    /// Together with another.
    pub fn add(&mut self, other: Self) {
        self.writes += other.writes;
        self.sectors += other.sectors;
        self.lengths += other.lengths;
        self.names += other.names;
    }
}

/// Compiles the layer into this directory; `None`, said loudly, without a C compiler.
pub fn build(into: &Path) -> Option<PathBuf> {
    preloadable("drop_unsynced", into)
}

/// Compiles a layer that is preloaded into a server.
pub fn preloadable(name: &str, into: &Path) -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support").join(name).with_extension("c");
    let library = into.join(name).with_extension("so");
    let compiled = Command::new("cc")
        .args(["-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .args(["-ldl", "-pthread"])
        .status();
    match compiled {
        Ok(status) => assert!(status.success(), "{} does not compile", source.display()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            super::skipped(&format!("{name} is not preloaded, for there is no C compiler `cc`"));
            return None;
        }
        Err(error) => panic!("cc: {error}"),
    }
    Some(library)
}

impl Layer {
    /// Over this directory, which need not be there yet.
    pub fn new(library: &Path, dir: &Path, home: &Path) -> Self {
        fs::create_dir(home).unwrap();
        let layer = Self { library: library.to_owned(), dir: dir.to_owned(), home: home.to_owned(), runs: 0 };
        fs::create_dir(layer.saved()).unwrap();
        layer
    }

    fn saved(&self) -> PathBuf {
        self.home.join("saved")
    }

    fn journal(&self, run: u32) -> PathBuf {
        self.home.join(format!("journal-{run}"))
    }

    /// The environment of one more process.
    pub fn environment(&mut self) -> Environment {
        self.runs += 1;
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        vec![
            ("LD_PRELOAD", text(&self.library)),
            ("DRAMATIS_DROP_DIR", text(&self.dir)),
            ("DRAMATIS_DROP_JOURNAL", text(&self.journal(self.runs))),
            ("DRAMATIS_DROP_SAVED", text(&self.saved())),
            ("DRAMATIS_DROP_SYNC_US", SYNC_US.to_owned()),
        ]
    }

    /// The power fails: what is left is on the disk.
    pub fn fail(&mut self, failure: Failure, chance: &mut Chance) -> Dropped {
        let unsettled = self.unsettled();
        let mut dropped = Dropped::default();
        for (inode, writes) in &unsettled.writes {
            // A file that a kill kept from being made is nowhere.
            let found = find(&self.dir, *inode).or_else(|| find(&self.saved(), *inode));
            let Some(path) = found else { continue };
            let took = take_back(&path, writes, failure, chance);
            if path.file_name().is_some_and(|name| name != LOCK) {
                dropped.add(took);
            }
        }
        // Names reach a disk in their order.
        let kept = match failure {
            Failure::All => 0,
            _ => usize::try_from(chance.below(unsettled.names.len() as u64 + 1)).unwrap(),
        };
        for record in unsettled.names[kept..].iter().rev() {
            self.take_name_back(record);
            dropped.names += 1;
        }
        fs::remove_dir_all(&self.home).unwrap();
        fs::create_dir_all(self.saved()).unwrap();
        self.runs = 0;
        dropped
    }

    fn unsettled(&self) -> Unsettled {
        let mut unsettled = Unsettled::default();
        for run in 1..=self.runs {
            // A process that was killed before it began has none.
            let bytes = fs::read(self.journal(run)).unwrap_or_default();
            let mut rest = bytes.as_slice();
            while let Some(record) = Record::take(&mut rest, run) {
                unsettled.note(record);
            }
        }
        unsettled.writes.retain(|_, writes| !writes.is_empty());
        unsettled
    }

    fn take_name_back(&self, record: &Record) {
        let path = self.dir.join(&record.name);
        let saved = |inode: u64| self.saved().join(inode.to_string());
        match record.kind {
            CREATE => match fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => panic!("{}: {error}", path.display()),
                _ => {}
            },
            UNLINK if !path.exists() => fs::hard_link(saved(record.inode), path).unwrap(),
            RENAME => {
                let to = self.dir.join(&record.other);
                if fs::metadata(&to).is_ok_and(|status| status.ino() == record.inode) {
                    fs::rename(&to, path).unwrap();
                    if record.offset != 0 {
                        fs::hard_link(saved(record.offset), to).unwrap();
                    }
                }
            }
            _ => {}
        }
    }
}

fn find(dir: &Path, inode: u64) -> Option<PathBuf> {
    fs::read_dir(dir).ok()?.map(Result::unwrap).find_map(|entry| {
        let (path, status) = (entry.path(), entry.metadata().unwrap());
        if status.is_dir() { find(&path, inode) } else { (status.ino() == inode).then_some(path) }
    })
}

const WRITE: u32 = 1;
const SYNC: u32 = 2;
const CREATE: u32 = 3;
const RENAME: u32 = 4;
const UNLINK: u32 = 5;
const SYNC_NAMES: u32 = 6;

/// See `struct record` in the C file.
struct Record {
    /// Of all processes since the last failure.
    order: (u32, u64),
    kind: u32,
    inode: u64,
    offset: u64,
    length: u64,
    size: u64,
    settled: u64,
    name: String,
    other: String,
    bytes: Vec<u8>,
}

impl Record {
    /// Takes one off the front; `None` at the end, which may be half a record.
    fn take(rest: &mut &[u8], run: u32) -> Option<Self> {
        let (head, mut tail) = rest.split_at_checked(RECORD_BYTES)?;
        let short = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().unwrap());
        let long = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().unwrap());
        assert_eq!(short(0), MAGIC, "the journal is not as it is written");
        let mut next = |length: u64| {
            let (part, behind) = tail.split_at_checked(usize::try_from(length).unwrap())?;
            tail = behind;
            Some(part.to_vec())
        };
        let name = String::from_utf8(next(short(56).into())?).unwrap();
        let other = String::from_utf8(next(short(60).into())?).unwrap();
        let bytes = next(long(64))?;
        *rest = tail;
        let (inode, offset, length, size, settled) = (long(16), long(24), long(32), long(40), long(48));
        let (order, kind) = ((run, long(8)), short(4));
        Some(Self { order, kind, inode, offset, length, size, settled, name, other, bytes })
    }

    /// The sectors it touches, and each as it was.
    fn sectors(&self) -> impl Iterator<Item = (usize, Vec<u8>)> {
        let (offset, length) = (usize::try_from(self.offset).unwrap(), usize::try_from(self.length).unwrap());
        let first = offset / SECTOR;
        (first..(offset + length).div_ceil(SECTOR)).map(move |sector| {
            let at = (sector - first) * SECTOR;
            let mut content = self.bytes.get(at..).unwrap_or_default().to_vec();
            content.resize(SECTOR, 0);
            (sector, content)
        })
    }
}

/// What no sync has settled.
#[derive(Default)]
struct Unsettled {
    /// By inode.
    writes: BTreeMap<u64, Vec<Record>>,
    names: Vec<Record>,
}

impl Unsettled {
    fn note(&mut self, record: Record) {
        // A sync settles what earlier processes left in the cache, too.
        let settled = (record.order.0, record.settled);
        match record.kind {
            WRITE => self.writes.entry(record.inode).or_default().push(record),
            SYNC => {
                let writes = self.writes.entry(record.inode).or_default();
                writes.retain(|write| write.order > settled);
            }
            SYNC_NAMES => {
                self.names.retain(|name| parent(&name.name) != record.name || name.order > settled);
            }
            _ => self.names.push(record),
        }
    }
}

fn parent(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// Makes of a file what the failure leaves of it.
fn take_back(path: &Path, writes: &[Record], failure: Failure, chance: &mut Chance) -> Dropped {
    let mut dropped = Dropped { writes: writes.len(), ..Dropped::default() };
    let now = fs::read(path).unwrap();
    // Each sector's contents before writes of these numbers.
    let mut before: BTreeMap<usize, Vec<(usize, Vec<u8>)>> = BTreeMap::new();
    for (number, write) in writes.iter().enumerate() {
        for (sector, content) in write.sectors() {
            before.entry(sector).or_default().push((number, content));
        }
    }
    let below = |chance: &mut Chance, bound: usize| usize::try_from(chance.below(bound as u64)).unwrap();
    let cut = below(chance, writes.len() + 1);
    // Of the write at the cut, the sectors below this one are done.
    let torn = writes.get(cut).map_or(0, |write| {
        usize::try_from(write.offset).unwrap() / SECTOR + below(chance, write.sectors().count() + 1)
    });
    let sizes: Vec<usize> = writes.iter().map(|write| usize::try_from(write.size).unwrap()).collect();
    let size_at = |number: usize| sizes.get(number).copied().unwrap_or(now.len());
    let size = match failure {
        Failure::All => size_at(0),
        Failure::Sectors(_) => size_at(below(chance, sizes.len() + 1)),
        Failure::Cut => size_at(cut + below(chance, 2)),
    };
    let mut after = now.clone();
    after.resize(now.len().max(size).next_multiple_of(SECTOR), 0);
    for (sector, contents) in before {
        let age = match failure {
            Failure::All => Some(0),
            Failure::Sectors(newest) if chance.below(100) < newest => None,
            Failure::Sectors(_) => Some(below(chance, contents.len() + 1)),
            Failure::Cut => {
                let done = if sector < torn { cut + 1 } else { cut };
                contents.iter().position(|(number, _)| *number >= done)
            }
        };
        let Some((_, content)) = age.and_then(|age| contents.get(age)) else { continue };
        let at = sector * SECTOR..(sector + 1) * SECTOR;
        let Some(place) = after.get_mut(at) else { continue };
        dropped.sectors += usize::from(place != content.as_slice());
        place.copy_from_slice(content);
    }
    after.resize(size, 0);
    dropped.lengths += usize::from(size != now.len());
    fs::write(path, &after).unwrap();
    File::open(path).unwrap().sync_all().unwrap();
    dropped
}
