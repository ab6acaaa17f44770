//! What the projector keeps in the store about its own work on one projection: the job under
//! way, the builds kept beside the live one, the events that admins let pass. It is what a
//! restart goes on from.

use std::sync::Arc;

use dramatis_events::{Epoch, Position, UnixMillis};
use dramatis_projections::{DeadLetter, Digest, Skipped};
use serde::{Deserialize, Serialize};

use super::compare::{Difference, SHOWN_MAX};
use super::keeper::Keeper;
use super::run::RunError;
use super::status::History;
use crate::read_models::{ReadModelError, ReadModels};

/// How often a change of the record is tried against others who change it too.
const TRIES_MAX: usize = 16;

/// The record of one projection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Record {
    /// The last job, which may be under way.
    pub(super) job: Option<Job>,
    /// Builds that stay for a while beside the live one, the newest last.
    pub(super) kept: Vec<Kept>,
    /// Events that are not folded, and the epoch they are of.
    pub(super) skipped: Vec<Skipped>,
    pub(super) skipped_in: Option<Epoch>,
    /// The version of the fold that an admin rolled back from: it is not built again unasked.
    pub(super) held_version: Option<u32>,
    /// The epoch whose first build an admin cancelled: neither is that built again unasked.
    pub(super) held_epoch: Option<Epoch>,
    /// Who keeps the projection, or did last.
    pub(super) keeper: Option<Keeper>,
    /// Builds that a copy of this log made which went another way.
    pub(super) strangers: Vec<String>,
    /// Builds of events that this log had before an older state of it was put back.
    pub(super) lost: Vec<String>,
}

/// A build made beside the live one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Its collection.
    pub collection: String,
    /// What it is for.
    pub purpose: Purpose,
    /// The version of the fold.
    pub version: u32,
    /// The epoch of the log.
    pub epoch: Epoch,
    /// Whether to switch although documents differ.
    pub accept: bool,
    /// The most events a second, if it is held back by hand.
    pub events_per_s_max: Option<u64>,
    /// How it stands.
    pub state: JobState,
    /// When it was asked for.
    pub started_at: UnixMillis,
    /// When it ended.
    pub ended_at: Option<UnixMillis>,
    /// Time worked on it, without pauses, milliseconds.
    pub worked_ms: u64,
    /// Events folded.
    pub events: u64,
    /// Documents written, each as often as it was.
    pub documents_written: u64,
    /// That the build is complete: an empty build is one, if this says so.
    pub completion: Option<Completion>,
    /// Whether the live build stood still where it was compared.
    #[serde(default)]
    pub compared_frozen: bool,
    /// How its documents differ from those of the live build.
    pub difference: Option<Difference>,
    /// The keys that are parked in its build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parked: Option<Parked>,
    /// Keys that went on in the live build since, after they were tried again: here they are, too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mended: Vec<String>,
    /// The build it took the place of.
    pub replaced: Option<String>,
    /// Why it failed.
    pub error: Option<String>,
}

/// What a build is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Purpose {
    /// To take the live build's place once it is proven.
    Rebuild,
    /// To tell whether the live build is what the log says; dropped afterwards.
    Verify,
    /// To show the documents as they were at a position; dropped after the retention.
    AsOf {
        /// The position.
        position: Position,
    },
}

/// How a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// It reads and folds the log.
    Building,
    /// It is compared with the live build.
    Proving,
    /// An admin holds it up.
    Paused,
    /// It is complete, and shows other documents than the live build: an admin accepts it or
    /// cancels it.
    Differs,
    /// It did what it was for.
    Done,
    /// It was cancelled; its build is dropped.
    Cancelled,
    /// It came to nothing; its build is dropped.
    Failed,
}

impl JobState {
    /// Whether it still has a build of its own.
    pub const fn is_active(self) -> bool {
        matches!(self, Self::Building | Self::Proving | Self::Paused | Self::Differs)
    }

    /// How it stands, for who asked for what cannot be done then.
    pub(super) const fn stands(self) -> &'static str {
        match self {
            Self::Building | Self::Proving => "is under way: pause it or cancel it",
            Self::Paused => "is paused: resume it or cancel it",
            Self::Differs => "is complete and differs from the live one: accept it or cancel it",
            Self::Done | Self::Cancelled | Self::Failed => "is over",
        }
    }

    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Building => "building",
            Self::Proving => "proving",
            Self::Paused => "paused",
            Self::Differs => "differs",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }
}

/// That a build has everything up to a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Completion {
    /// The position; `None` while the log is empty.
    pub position: Option<Position>,
    /// How many documents there are.
    pub documents: u64,
    /// Their digest.
    #[serde(with = "digest_text")]
    pub digest: Digest,
}

/// Keys that a build has parked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parked {
    /// How many they are.
    pub keys: u64,
    /// Some of them, in log order.
    pub shown: Vec<ParkedKey>,
}

/// A key that a build has parked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParkedKey {
    /// The key; a stream's name stands for every key of that stream.
    pub key: String,
    /// The event that could not be folded.
    pub position: Position,
    /// Why.
    pub error: String,
}

impl Parked {
    /// What there is to tell of these dead letters; nothing if there are none.
    pub(super) fn of(letters: &[DeadLetter]) -> Option<Self> {
        let shown = letters.iter().take(SHOWN_MAX).map(|letter| ParkedKey {
            key: letter.key.clone(),
            position: letter.position,
            error: letter.error.clone(),
        });
        let keys = u64::try_from(letters.len()).unwrap_or(u64::MAX);
        (keys > 0).then(|| Self { keys, shown: shown.collect() })
    }
}

