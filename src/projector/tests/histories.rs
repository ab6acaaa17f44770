//! Any history, in any batches, with crashes between any two steps, folds to the same documents.

use proptest::prelude::*;

use dramatis_projections::{DeadLetter, Digest, Fold, Write};

use super::*;
use crate::read_models::{Batch, Checkpoint, NewBuild, ReadModelError};

/// One event of a random history: legal and illegal ones alike.
fn any_line() -> impl Strategy<Value = (usize, usize, usize, u64)> {
    (0..2_usize, 0..3_usize, 0..=RoomEvent::NAMES.len(), 0..12_u64)
}

fn tell(log: &ScriptedLog, (room, by, name, target): (usize, usize, usize, u64)) {
    let (room, by) = (["a", "b"][room], ["alice", "bob", "persona:socrates"][by]);
    let Some((name, _)) = RoomEvent::NAMES.get(name) else {
        // One that nobody can read.
        return log.push(room, by, EventName::parse("MessagePosted").unwrap(), r#"{"no":"text"}"#);
    };
    let data = match *name {
        "RoomOpened" => format!(r#"{{"title":"t","owner":"{by}"}}"#),
        "RoomRenamed" => format!(r#"{{"title":"t{target}"}}"#),
        "RoomClosed" => "{}".to_owned(),
        "MemberJoined" | "MemberRenamed" => format!(r#"{{"member":"{by}","display_name":"n{target}"}}"#),
        "MemberLeft" => format!(r#"{{"member":"{by}"}}"#),
        "MessagePosted" => format!(r#"{{"kind":"text","text":"m{target}"}}"#),
        "MessageEdited" => format!(r#"{{"target":{target},"text":"e{target}"}}"#),
        "MessageRedacted" => format!(r#"{{"target":{target}}}"#),
        _ => format!(r#"{{"target":{target},"emoji":"x"}}"#),
    };
    log.push(room, by, EventName::parse(name).unwrap(), &data);
}

/// What a build comes to.
type Outcome = (Vec<(String, String)>, String, Vec<DeadLetter>);

fn outcome(documents: Vec<(String, String)>, parked: Vec<DeadLetter>) -> Outcome {
    let mut digest = Digest::default();
    for (key, body) in &documents {
        digest.add(key, body.as_bytes());
    }
    (documents, digest.to_string(), parked)
}

/// Folds the whole history at once, without a store.
fn pure(projection: &dyn DynProjection, events: &[Arc<Recorded>]) -> Outcome {
    let mut fold = projection.start(usize::MAX);
    fold.begin(events);
    let folded = fold.finish().unwrap();
    let documents = folded.writes.into_iter().filter_map(|write| Some((write.key, write.body?)));
    outcome(documents.collect(), folded.parked)
}

/// How one batch goes: how long it is, how far before the end of the last one it begins, and
/// how much of what it writes is written before the process dies, if it does.
#[derive(Debug, Clone, Copy)]
struct Cut {
    length: usize,
    back: usize,
    dies: Option<Death>,
}

/// Where a process dies.
#[derive(Debug, Clone, Copy)]
enum Death {
    /// After some documents of a batch, perhaps its dead letters, and not its checkpoint.
    InDocuments { written: usize, from: usize, letters: bool },
    /// After all documents, before dead letters and checkpoint.
    AfterDocuments,
    /// After documents and dead letters, before the checkpoint.
    BeforeCheckpoint,
    /// After the checkpoint.
    AfterCheckpoint,
}

fn any_cut() -> impl Strategy<Value = Cut> {
    let death = prop_oneof![
        (0..6_usize, 0..6_usize, any::<bool>()).prop_map(|(written, from, letters)| Death::InDocuments {
            written,
            from,
            letters
        }),
        Just(Death::AfterDocuments),
        Just(Death::BeforeCheckpoint),
        Just(Death::AfterCheckpoint),
    ];
    (0..12_usize, 0..9_usize, prop::option::of(death)).prop_map(|(length, back, dies)| Cut {
        length,
        back,
        dies,
    })
}

struct Torn<'a> {
    projection: &'static dyn DynProjection,
    store: &'a dyn ReadModels,
    collection: String,
    fold: Box<dyn Fold>,
}

impl Torn<'_> {
    /// A process that knows only what the store holds; answers where its checkpoint is.
    async fn start(&mut self) -> Option<Position> {
        self.fold = self.projection.start(3);
        self.fold.park(&self.store.dead_letters(&self.collection).await.unwrap());
        let builds = self.store.builds().await.unwrap();
        let build = builds.into_iter().find(|build| build.collection == self.collection);
        let position = build.unwrap().checkpoint.position;
        if position.is_none() {
            self.fold.start_empty();
        }
        position
    }

    async fn write(&self, writes: Vec<Write>, parked: Vec<DeadLetter>, position: Option<Position>) {
        let batch = Batch { writes, parked, checkpoint: Checkpoint { epoch: EPOCH, position }, after: None };
        self.store.write(&self.collection, batch.into()).await.unwrap();
    }

    /// Folds a batch; tells whether the process died of it.
    async fn step(&mut self, events: &[Arc<Recorded>], until: Option<Position>, dies: Option<Death>) -> bool {
        let missing = self.fold.begin(events);
        self.fold.load(self.store.load(&self.collection, missing).await.unwrap()).unwrap();
        let folded = self.fold.finish().unwrap();
        let (writes, parked) = (folded.writes, folded.parked);
        match dies {
            Some(Death::InDocuments { written, from, letters }) => {
                // A bulk write is applied in any order.
                let some = writes.into_iter().skip(from).take(written).collect();
                self.write(some, if letters { parked } else { Vec::new() }, None).await;
            }
            Some(Death::AfterDocuments) => self.write(writes, Vec::new(), None).await,
            Some(Death::BeforeCheckpoint) => self.write(writes, parked, None).await,
            Some(Death::AfterCheckpoint) | None => {
                self.write(writes.clone(), parked.clone(), until).await;
                // Whoever does not know that it was applied makes it again.
                self.write(writes, parked, until).await;
            }
        }
        dies.is_some()
    }
}

/// Reads ahead and writes behind, and is lost after so many steps, with what is on its way.
async fn overlapped(projection: &'static dyn DynProjection, shared: &Shared, losses: &[usize]) -> Outcome {
    let collection = format!("{}@2", projection.name());
    let mut run = run::Run::create(shared, projection, collection.clone()).await.unwrap();
    for steps in losses {
        run.overlap(Some(usize::MAX));
        for _ in 0..*steps {
            run.step().await.unwrap();
        }
        let builds = shared.store.builds().await.unwrap();
        let build = builds.into_iter().find(|build| build.collection == collection).unwrap();
        run = run::Run::open(shared, projection, collection.clone(), build.checkpoint).await.unwrap();
    }
    run.overlap(Some(usize::MAX));
    while run.step().await.unwrap() {}
    assert_eq!(run.position, *shared.log.head().borrow());
    stored(shared.store.as_ref(), &collection).await
}

async fn stored(store: &dyn ReadModels, collection: &str) -> Outcome {
    let documents = store.scan(collection, None, 1_000).await.unwrap();
    let documents = documents.into_iter().map(|document| (document.key, document.body)).collect();
    outcome(documents, store.dead_letters(collection).await.unwrap())
}

async fn torn(
    projection: &'static dyn DynProjection,
    store: &dyn ReadModels,
    events: &[Arc<Recorded>],
    cuts: &[Cut],
) -> Result<Outcome, ReadModelError> {
    let collection = format!("{}@1", projection.name());
    let build = NewBuild {
        collection: collection.clone(),
        projection: projection.name().into(),
        version: 1,
        epoch: EPOCH,
        indexes: projection.indexes(),
        text: projection.text(),
    };
    store.create(build).await?;
    let mut torn = Torn { projection, store, collection, fold: projection.start(3) };
    let after =
        |position: Option<Position>| events.iter().filter(|event| Some(event.position) <= position).count();
    torn.start().await;
    let mut end = 0;
    let last = Cut { length: events.len(), back: 0, dies: None };
    for Cut { length, back, dies } in cuts.iter().copied().chain([last]) {
        let start = end - back.min(end);
        let until = (start + length).min(events.len());
        end = end.max(until);
        let position = until.checked_sub(1).map(|last| events[last].position);
        if torn.step(&events[start..until], position, dies).await {
            end = after(torn.start().await);
        }
    }
    Ok(stored(store, &torn.collection).await)
}

/// A server takes longer for a step than a file does.
fn cases() -> u32 {
    let long = std::env::var("DRAMATIS_TEST_TIER").is_ok_and(|tier| tier != "default");
    if on_mongodb() && !long { 12 } else { 64 }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn any_batches_and_crashes_of_any_history_give_the_same_documents(
        mut lines in prop::collection::vec(any_line(), 0..60),
        opened in any::<bool>(),
        cuts in prop::collection::vec(any_cut(), 0..12),
        losses in prop::collection::vec(0..8_usize, 0..4),
        page in 1..9_usize,
    ) {
        if opened {
            lines.insert(0, (0, 0, 0, 0));
        }
        let log = ScriptedLog::new(EPOCH);
        for line in lines {
            tell(&log, line);
        }
        let events = log.all();
        let folder = Place::new();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let store = store(&folder);
        let _inside = runtime.enter();
        let shared = shared(&log, &store, page);
        for projection in dramatis_projections::all().iter().copied() {
            let expected = pure(projection, &events);
            match runtime.block_on(torn(projection, store.as_ref(), &events, &cuts)) {
                Ok(got) => prop_assert_eq!(&got, &expected, "{}", projection.name()),
                // What a server cannot keep it says at once.
                Err(error) => {
                    prop_assert!(matches!(error, ReadModelError::Unsupported { .. }), "{error}");
                    continue;
                }
            }
            let got = runtime.block_on(overlapped(projection, &shared, &losses));
            prop_assert_eq!(&got, &expected, "{} overlapped", projection.name());
        }
    }
}
