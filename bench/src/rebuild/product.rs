//! The product's own path, and what is the same for every store.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use dramatis::log::EventLog;
use dramatis::projector::{self, JobProgress, JobState, Order, Projector, Purpose};
use dramatis::read_models::ReadModels;

use super::Options;
use crate::memory;

/// The read model in which every message is a document.
const TIMELINE: &str = "timeline";
/// The read model in which many events make one.
pub(super) const MANY: &str = "statistics";
/// Documents of one write of the limit.
pub(super) const BULK: usize = 10_000;
/// How long one rebuild may take.
const DONE_WITHIN: Duration = Duration::from_mins(30);

/// What one store gave in every round.
#[derive(Debug, Default)]
pub(super) struct Measured {
    pub(super) documents: u64,
    pub(super) built: Vec<f64>,
    pub(super) proven: Vec<f64>,
    pub(super) events: Vec<f64>,
    /// The same, of the first and of the last tenth of the events.
    pub(super) first_tenth: Vec<f64>,
    pub(super) last_tenth: Vec<f64>,
    /// The most memory that this process had, MiB.
    pub(super) memory: Vec<f64>,
    pub(super) sorted: Vec<f64>,
    pub(super) unsorted: Vec<f64>,
    pub(super) many: Vec<f64>,
    pub(super) many_documents: u64,
}

/// The order in which the limit writes documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sorted {
    /// By their keys.
    ByKey,
    /// By the events that changed them last.
    AsInTheLog,
}

/// The limit: a store without the product, that has the documents of a build in memory.
pub(super) trait BulkWrite {
    /// Writes them all into an empty collection with the indexes of the build; how long that
    /// took, without what is done before and after.
    async fn write(&mut self, sorted: Sorted) -> anyhow::Result<Duration>;
}

/// Builds both read models, and then, round by round, rebuilds them and has the limit write the
/// same documents. `limit` is given the collection of the timeline's live build.
pub(super) async fn measure<B: BulkWrite>(
    options: &Options,
    log: &Arc<dyn EventLog>,
    store: Arc<dyn ReadModels>,
    limit: impl AsyncFnOnce(String) -> anyhow::Result<B>,
) -> anyhow::Result<Measured> {
    let projections = [TIMELINE, MANY].map(dramatis_projections::named);
    let projections: Vec<_> = projections.into_iter().flatten().collect();
    let settings = projector::Options::default();
    let projector = Projector::start_some(&projections, log.clone(), store.clone(), settings);
    if let Some(head) = *log.head().borrow() {
        for projection in &projections {
            projector.wait_for(projection.name(), head, DONE_WITHIN).await?;
        }
    }
    let live = store.alias(TIMELINE).await?.context("the timeline has no live build")?;
    let mut limit = if options.without_limits { None } else { Some(limit(live).await?) };
    let mut measured = Measured::default();
    for round in 0..options.common.rounds {
        let made = rebuild(&projector, &*store, TIMELINE).await?;
        measured.documents = made.documents;
        measured.built.push(made.documents_in(made.built));
        measured.proven.push(made.documents_in(made.proven));
        measured.events.push(made.events_a_second());
        measured.first_tenth.push(made.events_a_second_between(0, 1));
        measured.last_tenth.push(made.events_a_second_between(9, 10));
        measured.memory.push(memory::kib("self", "VmHWM")? / 1_024.0);
        if let Some(limit) = &mut limit {
            measured.sorted.push(made.documents_in(limit.write(Sorted::ByKey).await?));
            measured.unsorted.push(made.documents_in(limit.write(Sorted::AsInTheLog).await?));
        }
        let many = rebuild(&projector, &*store, MANY).await?;
        measured.many_documents = many.documents;
        measured.many.push(many.events_a_second());
        eprintln!("rebuild: round {} of {}", round + 1, options.common.rounds);
    }
    projector.stop().await;
    Ok(measured)
}

/// How one rebuild went.
struct Made {
    documents: u64,
    events: u64,
    /// Until all documents were written.
    built: Duration,
    /// Until they were compared, too.
    proven: Duration,
    /// How many events were folded when, while it was built.
    folded: Vec<(u64, Duration)>,
}

impl Made {
    fn documents_in(&self, took: Duration) -> f64 {
        rate(self.documents, took)
    }

    fn events_a_second(&self) -> f64 {
        rate(self.events, self.built)
    }

    /// Between so many tenths of the events.
    fn events_a_second_between(&self, from: u64, to: u64) -> f64 {
        let at = |tenths: u64| {
            let reached = self.folded.iter().find(|(events, _)| *events >= self.events * tenths / 10);
            reached.copied().unwrap_or((self.events, self.built))
        };
        let ((before, began), (after, ended)) = (at(from), at(to));
        rate(after.saturating_sub(before), ended.saturating_sub(began))
    }
}

fn rate(count: u64, took: Duration) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / took.as_secs_f64()
}

/// Has a build made beside the live one and proven. It is dropped then, which is not measured.
async fn rebuild(projector: &Projector, store: &dyn ReadModels, name: &str) -> anyhow::Result<Made> {
    let mut progress = projector.watch_job(name).context("there is no such projection")?;
    let started = Instant::now();
    let order = Order { purpose: Purpose::Verify, accept: false, events_per_s_max: None };
    let job = projector.order(name, order).await?;
    let state = |progress: &Option<JobProgress>| {
        progress
            .as_ref()
            .map(|progress| &progress.job)
            .filter(|noted| noted.collection == job.collection)
            .cloned()
    };
    let (mut built, ended) = (None, started + DONE_WITHIN);
    let mut folded = vec![(0, Duration::ZERO)];
    let done = loop {
        let noted = state(&progress.borrow_and_update());
        folded.extend(noted.as_ref().map(|noted| (noted.events, started.elapsed())));
        match noted.as_ref().map(|noted| noted.state) {
            None | Some(JobState::Building) => {}
            Some(JobState::Proving) => {
                built.get_or_insert_with(|| started.elapsed());
            }
            Some(JobState::Done) => break noted,
            Some(other) => bail!("the rebuild of {name} is {}", other.as_str()),
        }
        let changed = tokio::time::timeout_at(ended.into(), progress.changed()).await;
        changed.with_context(|| format!("{name} was not rebuilt within {DONE_WITHIN:?}"))??;
    };
    let proven = started.elapsed();
    let done = done.context("a job that is done")?;
    ensure!(done.difference.is_none(), "the rebuilt {name} differs from the live one: {:?}", done.difference);
    let completion = done.completion.context("a job that is done says how many documents there are")?;
    while store.builds().await?.iter().any(|build| build.collection == job.collection) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let built = built.unwrap_or(proven);
    Ok(Made { documents: completion.documents, events: done.events, built, proven, folded })
}
