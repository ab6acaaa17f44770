//! A live build that cannot be gone on with: queries get it as it stands, and its successor is built.

use std::sync::Arc;

use dramatis_events::Position;
use dramatis_projections::{DeadLetter, FoldError};

use super::record::{Job, JobState, Purpose, Record};
use super::run::{RunError, next_collection};
use super::stands;
use super::status::History;
use super::worker::Worker;
use crate::read_models::Build;

pub(super) struct Frozen {
    pub(super) collection: String,
    /// Where it stands, if it is of this history.
    pub(super) position: Option<Position>,
    pub(super) history: History,
    /// What is parked in it.
    pub(super) parked: Arc<Vec<DeadLetter>>,
    why: String,
    next: String,
}

impl Frozen {
    /// Why it is frozen, what queries get and what comes next.
    pub(super) fn reason(&self) -> String {
        let Self { collection, why, next, .. } = self;
        let queries = match self.history {
            History::Present => {
                format!("queries get build {collection} as it stands, without what happened after it")
            }
            History::Earlier => format!(
                "queries get build {collection} as it stands, and where there are tokens they are refused"
            ),
            History::OfAnotherCopy | History::OfAnotherLog(_) => {
                format!("queries get nothing of build {collection}")
            }
        };
        format!("{queries}: {why}; {next}")
    }
}

/// How a successor stands.
enum Successor {
    /// It is under way.
    UnderWay(Job),
    /// A build for another purpose is.
    After(Job),
    /// There is none, and there is to be none unasked.
    Held,
    /// It is to be ordered.
    Due,
}

impl Worker {
    /// Freezes a build of another version of the fold or of another history.
    pub(super) async fn freeze_other(&mut self, build: &Build) -> Result<(), RunError> {
        let history = self.history_of(build);
        if let History::OfAnotherLog(epoch) = history
            && self.shared.options.take_over != Some(epoch.log())
        {
            // It came since that was looked at.
            let (projection, collection) = (self.projection.name(), build.collection.clone());
            return Err(RunError::AliasMoved { projection, collection });
        }
        let why = self.why_not(build, history);
        let position = build.checkpoint.position.filter(|_| history == History::Present);
        self.freeze(build.collection.clone(), position, history, why).await
    }

    fn why_not(&self, build: &Build, history: History) -> String {
        let (version, epoch) = (self.projection.version(), self.shared.log.epoch());
        match history {
            History::Present => {
                format!(
                    "it is of version {} of the fold and this release has version {version}",
                    build.version
                )
            }
            History::OfAnotherCopy => "it is of a copy of this log that went another way".to_owned(),
            History::Earlier if build.checkpoint.epoch == epoch => {
                let (got_to, head) = (build.checkpoint.position, *self.shared.log.head().borrow());
                match got_to.filter(|got_to| Some(*got_to) > head) {
                    Some(got_to) => format!(
                        "it has got to {got_to} and the log ends {}: acknowledged events are gone",
                        stands(head)
                    ),
                    None => {
                        "it holds events that the log has no more: acknowledged events are gone".to_owned()
                    }
                }
            }
            History::Earlier | History::OfAnotherLog(_) => {
                format!("it is of the history {} and the log is {epoch}", build.checkpoint.epoch)
            }
        }
    }

    /// Freezes the live build where it is, before an event that changes a document that cannot be read.
    pub(super) async fn freeze_unreadable(&mut self, error: &FoldError) -> Result<(), RunError> {
        let Some(run) = &mut self.run else { return Ok(()) };
        // Nobody writes again what a crash would take away later.
        run.save().await?;
        let (collection, position) = (run.collection.clone(), run.position);
        self.freeze(collection, position, History::Present, error.to_string()).await?;
        self.leave_live();
        self.found();
        Ok(())
    }

