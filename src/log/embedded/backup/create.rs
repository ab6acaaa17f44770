//! Taking a backup beside the process that writes: nothing is locked, nothing waits.

use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dramatis_events::{Epoch, Position, UnixMillis};

use super::manifest::{SEGMENTS, STAGED, is_name, is_there, lacks_its_manifest};
use super::{BackupError, Manifest, Part, Progress, at, make_dir, sync_dir};
use crate::dirs;
use crate::log::embedded::bytes::{to_u64, to_usize};
use crate::log::embedded::chain::Chain;
use crate::log::embedded::format::{index_name, parse_segment_name, segment_name};
use crate::log::embedded::recovery::{MISSING_AFTER, follows_on, lost_after};
use crate::log::embedded::scan::{LOG_START, Read, damaged, is_begun, read_segment};
use crate::log::embedded::sidecar::{Facts, Sidecar};
use crate::log::embedded::storage::{Directory, Storage, StoredFile};
use crate::log::embedded::window::Window;
use crate::log::embedded::{OpenError, epoch, tier};

/// Bytes copied at a time.
const CHUNK_BYTES: u64 = 1024 * 1024;
/// For how long another backup that is being begun is waited for before that is told, and how often it is
/// looked for meanwhile.
const WAITS_QUIETLY: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// What a backup that is not whole may hold.
const LEFT_BEHIND: [&str; 7] = [PART, TAIL, "chain", "chain.tmp", "b3sums", "b3sums.tmp", STAGED];
/// A segment on its way into the store.
const PART: &str = "segment.part";
/// What the open segment held.
const TAIL: &str = "tail.segment";

/// A log's directories, read beside the process that owns them.
pub struct Source {
    storage: Arc<dyn Storage>,
    dir: PathBuf,
    cold: Option<PathBuf>,
}

impl Source {
    /// The log in these directories.
    pub fn new(hot: &Path, cold: Option<&Path>) -> Self {
        Self {
            storage: Arc::new(Directory::new(hot, cold)),
            dir: hot.to_owned(),
            cold: cold.map(Path::to_owned),
        }
    }

    fn open(&self, name: &str) -> Result<Arc<dyn StoredFile>, BackupError> {
        self.storage.open(name).map_err(at(&self.dir.join(name)))
    }

    /// Why a file does not give what it should hold.
    fn unread(&self, name: &str, file: &dyn StoredFile, error: std::io::Error) -> BackupError {
        match (error.kind(), file.size()) {
            (ErrorKind::UnexpectedEof, Ok(offset)) => {
                let (file, reason) = (name.to_owned(), "the file ends before what it held".to_owned());
                OpenError::Damaged { file, offset, reason }.into()
            }
            _ => at(&self.dir.join(name))(error),
        }
    }

