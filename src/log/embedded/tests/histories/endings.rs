//! How processes of a history end, and what the next one must find.

use super::world::{Relaxed, World, draw_fault, draw_options, everything};
use crate::log::embedded::tests::open_disk_at;
use crate::log::embedded::*;

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Close,
    /// The process is gone, the machine goes on.
    Kill,
    /// The machine is gone, and with it some of what was not synced.
    Crash,
}

impl World {
    /// Ends the process and opens the log again, perhaps with faults on the way.
    pub(super) async fn reopen(&mut self, ending: Ending) {
        self.counts.note(match ending {
            Ending::Close => "restart: after closing",
            Ending::Kill => "restart: after a kill",
            Ending::Crash => "restart: after a loss of power",
        });
        let lossy = self.end(ending) && ending == Ending::Crash;
        let mut may_lose = lossy;
        for attempt in 0.. {
            if attempt < 2 && self.chance.below(4) == 0 {
                let (after, fault) = (self.chance.below(8), draw_fault(&mut self.chance));
                self.disk.plan(after, fault);
            }
            self.options = draw_options(&mut self.chance);
            if self.options.durability != Durability::Sync && self.relaxed == Relaxed::No {
                self.relaxed = Relaxed::Maybe;
            }
            match open_disk_at(&self.disk, self.options.clone(), &self.clock) {
                Ok(log) => {
                    self.log = Some(log);
                    break;
                }
                Err(OpenError::Io { error, .. }) => {
                    let fired = self.disk.fired();
                    assert!(!fired.is_empty(), "{error}");
                    self.counts.faults(&fired);
                    self.counts.note("restart: a fault while opening");
                }
                Err(error) => panic!("{error}"),
            }
            if self.chance.below(2) == 0 {
                self.disk.crash(self.chance.below(usize::MAX) as u64);
                may_lose = may_lose || self.lossy();
            } else {
                self.disk.heal();
            }
        }
        self.find(may_lose).await;
    }

    /// Whether the last process may have left answered events unsynced.
    fn lossy(&self) -> bool {
        self.kept < self.known.len() && self.relaxed != Relaxed::No
    }

    /// Ends the process; whether what it answered may be lost with the machine.
    fn end(&mut self, ending: Ending) -> bool {
        let poisoned = self.log().poisoned().is_some();
        // On a full disk a relaxed one waits for its syncs.
        let is_relaxed = self.log().durability != Durability::Sync;
        if ending != Ending::Close {
            self.disk.cut();
        }
        self.counts.faults(&self.disk.fired());
        // The power may have gone where the log goes on, as when a segment's file is made.
        let is_dark = self.disk.is_dark();
        self.log = None;
        let fired = self.disk.fired();
        if is_relaxed {
            self.relaxed = match ending {
                Ending::Close if fired.is_empty() && !poisoned && !is_dark => Relaxed::No,
                Ending::Close if !poisoned => Relaxed::Maybe,
                _ => Relaxed::Yes,
            };
        }
        self.counts.faults(&fired);
        match ending {
            Ending::Crash => self.disk.crash(self.chance.below(usize::MAX) as u64),
            _ => self.disk.heal(),
        }
        self.lossy()
    }

    /// Compares what an opened log holds with what is known.
    pub(super) async fn find(&mut self, may_lose: bool) {
        let epoch = self.log().epoch();
        assert_eq!(epoch.log(), self.epoch.log());
        let raised = epoch.counter() > self.epoch.counter();
        match self.relaxed {
            Relaxed::No => assert!(epoch == self.epoch, "nothing acknowledged was cut"),
            Relaxed::Maybe => assert!(epoch.counter() >= self.epoch.counter()),
            Relaxed::Yes => assert!(raised, "what was acknowledged may be lost"),
        }
        self.epoch = epoch;
        let found = everything(self.log()).await;
        if found.len() < self.known.len() {
            assert!(may_lose && found.len() >= self.kept, "something acknowledged is gone");
            assert!(self.known.starts_with(&found), "a hole");
            assert!(raised, "events were lost under the same epoch");
            self.counts.note("found: relaxed answers lost");
            self.known = found;
        } else {
            assert!(found.starts_with(&self.known), "something acknowledged is gone or changed");
            let more = found[self.known.len()..].to_vec();
            if more.is_empty() {
                self.counts.note(if self.fated.is_empty() {
                    "found: all"
                } else {
                    "found: all, the failed batch not"
                });
            } else {
                assert!(self.are_fated(&more), "nothing is there that was not asked, or in part, or twice");
                self.counts.note("found: all, the failed batch too");
                self.learn(&more);
            }
        }
        self.fated.clear();
        self.kept = self.known.len();
        self.relaxed = match (self.options.durability, self.log().durability) {
            (Durability::Sync, _) => Relaxed::No,
            // What says that it is relaxed may be there although the disk was full.
            (_, Durability::Sync) => Relaxed::Maybe,
            _ => Relaxed::Yes,
        };
        self.assert_clean_tail();
    }
}