    /// Has queries get the build as it stands, and a successor built, loudly.
    async fn freeze(
        &mut self,
        collection: String,
        position: Option<Position>,
        history: History,
        why: String,
    ) -> Result<(), RunError> {
        let record = self.ledger.read().await?;
        let mut successor = self.successor(&record, history);
        // A job that came to nothing is tried again with every start.
        let held = record.holds_back(history, self.projection.version(), self.shared.log.epoch());
        if matches!(successor, Successor::Held) && !held {
            successor = Successor::Due;
        }
        if matches!(successor, Successor::Due) {
            successor = self.order_successor(history).await?;
        }
        let parked = Arc::new(self.shared.store.dead_letters(&collection).await?);
        let frozen = Frozen { collection, position, history, parked, why, next: self.told(&successor) };
        tracing::error!(
            projection = self.projection.name(),
            reason = frozen.reason(),
            "the live build is frozen"
        );
        self.frozen = Some(frozen);
        Ok(())
    }

    /// Orders the successor of a frozen build once nothing is in its way, and says how it stands.
    pub(super) async fn see_to_successor(&mut self, record: &Record) -> Result<(), RunError> {
        let Some(history) = self.frozen.as_ref().map(|frozen| frozen.history) else { return Ok(()) };
        let mut successor = self.successor(record, history);
        if matches!(successor, Successor::Due) {
            successor = self.order_successor(history).await?;
            self.wake.send_modify(|wakes| *wakes += 1);
        }
        let next = self.told(&successor);
        if let Some(frozen) = &mut self.frozen {
            frozen.next = next;
        }
        Ok(())
    }

    /// How the successor of a frozen build of this history stands.
    fn successor(&self, record: &Record, history: History) -> Successor {
        let (version, epoch) = (self.projection.version(), self.shared.log.epoch());
        let last = record.job.as_ref().filter(|job| job.version == version && job.epoch == epoch);
        match last {
            Some(job) if !job.state.is_active() && job.purpose == Purpose::Rebuild => Successor::Held,
            Some(job) if !job.state.is_active() => Self::due(record.holds_back(history, version, epoch)),
            Some(job) if job.purpose == Purpose::Rebuild => Successor::UnderWay(job.clone()),
            Some(job) => Successor::After(job.clone()),
            None => Self::due(record.holds_back(history, version, epoch)),
        }
    }

    const fn due(held: bool) -> Successor {
        if held { Successor::Held } else { Successor::Due }
    }

    /// Orders a successor in place of the last job, unless another was ordered meanwhile.
    async fn order_successor(&mut self, history: History) -> Result<Successor, RunError> {
        let (name, version) = (self.projection.name(), self.projection.version());
        let (epoch, accept) = (self.shared.log.epoch(), self.shared.options.accept_new_versions);
        let collection = next_collection(&self.shared, name).await?;
        let mut job = Job::new(collection, Purpose::Rebuild, version, epoch, self.shared.clock.now());
        // Of another history nothing can be compared.
        job.accept = accept || history != History::Present;
        self.ledger
            .update(|record| {
                let ours = record.active().filter(|job| job.version == version && job.epoch == epoch);
                Ok(match ours.cloned() {
                    Some(job) if job.purpose == Purpose::Rebuild => Successor::UnderWay(job),
                    Some(job) => Successor::After(job),
                    None => {
                        record.job = Some(job.clone());
                        Successor::UnderWay(job.clone())
                    }
                })
            })
            .await
    }

    fn told(&self, successor: &Successor) -> String {
        let name = self.projection.name();
        match successor {
            Successor::UnderWay(job) if job.state == JobState::Paused => {
                format!("its successor is held up: `dramatis projections resume {name}` goes on with it")
            }
            Successor::UnderWay(job) if job.state == JobState::Differs => {
                format!("its successor differs and waits for `dramatis projections accept {name}`")
            }
            Successor::UnderWay(job) if job.accept => {
                "its successor is being built and then switched to".to_owned()
            }
            Successor::UnderWay(_) => format!(
                "its successor is being built; if it differs it waits for `dramatis projections accept {name}`"
            ),
            Successor::After(job) => {
                format!("its successor is built once {} is done, unless that is cancelled", job.collection)
            }
            Successor::Held | Successor::Due => {
                format!("`dramatis projections rebuild {name}` builds its successor")
            }
        }
    }
}