    fn epoch(&self) -> Result<Epoch, BackupError> {
        let no_log = || BackupError::NoLog { dir: self.dir.clone() };
        let own = Directory::new(&self.dir, None);
        let names = match own.list() {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Err(no_log());
            }
            names => names.map_err(at(&self.dir))?,
        };
        let read = epoch::read(&own, &names).map_err(at(&self.dir.join(epoch::FILE)))?;
        let damaged = |reason| OpenError::Damaged { file: epoch::FILE.to_owned(), offset: 0, reason }.into();
        match read {
            Some(read) => read.map_err(damaged),
            None if names.iter().any(|name| parse_segment_name(name).is_some()) => {
                Err(damaged("it is missing, although there are segments".to_owned()))
            }
            None => Err(no_log()),
        }
    }

    /// Refuses a store in the log's own directories, where no file may be but the log's.
    fn is_apart_from(&self, store: &Path) -> Result<(), BackupError> {
        let real = resolved(store).map_err(at(store))?;
        for dir in [Some(&self.dir), self.cold.as_ref()].into_iter().flatten() {
            if real.starts_with(resolved(dir).map_err(at(dir))?) {
                return Err(BackupError::InLog { store: store.to_owned(), log: dir.clone() });
            }
        }
        Ok(())
    }

    fn firsts(&self) -> Result<Vec<u64>, BackupError> {
        let names = self.storage.list().map_err(at(&self.dir))?;
        let mut firsts: Vec<u64> = names.iter().filter_map(|name| parse_segment_name(name)).collect();
        firsts.sort_unstable();
        Ok(firsts)
    }

    /// Bytes of these segments.
    fn bytes(&self, firsts: &[u64]) -> Result<u64, BackupError> {
        let size = |first: &u64| {
            let name = segment_name(*first);
            self.open(&name)?.size().map_err(at(&self.dir.join(&name)))
        };
        firsts.iter().map(size).sum()
    }

    /// What a segment that ends before position `next` holds: by its index, or read whole.
    fn closed_facts(&self, first: u64, next: u64, log: u64) -> Result<Facts, BackupError> {
        if let Ok(index) = self.storage.open(&index_name(first))
            && let Ok(Some(sidecar)) = Sidecar::read(&*index)
            && sidecar.facts.holds(&(first..next))
        {
            return Ok(sidecar.facts);
        }
        let facts = read_segment(&mut self.window(first)?, &segment_name(first), log)?.facts;
        if facts.holds(&(first..next)) {
            return Ok(facts);
        }
        Err(OpenError::Damaged {
            file: segment_name(first),
            offset: facts.end,
            reason: "the next segment does not begin where this one ends".to_owned(),
        }
        .into())
    }

    fn window(&self, first: u64) -> Result<Window, BackupError> {
        Ok(Window::new(self.open(&segment_name(first))?))
    }

    /// What the open segment holds: the end may be unfinished, but nothing that was acknowledged is
    /// left out. `None` if it is only being begun.
    fn open_facts(&self, first: u64, log: u64) -> Result<Option<Facts>, BackupError> {
        let name = segment_name(first);
        let failed = |error| at(&self.dir.join(&name))(error);
        let mut window = self.window(first)?;
        let mut unread_at = None;
        loop {
            window.forget();
            if is_begun(&mut window).map_err(failed)? {
                return Ok(None);
            }
            let Read { facts, stop, .. } = read_segment(&mut window, &name, log)?;
            let Some(reason) = stop else { return Ok(Some(facts)) };
            if !window.proves(facts.end, log, facts.next_batch).map_err(failed)? {
                return Ok(Some(facts));
            }
            // A server may have finished it after the first look; now it is proven to be finished.
            if unread_at.replace(facts.end) == Some(facts.end) {
                let reason = reason.to_owned();
                return Err(OpenError::Damaged { file: name, offset: facts.end, reason }.into());
            }
        }
    }
}

/// A path without links, as far as it is there.
fn resolved(path: &Path) -> std::io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    for there in path.ancestors() {
        if let (Ok(real), Ok(rest)) = (there.canonicalize(), path.strip_prefix(there)) {
            return Ok(if rest.as_os_str().is_empty() { real } else { real.join(rest) });
        }
    }
    Ok(path)
}

/// The backup that is to be made.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Its name.
    pub name: String,
    /// When it is begun.
    pub created_at: UnixMillis,
    /// What is noted of the read models.
    pub read_models: serde_json::Value,
}

/// Makes a backup of all that is recorded by now. Segments that the store has are not copied again. `waits`
/// is told if another process keeps the store to itself for longer than a moment.
pub fn create(
    source: &Source,
    store: &Path,
    wanted: Wanted,
    waits: &mut dyn FnMut(),
    progress: Progress<'_>,
) -> Result<Manifest, BackupError> {
    let name = &wanted.name;
    if !is_name(name) {
        return Err(BackupError::Name(name.clone()));
    }
    let epoch = source.epoch()?;
    tier::check(&source.dir, source.cold.as_deref())?;
    source.is_apart_from(store)?;
    let own = store.join(name);
    let _held = hold(store, name, waits)?.ok_or_else(|| BackupError::Exists { name: name.clone() })?;
    // If that fails too, it is what was stopped.
    create_in(source, store, epoch, wanted, progress).inspect_err(|_| clear(&own))
}

