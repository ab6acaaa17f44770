//! A simulated disk behind the storage seam: it keeps what is durable apart from what is only
//! written, fails when told to, and loses power in every way a real one does.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::MutexGuard;

use super::bugs::{self, Bug};
use super::*;
use crate::log::embedded::storage::{Space, StoredFile};

/// What a disk writes wholly or not at all.
const SECTOR_BYTES: usize = 512;

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Write,
    Sync,
}

/// What goes wrong, with the next operation of its kind after a number of operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Any operation fails with EIO: a write is made in part, a sync forgets what was written.
    Error,
    /// Power is lost: this operation and all later ones fail, until [`Disk::crash`].
    Cut,
    /// A write fails with EIO, nothing is written.
    Write,
    /// A write fails with EIO, part of it is written.
    Short,
    /// A write fails with ENOSPC, nothing or part of it is written.
    Full,
    /// A sync fails with EIO: some of what was written is lost, yet it is shown and counts as clean.
    Sync,
}

impl Fault {
    fn hits(self, op: Op) -> bool {
        match self {
            Self::Error | Self::Cut => true,
            Self::Write | Self::Short | Self::Full => op == Op::Write,
            Self::Sync => op == Op::Sync,
        }
    }

    fn error(self) -> io::Error {
        match self {
            Self::Full => io::Error::new(io::ErrorKind::StorageFull, "simulated ENOSPC"),
            _ => io::Error::other("simulated EIO"),
        }
    }
}

/// A sequence of numbers from a seed.
#[derive(Debug, Clone)]
pub(super) struct Chance(pub(super) u64);

impl Chance {
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % (bound.max(1) as u64)).unwrap()
    }
}

#[derive(Debug, Default, Clone)]
struct Inode {
    durable: Vec<u8>,
    visible: Vec<u8>,
    /// Ranges written since the last sync, with their bytes, in order.
    unsynced: Vec<(usize, Vec<u8>)>,
}

/// Stops the next operation of a kind on a file until it is let go.
struct Gate {
    op: Op,
    entered: mpsc::Sender<()>,
    go: mpsc::Receiver<()>,
}

struct Contents {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    fault: Option<(usize, Fault)>,
    dark: bool,
    gate: Option<Gate>,
    space: Option<Space>,
    chance: Chance,
    /// Files that cannot be put in place once: endings of their names, and how many times they can before.
    stuck: Option<(&'static [&'static str], usize)>,
    /// What went wrong so far.
    fired: Vec<Fault>,
    /// Operations so far.
    ops: usize,
    bug: Option<Bug>,
}

impl Contents {
    fn of(inodes: Vec<Inode>, names: BTreeMap<String, usize>, seed: u64, bug: Option<Bug>) -> Self {
        Self {
            inodes,
            durable_names: names.clone(),
            names,
            fault: None,
            dark: false,
            gate: None,
            space: None,
            chance: Chance(seed),
            stuck: None,
            fired: Vec::new(),
            ops: 0,
            bug,
        }
    }
}

#[derive(Clone)]
pub(super) struct Disk(Arc<Mutex<Contents>>);

impl Default for Disk {
    fn default() -> Self {
        Self::seeded(0, None)
    }
}

fn put(bytes: &mut Vec<u8>, at: usize, written: &[u8]) {
    if bytes.len() < at + written.len() {
        bytes.resize(at + written.len(), 0);
    }
    bytes[at..at + written.len()].copy_from_slice(written);
}

fn sectors(at: usize, len: usize) -> impl Iterator<Item = Range<usize>> {
    let first = at / SECTOR_BYTES;
    let last = (at + len).div_ceil(SECTOR_BYTES);
    (first..last).map(move |sector| {
        let from = (sector * SECTOR_BYTES).max(at) - at;
        from..((sector + 1) * SECTOR_BYTES).min(at + len) - at
    })
}

impl Inode {
    fn write(&mut self, at: usize, bytes: &[u8]) {
        put(&mut self.visible, at, bytes);
        self.unsynced.push((at, bytes.to_vec()));
    }

    fn sync(&mut self) {
        for (at, bytes) in std::mem::take(&mut self.unsynced) {
            put(&mut self.durable, at, &bytes);
        }
    }

    /// Some of what was not synced reaches the disk: nothing, all up to a point, or any sectors.
    fn lose(&mut self, chance: &mut Chance) {
        let unsynced = std::mem::take(&mut self.unsynced);
        match chance.below(4) {
            0 => {}
            1 => {
                let mut left = chance.below(unsynced.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() + 1);
                for (at, bytes) in &unsynced {
                    put(&mut self.durable, *at, &bytes[..left.min(bytes.len())]);
                    left = left.saturating_sub(bytes.len());
                }
            }
            _ => {
                let mut parts: Vec<_> = unsynced
                    .iter()
                    .flat_map(|(at, bytes)| sectors(*at, bytes.len()).map(move |part| (*at, bytes, part)))
                    .collect();
                let keep = chance.below(parts.len() + 1);
                for _ in 0..keep {
                    let (at, bytes, part) = parts.swap_remove(chance.below(parts.len()));
                    put(&mut self.durable, at + part.start, &bytes[part]);
                }
            }
        }
    }
}

