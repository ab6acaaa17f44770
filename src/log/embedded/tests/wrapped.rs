//! A real directory with one thing wrong: a file that the disk does not give back, or a cold tier
//! that does not answer.

use std::collections::BTreeSet;

use rustix::io::Errno;

use super::super::storage::{Space, StoredFile};
use super::*;

/// See the module.
pub(in crate::log::embedded) struct Wrapped {
    inner: Directory,
    /// What does not read, until it is put in place anew.
    unread: Mutex<BTreeSet<String>>,
    /// Tells that a file is to move, and waits until it may.
    gate: Mutex<Option<Gate>>,
    /// The same of a file with this name that is to be opened.
    door: Mutex<Option<(String, Gate)>>,
    /// The same of who asks how full the disk is.
    asked: Mutex<Option<Gate>>,
}

type Gate = (mpsc::Sender<()>, mpsc::Receiver<()>);

fn pass(gate: Option<Gate>) {
    if let Some((entered, go)) = gate {
        entered.send(()).unwrap();
        let _ = go.recv();
    }
}

impl Wrapped {
    pub(in crate::log::embedded) fn new(hot: &Path, cold: Option<&Path>) -> Self {
        let inner = Directory::new(hot, cold);
        let (unread, door) = (Mutex::new(BTreeSet::new()), Mutex::new(None));
        Self { inner, unread, gate: Mutex::new(None), door, asked: Mutex::new(None) }
    }

    pub(in crate::log::embedded) fn without(self, name: &str) -> Self {
        self.unread.lock().unwrap().insert(name.to_owned());
        self
    }

    /// Holds whatever moves first: the first end hears of it, dropping the second lets it go.
    pub(in crate::log::embedded) fn holding(self) -> (Self, mpsc::Receiver<()>, mpsc::Sender<()>) {
        let ((entered, hears), (release, go)) = (mpsc::channel(), mpsc::channel());
        *self.gate.lock().unwrap() = Some((entered, go));
        (self, hears, release)
    }

    /// Holds whoever asks how full the disk is next, likewise.
    pub(in crate::log::embedded) fn hold_space(&self) -> (mpsc::Receiver<()>, mpsc::Sender<()>) {
        let ((entered, hears), (release, go)) = (mpsc::channel(), mpsc::channel());
        *self.asked.lock().unwrap() = Some((entered, go));
        (hears, release)
    }

    /// Holds whoever opens this file next, likewise.
    pub(in crate::log::embedded) fn hold_open(&self, name: &str) -> (mpsc::Receiver<()>, mpsc::Sender<()>) {
        let ((entered, hears), (release, go)) = (mpsc::channel(), mpsc::channel());
        *self.door.lock().unwrap() = Some((name.to_owned(), (entered, go)));
        (hears, release)
    }
}

impl Storage for Wrapped {
    fn list(&self) -> io::Result<Vec<String>> {
        self.inner.list()
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn StoredFile>> {
        let held = self.door.lock().unwrap().take_if(|(held, _)| held == name);
        pass(held.map(|(_, gate)| gate));
        let file = self.inner.open(name)?;
        Ok(if self.unread.lock().unwrap().contains(name) { Arc::new(Unread(file)) } else { file })
    }
    fn create(&self, name: &str) -> io::Result<Arc<dyn StoredFile>> {
        self.inner.create(name)
    }
    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.unread.lock().unwrap().remove(name);
        self.inner.replace(name, bytes)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.inner.remove(name)
    }
    fn sync_names(&self) -> io::Result<()> {
        self.inner.sync_names()
    }
    fn space(&self) -> io::Result<Space> {
        let held = self.asked.lock().unwrap().take();
        pass(held);
        self.inner.space()
    }
    fn cool(&self, name: &str) -> io::Result<bool> {
        let gate = self.gate.lock().unwrap().take();
        pass(gate);
        self.inner.cool(name)
    }
    fn warm(&self, name: &str) -> io::Result<()> {
        self.inner.warm(name)
    }
}

/// A file on a bad spot of the disk.
struct Unread(Arc<dyn StoredFile>);

impl StoredFile for Unread {
    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }
    fn read_exact_at(&self, _: &mut [u8], _: u64) -> io::Result<()> {
        Err(Errno::IO.into())
    }
    fn write_all_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        panic!("what does not read is not written")
    }
    fn set_size(&self, _: u64) -> io::Result<()> {
        panic!("what does not read is not cut")
    }
    fn sync(&self) -> io::Result<()> {
        panic!("nothing was written")
    }
}