/// Makes a backup's directory and holds it; `None` if another process does, or it is made already. What others left that were
/// stopped is removed on the way; a directory that holds anything else is somebody's own.
fn hold(store: &Path, name: &str, waits: &mut dyn FnMut()) -> Result<Option<File>, BackupError> {
    make_dir(store)?;
    let gate = File::open(store).map_err(at(store))?;
    // Until the directory is held it would be taken for such a one.
    lock(&gate, waits);
    for entry in std::fs::read_dir(store).map_err(at(store))? {
        let name = entry.map_err(at(store))?.file_name().to_string_lossy().into_owned();
        if is_name(&name) && !is_there(store, &name) {
            remove_stopped(&store.join(name));
        }
    }
    let own = store.join(name);
    make_dir(&own)?;
    let held = File::open(&own).map_err(at(&own))?;
    if matches!(held.try_lock(), Err(TryLockError::WouldBlock)) || is_there(store, name) {
        return Ok(None);
    }
    match names(&own).map_err(at(&own))?.into_iter().find(|name| !is_ours(name)) {
        Some(found) => Err(BackupError::Occupied { dir: own, found }),
        None => Ok(Some(held)),
    }
}

/// Waits for a lock. Not every file system has some.
fn lock(gate: &File, waits: &mut dyn FnMut()) {
    let began = Instant::now();
    while matches!(gate.try_lock(), Err(TryLockError::WouldBlock)) {
        if began.elapsed() >= WAITS_QUIETLY {
            waits();
            let _ = gate.lock();
            return;
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn names(dir: &Path) -> std::io::Result<Vec<OsString>> {
    std::fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name())).collect()
}

fn is_ours(name: &OsString) -> bool {
    LEFT_BEHIND.iter().any(|known| name.as_os_str() == *known)
}

/// Removes what a backup that is not whole may hold, and its directory if nothing else is in it. What
/// cannot be removed is in nobody's way.
fn clear(dir: &Path) {
    for name in LEFT_BEHIND {
        let _ = std::fs::remove_file(dir.join(name));
    }
    let _ = std::fs::remove_dir(dir);
}

/// Removes what is left of a backup, unless it is being made or holds anything else.
fn remove_stopped(dir: &Path) {
    // Looked at once it is held: until then it may be finished.
    let Ok(held) = File::open(dir) else { return };
    let Some(names) = held.try_lock().ok().and_then(|()| names(dir).ok()) else { return };
    // What was a whole backup is told of, and stays.
    if lacks_its_manifest(dir) {
        return;
    }
    // One that holds nothing tells by its name alone whose it was.
    let is_to_go = if names.is_empty() { is_dated(dir) } else { names.iter().all(is_ours) };
    if is_to_go {
        clear(dir);
    }
}

/// Whether it is named as backups are that nobody gave a name, `20240131T120000Z`.
fn is_dated(dir: &Path) -> bool {
    let shape = |byte: u8| if byte.is_ascii_digit() { '0' } else { char::from(byte) };
    dir.file_name().is_some_and(|name| {
        name.as_encoded_bytes().iter().map(|byte| shape(*byte)).eq("00000000T000000Z".chars())
    })
}

fn create_in(
    source: &Source,
    store: &Path,
    epoch: Epoch,
    wanted: Wanted,
    progress: Progress<'_>,
) -> Result<Manifest, BackupError> {
    let Wanted { name, created_at, read_models } = wanted;
    let segments = store.join(SEGMENTS);
    make_dir(&segments)?;
    let chain =
        Chain::read(&*source.storage).map_err(at(&source.dir))?.map_err(|broken| OpenError::Damaged {
            file: "chain".to_owned(),
            offset: broken.offset,
            reason: broken.reason.to_owned(),
        })?;
    let firsts = source.firsts()?;
    is_all_there(&chain, &firsts)?;
    let mut copy = Copy { source, store, name: &name, epoch, chain: &chain, parts: Vec::new(), new_bytes: 0 };
    let total = source.bytes(&firsts)?;
    for pair in firsts.windows(2) {
        if let [first, next] = *pair {
            copy.closed(first, next)?;
        }
        progress(copy.parts.iter().map(|part| part.bytes).sum(), total);
    }
    if let Some(first) = firsts.last() {
        copy.tail(*first)?;
        progress(total, total);
    }
    let Copy { parts, new_bytes, .. } = copy;
    sync_dir(&segments)?;
    let next = parts.last().map_or(0, |part| part.first + part.events);
    let manifest = Manifest {
        format: Manifest::FORMAT,
        name,
        created_at,
        epoch,
        events: next,
        last_position: next.checked_sub(1).map(Position::from_engine),
        parts,
        new_bytes,
        read_models,
    };
    manifest.write(store, &chain)?;
    sync_dir(store)?;
    Ok(manifest)
}

/// Nothing is missing before the first segment or after the last one; what is between them shows as
/// they are read.
fn is_all_there(chain: &Chain, firsts: &[u64]) -> Result<(), OpenError> {
    if let Some(named) = lost_after(chain, firsts.last().copied()) {
        return Err(damaged(&segment_name(named), 0, MISSING_AFTER));
    }
    match firsts.first() {
        Some(first) => follows_on(&segment_name(*first), *first, &LOG_START),
        None => Ok(()),
    }
}

/// A backup being made.
struct Copy<'a> {
    source: &'a Source,
    store: &'a Path,
    name: &'a str,
    epoch: Epoch,
    chain: &'a Chain,
    parts: Vec<Part>,
    new_bytes: u64,
}