impl Disk {
    /// An empty disk; the seed says how much of a failed operation is done.
    pub(super) fn seeded(seed: u64, bug: Option<Bug>) -> Self {
        Self(Arc::new(Mutex::new(Contents::of(Vec::new(), BTreeMap::new(), seed, bug))))
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        let contents = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Whatever thread works on this disk has its bug.
        bugs::seed(contents.bug);
        contents
    }

    /// Lets something go wrong after so many operations.
    pub(super) fn plan(&self, after: usize, fault: Fault) {
        self.contents().fault = Some((after, fault));
    }

    /// No fault is planned any more; the power is on.
    pub(super) fn heal(&self) {
        let mut contents = self.contents();
        (contents.fault, contents.dark) = (None, false);
    }

    /// Whether every operation fails by now.
    pub(super) fn is_dark(&self) -> bool {
        self.contents().dark
    }

    /// Every later operation fails, until [`Disk::heal`] or [`Disk::crash`].
    pub(super) fn cut(&self) {
        self.contents().dark = true;
    }

    /// The `nth` time that a file with one of these endings is made or put in place, that fails.
    pub(super) fn fail_only(&self, endings: &'static [&'static str], nth: usize) {
        self.contents().stuck = Some((endings, nth));
    }

    fn is_stuck(&self, name: &str) -> bool {
        let mut contents = self.contents();
        let Some((endings, left)) = &mut contents.stuck else { return false };
        if !endings.iter().any(|ending| name.ends_with(ending)) {
            return false;
        }
        let stuck = *left == 0;
        *left = left.saturating_sub(1);
        if stuck {
            contents.stuck = None;
            contents.fired.push(Fault::Write);
        }
        stuck
    }

    /// What went wrong since this was asked last.
    pub(super) fn fired(&self) -> Vec<Fault> {
        std::mem::take(&mut self.contents().fired)
    }

    /// Operations so far.
    pub(super) fn ops(&self) -> usize {
        self.contents().ops
    }

    /// Power is lost and comes back.
    pub(super) fn crash(&self, seed: u64) {
        let (mut contents, mut chance) = (self.contents(), Chance(seed));
        for inode in &mut contents.inodes {
            inode.lose(&mut chance);
            inode.visible = inode.durable.clone();
        }
        let mut names = contents.durable_names.clone();
        for (name, inode) in &contents.names {
            if chance.below(2) == 0 {
                names.insert(name.clone(), *inode);
            }
        }
        (contents.names, contents.durable_names) = (names.clone(), names);
        (contents.fault, contents.dark) = (None, false);
    }

    /// What would be left if power were lost now and nothing unsynced had reached the disk.
    pub(super) fn durable(&self) -> Self {
        let contents = self.contents();
        let mut inodes = vec![Inode::default(); contents.inodes.len()];
        for at in contents.durable_names.values() {
            let durable = contents.inodes[*at].durable.clone();
            inodes[*at] = Inode { visible: durable.clone(), durable, unsynced: Vec::new() };
        }
        let copy = Contents::of(inodes, contents.durable_names.clone(), contents.chance.0, contents.bug);
        Self(Arc::new(Mutex::new(copy)))
    }

    /// Says from now on that so much of it is free.
    pub(super) fn has_space(&self, space: Space) {
        self.contents().space = Some(space);
    }

    /// Holds the next write or sync: the first end hears that it is entered, the second lets it go.
    pub(super) fn hold(&self, op: Op) -> (mpsc::Receiver<()>, mpsc::Sender<()>) {
        let ((entered, hears), (release, go)) = (mpsc::channel(), mpsc::channel());
        self.contents().gate = Some(Gate { op, entered, go });
        (hears, release)
    }

    /// Holds nothing any more.
    pub(super) fn hold_nothing(&self) {
        self.contents().gate = None;
    }

    fn wait(&self, op: Op) {
        let gate = self.contents().gate.take_if(|gate| gate.op == op);
        if let Some(gate) = gate {
            gate.entered.send(()).unwrap();
            gate.go.recv().unwrap();
        }
    }

    /// A file's bytes as they are shown.
    pub(super) fn bytes(&self, name: &str) -> Vec<u8> {
        let contents = self.contents();
        contents.inodes[contents.names[name]].visible.clone()
    }

    /// Flips bits of a byte, as it lies on the disk and as it is shown.
    pub(super) fn flip(&self, name: &str, at: usize, bits: u8) {
        let mut contents = self.contents();
        let inode = contents.names[name];
        let Inode { durable, visible, .. } = &mut contents.inodes[inode];
        for bytes in [durable, visible] {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= bits;
            }
        }
    }

    /// Changes a file's bytes as they lie on the disk.
    pub(super) fn change(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut contents = self.contents();
        let inode = contents.names[name];
        change(&mut contents.inodes[inode].durable);
        contents.inodes[inode].visible = contents.inodes[inode].durable.clone();
    }

    /// Counts an operation; tells what goes wrong with it.
    fn fault(&self, op: Op) -> Option<Fault> {
        let mut contents = self.contents();
        contents.ops += 1;
        if contents.dark {
            return Some(Fault::Cut);
        }
        match &mut contents.fault {
            Some((0, fault)) if !fault.hits(op) => None,
            Some((0, fault)) => {
                let fault = *fault;
                contents.fault = None;
                contents.fired.push(fault);
                contents.dark = fault == Fault::Cut;
                Some(fault)
            }
            Some((left, _)) => {
                *left -= 1;
                None
            }
            None => None,
        }
    }

    fn whole(&self, op: Op) -> io::Result<()> {
        self.fault(op).map_or(Ok(()), |fault| Err(fault.error()))
    }

    fn file(&self, inode: usize) -> Arc<dyn StoredFile> {
        Arc::new(OnDisk { disk: self.clone(), inode })
    }
}