/// A build that stays for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Its collection.
    pub collection: String,
    /// The position it shows, if it was made to show one; else it was live before.
    pub as_of: Option<Position>,
    /// Until when it is kept up with the log, so that a rollback to it is instant.
    pub warm_until: Option<UnixMillis>,
    /// When it is dropped.
    pub drop_at: UnixMillis,
}

mod digest_text {
    use dramatis_projections::Digest;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(digest: &Digest, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(digest)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Digest, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

impl Record {
    /// The job, while it has a build of its own.
    pub(super) fn active(&self) -> Option<&Job> {
        self.job.as_ref().filter(|job| job.state.is_active())
    }

    /// The job that makes this collection, while it is active.
    pub(super) fn active_mut(&mut self, collection: &str) -> Option<&mut Job> {
        self.job.as_mut().filter(|job| job.state.is_active() && job.collection == collection)
    }

    /// Notes that a build is live: whatever was wished of its job in the moment of the switch came too late.
    pub(super) fn switched_to(&mut self, collection: &str, now: UnixMillis) {
        let job = self.job.as_mut().filter(|job| job.collection == collection);
        if let Some(job) = job.filter(|job| job.state != JobState::Done) {
            job.end(JobState::Done, now);
        }
    }

    /// Notes that a live build of this history is to have no successor unasked, of which this was one.
    pub(super) fn hold_back(&mut self, history: History, successor: &Job) {
        match history {
            History::Present => self.held_version = Some(successor.version),
            History::Earlier | History::OfAnotherCopy | History::OfAnotherLog(_) => {
                self.held_epoch = Some(successor.epoch);
            }
        }
    }

    /// Whether a live build of this history is to have no successor of this version and epoch unasked.
    pub(super) fn holds_back(&self, history: History, version: u32, epoch: Epoch) -> bool {
        match history {
            History::Present => self.held_version == Some(version),
            History::Earlier | History::OfAnotherCopy | History::OfAnotherLog(_) => {
                self.held_epoch == Some(epoch)
            }
        }
    }

    /// Has a build stay for a while, as the newest.
    pub(super) fn keep(&mut self, kept: Kept) {
        self.kept.retain(|other| other.collection != kept.collection);
        self.kept.push(kept);
    }

    /// Whether a build is spoken for, the live one aside.
    pub(super) fn holds(&self, collection: &str) -> bool {
        self.active().is_some_and(|job| job.collection == collection)
            || self.kept.iter().any(|kept| kept.collection == collection)
    }
}

/// Where the record of one projection is.
#[derive(Clone)]
pub(super) struct Ledger {
    store: Arc<dyn ReadModels>,
    note: String,
}

impl Ledger {
    pub(super) fn new(store: Arc<dyn ReadModels>, projection: &str) -> Self {
        Self { store, note: format!("projection/{projection}") }
    }

    /// The record as it stands.
    pub(super) async fn read(&self) -> Result<Record, ReadModelError> {
        Ok(self.read_text().await?.1)
    }

    /// Changes the record; what the closure refuses is not written.
    pub(super) async fn update<T, E, F>(&self, mut change: F) -> Result<T, E>
    where
        E: From<RunError>,
        F: FnMut(&mut Record) -> Result<T, E>,
    {
        for _ in 0..TRIES_MAX {
            let (text, record) = self.read_text().await.map_err(RunError::Store)?;
            let mut changed = record.clone();
            let answer = change(&mut changed)?;
            if changed == record {
                return Ok(answer);
            }
            let new = serde_json::to_string(&changed).map_err(|e| RunError::Store(self.unreadable(&e)))?;
            if self.store.swap_note(&self.note, text, Some(new)).await.map_err(RunError::Store)? {
                return Ok(answer);
            }
        }
        let reason = format!("the note {:?} is changed by others all the time", self.note);
        Err(RunError::Store(ReadModelError::Failure { reason }).into())
    }

    async fn read_text(&self) -> Result<(Option<String>, Record), ReadModelError> {
        let text = self.store.note(&self.note).await?;
        let record = match &text {
            Some(text) => serde_json::from_str(text).map_err(|e| self.unreadable(&e))?,
            None => Record::default(),
        };
        Ok((text, record))
    }

    fn unreadable(&self, error: &serde_json::Error) -> ReadModelError {
        ReadModelError::Damaged { place: format!("the note {:?}", self.note), reason: error.to_string() }
    }
}

impl Job {
    /// A job to begin with.
    pub(super) fn new(
        collection: String,
        purpose: Purpose,
        version: u32,
        epoch: Epoch,
        started_at: UnixMillis,
    ) -> Self {
        Self {
            collection,
            purpose,
            version,
            epoch,
            accept: false,
            events_per_s_max: None,
            state: JobState::Building,
            started_at,
            ended_at: None,
            worked_ms: 0,
            events: 0,
            documents_written: 0,
            completion: None,
            compared_frozen: false,
            difference: None,
            parked: None,
            mended: Vec::new(),
            replaced: None,
            error: None,
        }
    }

    /// It is over.
    pub(super) fn end(&mut self, state: JobState, now: UnixMillis) {
        (self.state, self.ended_at) = (state, Some(now));
    }
}