impl Copy<'_> {
    /// A closed segment: copied unless the store has it.
    fn closed(&mut self, first: u64, next: u64) -> Result<(), BackupError> {
        let facts = self.source.closed_facts(first, next, self.epoch.log())?;
        let name = segment_name(first);
        let known = self.chain.sum(first).filter(|sum| sum.bytes == facts.end);
        if let Some(sum) = known {
            let part = part(shared(first, &sum.hash), &facts, &sum.hash);
            if std::fs::metadata(self.store.join(&part.file)).is_ok_and(|file| file.len() == facts.end) {
                self.parts.push(part);
                return Ok(());
            }
        }
        // Others may put the same segment into the store just now.
        let staged = self.store.join(self.name).join(PART);
        let hash = copy(self.source, &name, facts.end, &staged)?;
        if known.is_some_and(|sum| sum.hash != hash) {
            let reason = "its hash is not the one in the chain".to_owned();
            return Err(OpenError::Damaged { file: name, offset: 0, reason }.into());
        }
        let part = part(shared(first, &hash), &facts, &hash);
        let there = self.store.join(&part.file);
        std::fs::rename(&staged, &there).map_err(at(&there))?;
        self.new_bytes += facts.end;
        self.parts.push(part);
        Ok(())
    }

    /// The open segment, up to its last whole batch.
    fn tail(&mut self, first: u64) -> Result<(), BackupError> {
        let Some(facts) = self.source.open_facts(first, self.epoch.log())? else { return Ok(()) };
        let file = Path::new(self.name).join(TAIL);
        let hash = copy(self.source, &segment_name(first), facts.end, &self.store.join(&file))?;
        self.new_bytes += facts.end;
        self.parts.push(part(file, &facts, &hash));
        Ok(())
    }
}

fn shared(first: u64, hash: &blake3::Hash) -> PathBuf {
    Path::new(SEGMENTS).join(format!("{first:020}-{}.segment", hash.to_hex()))
}

fn part(file: PathBuf, facts: &Facts, hash: &blake3::Hash) -> Part {
    Part {
        file,
        first: facts.first,
        events: u64::from(facts.count),
        bytes: facts.end,
        blake3: hash.to_hex().to_string(),
        first_recorded_at: UnixMillis::new(facts.first_recorded_at),
        last_recorded_at: UnixMillis::new(facts.last_recorded_at),
    }
}

/// Copies the first `bytes` of a log's file and syncs them; gives their hash.
fn copy(source: &Source, name: &str, bytes: u64, to: &Path) -> Result<blake3::Hash, BackupError> {
    let from = source.open(name)?;
    let (mut file, mut hasher) = (dirs::create_file(to).map_err(at(to))?, blake3::Hasher::new());
    let (mut chunk, mut done) = (Vec::new(), 0);
    while done < bytes {
        chunk.resize(to_usize(CHUNK_BYTES.min(bytes - done)), 0);
        from.read_exact_at(&mut chunk, done).map_err(|error| source.unread(name, &*from, error))?;
        hasher.update(&chunk);
        file.write_all(&chunk).map_err(at(to))?;
        done += to_u64(chunk.len());
    }
    file.sync_all().map_err(at(to))?;
    Ok(hasher.finalize())
}