impl Storage for Disk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.contents().names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StoredFile>> {
        let inode = self.contents().names.get(name).copied();
        inode.map(|inode| self.file(inode)).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn StoredFile>> {
        if self.is_stuck(name) {
            return Err(Fault::Write.error());
        }
        self.whole(Op::Write)?;
        let mut contents = self.contents();
        contents.inodes.push(Inode::default());
        let inode = contents.inodes.len() - 1;
        contents.names.insert(name.to_owned(), inode);
        drop(contents);
        Ok(self.file(inode))
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        if self.is_stuck(name) {
            return Err(Fault::Write.error());
        }
        self.whole(Op::Write)?;
        let mut contents = self.contents();
        contents.inodes.push(Inode { durable: bytes.into(), visible: bytes.into(), unsynced: Vec::new() });
        let inode = contents.inodes.len() - 1;
        contents.names.insert(name.to_owned(), inode);
        drop(contents);
        self.whole(Op::Sync)?;
        self.contents().durable_names.insert(name.to_owned(), inode);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.whole(Op::Write)?;
        self.contents().names.remove(name).map(|_| ()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn space(&self) -> io::Result<Space> {
        Ok(self.contents().space.unwrap_or(Space { free: u64::MAX, total: u64::MAX }))
    }

    fn cool(&self, _: &str) -> io::Result<bool> {
        Ok(false)
    }

    fn warm(&self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        self.whole(Op::Sync)?;
        let mut contents = self.contents();
        contents.durable_names = contents.names.clone();
        Ok(())
    }
}

struct OnDisk {
    disk: Disk,
    inode: usize,
}

impl OnDisk {
    fn with<T>(&self, look: impl FnOnce(&mut Inode) -> T) -> T {
        look(&mut self.disk.contents().inodes[self.inode])
    }
}

impl StoredFile for OnDisk {
    fn size(&self) -> io::Result<u64> {
        Ok(self.with(|inode| inode.visible.len()) as u64)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let from = usize::try_from(offset).unwrap();
        self.with(|inode| {
            let end = from.saturating_add(buffer.len());
            if buffer.is_empty() {
                // As a real one: reading nothing never meets the end.
                return Ok(());
            }
            let bytes = inode.visible.get(from..end).ok_or(io::ErrorKind::UnexpectedEof)?;
            buffer.copy_from_slice(bytes);
            Ok(())
        })
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.disk.wait(Op::Write);
        let at = usize::try_from(offset).unwrap();
        let fault = self.disk.fault(Op::Write);
        let taken = match fault {
            None | Some(Fault::Cut) => bytes.len(),
            Some(Fault::Write) => 0,
            Some(Fault::Full) if bytes.len().is_multiple_of(2) => 0,
            Some(_) => self.disk.contents().chance.below(bytes.len() + 1),
        };
        self.with(|inode| inode.write(at, &bytes[..taken]));
        fault.map_or(Ok(()), |fault| Err(fault.error()))
    }

    fn set_size(&self, len: u64) -> io::Result<()> {
        self.disk.whole(Op::Write)?;
        // A cut of what is not looked at any more: whether it lasts is all the same.
        let len = usize::try_from(len).unwrap();
        self.with(|inode| inode.visible.resize(len, 0));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.wait(Op::Sync);
        match self.disk.fault(Op::Sync) {
            None => self.with(Inode::sync),
            Some(Fault::Cut) => return Err(Fault::Cut.error()),
            Some(fault) => {
                // As Linux does: the pages are clean now, and show what the disk may lack.
                let mut chance = Chance(self.disk.contents().chance.below(usize::MAX) as u64);
                self.with(|inode| inode.lose(&mut chance));
                return Err(fault.error());
            }
        }
        Ok(())
    }
}
