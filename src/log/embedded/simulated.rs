//! A disk for tests that forgets what was not synced, tears what it was writing, and fails on demand.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use super::storage::{Storage, StoredFile};

/// What is kept or lost as one piece, in bytes.
const SECTOR_BYTES: usize = 512;

#[derive(Clone, Default)]
pub(super) struct Simulated(Arc<Mutex<Disk>>);

#[derive(Default)]
struct Disk {
    files: BTreeMap<String, Content>,
    fail_write: bool,
    fail_sync: bool,
}

#[derive(Default, Clone)]
struct Content {
    durable: Vec<u8>,
    current: Vec<u8>,
    unsynced: Vec<(usize, Vec<u8>)>,
    named: bool,
}

struct Handle(Simulated, String);

/// A small generator: the same seed, the same crash.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }
}

fn put(bytes: &mut Vec<u8>, offset: usize, written: &[u8]) {
    if bytes.len() < offset + written.len() {
        bytes.resize(offset + written.len(), 0);
    }
    bytes[offset..offset + written.len()].copy_from_slice(written);
}

impl Simulated {
    /// The next write is cut in half and fails.
    pub(super) fn fail_write(&self) {
        self.0.lock().unwrap().fail_write = true;
    }

    /// The next sync fails, and no later one makes durable what it should have.
    pub(super) fn fail_sync(&self) {
        self.0.lock().unwrap().fail_sync = true;
    }

    /// Power is lost: unsynced sectors are kept or lost one by one, in no order.
    pub(super) fn crash(&self, seed: u64) {
        let mut chance = Chance(seed);
        let mut disk = self.0.lock().unwrap();
        disk.fail_write = false;
        disk.fail_sync = false;
        disk.files.retain(|_, content| content.named || chance.next().is_multiple_of(2));
        for content in disk.files.values_mut() {
            for (offset, written) in std::mem::take(&mut content.unsynced) {
                for (number, sector) in written.chunks(SECTOR_BYTES).enumerate() {
                    if chance.next().is_multiple_of(2) {
                        put(&mut content.durable, offset + number * SECTOR_BYTES, sector);
                    }
                }
            }
            content.current = content.durable.clone();
            content.named = true;
        }
    }

    /// Changes one byte of a file, as a failing disk would.
    pub(super) fn flip(&self, name: &str, offset: usize) {
        let mut disk = self.0.lock().unwrap();
        let content = disk.files.get_mut(name).unwrap();
        content.durable[offset] ^= 0x55;
        content.current[offset] ^= 0x55;
    }

    pub(super) fn remove(&self, name: &str) {
        self.0.lock().unwrap().files.remove(name).unwrap();
    }

    pub(super) fn bytes(&self, name: &str) -> Vec<u8> {
        self.0.lock().unwrap().files[name].current.clone()
    }
}

impl Storage for Simulated {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.lock().unwrap().files.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StoredFile>> {
        if self.0.lock().unwrap().files.contains_key(name) {
            Ok(Arc::new(Handle(self.clone(), name.to_owned())))
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn StoredFile>> {
        self.0.lock().unwrap().files.insert(name.to_owned(), Content::default());
        self.open(name)
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let content =
            Content { durable: bytes.to_vec(), current: bytes.to_vec(), unsynced: Vec::new(), named: true };
        self.0.lock().unwrap().files.insert(name.to_owned(), content);
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        self.0.lock().unwrap().files.values_mut().for_each(|content| content.named = true);
        Ok(())
    }
}

impl StoredFile for Handle {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.0.lock().unwrap().files[&self.1].current.len() as u64)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let disk = self.0.0.lock().unwrap();
        let offset = usize::try_from(offset).unwrap();
        let bytes = disk.files[&self.1].current.get(offset..offset + buffer.len());
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut disk = self.0.0.lock().unwrap();
        let fails = std::mem::take(&mut disk.fail_write);
        let content = disk.files.get_mut(&self.1).unwrap();
        let written = if fails { &bytes[..bytes.len() / 2] } else { bytes };
        let offset = usize::try_from(offset).unwrap();
        put(&mut content.current, offset, written);
        content.unsynced.push((offset, written.to_vec()));
        if fails { Err(io::Error::other("the disk broke while writing")) } else { Ok(()) }
    }

    fn sync(&self) -> io::Result<()> {
        let mut disk = self.0.0.lock().unwrap();
        let fails = std::mem::take(&mut disk.fail_sync);
        let content = disk.files.get_mut(&self.1).unwrap();
        // As Linux does: after a failed sync the pages count as clean, so no later sync writes them.
        for (offset, written) in std::mem::take(&mut content.unsynced) {
            if !fails {
                put(&mut content.durable, offset, &written);
            }
        }
        if fails { Err(io::Error::other("the disk broke while syncing")) } else { Ok(()) }
    }
}
