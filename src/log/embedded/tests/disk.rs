//! A simulated disk behind the storage seam: it keeps what is durable apart from what is only
//! written, fails when told to, and loses power in every way a real one does.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::MutexGuard;

use super::*;
use crate::log::embedded::storage::{Space, StoredFile};

/// What a disk writes wholly or not at all.
const SECTOR_BYTES: usize = 512;

/// What goes wrong, a number of operations from now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// One operation fails with EIO; a failed sync forgets what was written, yet shows it.
    Error,
    /// Power is lost: this operation and all later ones fail, until [`Disk::crash`].
    Cut,
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

/// Stops the next sync until it is let go.
struct Gate {
    entered: mpsc::Sender<()>,
    go: mpsc::Receiver<()>,
}

#[derive(Default)]
struct Contents {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    fault: Option<(usize, Fault)>,
    dark: bool,
    gate: Option<Gate>,
    space: Option<Space>,
}

#[derive(Clone, Default)]
pub(super) struct Disk(Arc<Mutex<Contents>>);

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
    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap()
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
        let inode = |inode: &Inode| Inode {
            durable: inode.durable.clone(),
            visible: inode.durable.clone(),
            unsynced: Vec::new(),
        };
        let names = contents.durable_names.clone();
        let inodes = contents.inodes.iter().map(inode).collect();
        let copy = Contents { inodes, names: names.clone(), durable_names: names, ..Contents::default() };
        Self(Arc::new(Mutex::new(copy)))
    }

    /// Says from now on that so much of it is free.
    pub(super) fn has_space(&self, space: Space) {
        self.contents().space = Some(space);
    }

    /// Holds the next sync: the first end hears that it is entered, the second lets it go.
    pub(super) fn hold_sync(&self) -> (mpsc::Receiver<()>, mpsc::Sender<()>) {
        let ((entered, hears), (release, go)) = (mpsc::channel(), mpsc::channel());
        self.contents().gate = Some(Gate { entered, go });
        (hears, release)
    }

    /// Changes a file's bytes as they lie on the disk.
    pub(super) fn change(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut contents = self.contents();
        let inode = contents.names[name];
        change(&mut contents.inodes[inode].durable);
        contents.inodes[inode].visible = contents.inodes[inode].durable.clone();
    }

    /// Counts an operation; tells what goes wrong with it.
    fn fault(&self) -> Option<Fault> {
        let mut contents = self.contents();
        if contents.dark {
            return Some(Fault::Cut);
        }
        match &mut contents.fault {
            Some((0, fault)) => {
                let fault = *fault;
                contents.fault = None;
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

    fn whole(&self) -> io::Result<()> {
        self.fault().map_or(Ok(()), |_| Err(eio()))
    }

    fn file(&self, inode: usize) -> Arc<dyn StoredFile> {
        Arc::new(OnDisk { disk: self.clone(), inode })
    }
}

fn eio() -> io::Error {
    io::Error::other("simulated EIO")
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
        self.whole()?;
        let mut contents = self.contents();
        contents.inodes.push(Inode::default());
        let inode = contents.inodes.len() - 1;
        contents.names.insert(name.to_owned(), inode);
        drop(contents);
        Ok(self.file(inode))
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.whole()?;
        let mut contents = self.contents();
        contents.inodes.push(Inode { durable: bytes.into(), visible: bytes.into(), unsynced: Vec::new() });
        let inode = contents.inodes.len() - 1;
        contents.names.insert(name.to_owned(), inode);
        drop(contents);
        self.whole()?;
        self.contents().durable_names.insert(name.to_owned(), inode);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.whole()?;
        self.contents().names.remove(name).map(|_| ()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn space(&self) -> io::Result<Space> {
        Ok(self.contents().space.unwrap_or(Space { free: u64::MAX, total: u64::MAX }))
    }

    fn cool(&self, _: &str) -> io::Result<bool> {
        Ok(false)
    }

    fn sync_names(&self) -> io::Result<()> {
        self.whole()?;
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
            let bytes = inode.visible.get(from..end).ok_or(io::ErrorKind::UnexpectedEof)?;
            buffer.copy_from_slice(bytes);
            Ok(())
        })
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let at = usize::try_from(offset).unwrap();
        match self.disk.fault() {
            None => self.with(|inode| inode.write(at, bytes)),
            Some(fault) => {
                // A write that fails may have been made in part.
                let part = Chance(offset ^ bytes.len() as u64).below(bytes.len() + 1);
                let taken = if fault == Fault::Cut { bytes.len() } else { part };
                self.with(|inode| inode.write(at, &bytes[..taken]));
                return Err(eio());
            }
        }
        Ok(())
    }

    fn set_size(&self, len: u64) -> io::Result<()> {
        self.disk.whole()?;
        // A cut of what is not looked at any more: whether it lasts is all the same.
        let len = usize::try_from(len).unwrap();
        self.with(|inode| inode.visible.resize(len, 0));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let gate = self.disk.contents().gate.take();
        if let Some(gate) = gate {
            gate.entered.send(()).unwrap();
            gate.go.recv().unwrap();
        }
        match self.disk.fault() {
            None => self.with(Inode::sync),
            Some(Fault::Cut) => return Err(eio()),
            Some(Fault::Error) => {
                // As Linux does: the pages are clean now, and show what the disk may lack.
                let len = self.with(|inode| inode.unsynced.len()) as u64;
                self.with(|inode| inode.lose(&mut Chance(len)));
                return Err(eio());
            }
        }
        Ok(())
    }
}
