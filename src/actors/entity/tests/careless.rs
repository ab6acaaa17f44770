//! A decider that breaks its promise does not break its entity: what was not recorded is not
//! in the state either, nor in a snapshot of it.

use dramatis_events::room::{MemberJoined, RoomEvent};

use super::*;
use crate::domain::room::{RoomRejection, RoomState};
use crate::domain::{Context as Asked, IllegalEvent};
use crate::snapshots::memory::MemorySnapshots;

/// A room whose members join twice.
struct Careless;

impl Decider for Careless {
    const NAME: &'static str = "careless";
    const STATE_VERSION: u32 = 1;

    type Command = RoomCommand;
    type Event = RoomEvent;
    type State = RoomState;
    type Limits = RoomLimits;
    type Rejection = RoomRejection;

    fn target(_: &RoomCommand) -> Option<Revision> {
        None
    }

    fn decide(
        state: &RoomState,
        asked: &Asked<'_, Self>,
        command: &RoomCommand,
    ) -> Result<Vec<RoomEvent>, RoomRejection> {
        let asked = Asked { author: asked.author, target: None, limits: asked.limits };
        let events = Room::decide(state, &asked, command)?;
        let twice = |event: RoomEvent| match event {
            RoomEvent::MemberJoined(MemberJoined { .. }) if state.exists() => vec![event.clone(), event],
            event => vec![event],
        };
        Ok(events.into_iter().flat_map(twice).collect())
    }

    fn evolve(state: &mut RoomState, event: &RoomEvent) -> Result<(), IllegalEvent> {
        Room::evolve(state, event)
    }
}

#[test]
fn a_state_that_is_not_what_was_recorded_is_read_again() {
    System::new().block_on(async {
        let log = Arc::new(MemoryLog::new(Arc::new(SystemClock)));
        let snapshots: Arc<MemorySnapshots> = Arc::default();
        let metrics = Metrics::default().entity();
        let around = Surroundings {
            log: log.clone(),
            snapshots: snapshots.clone(),
            snapshot_every_events: 1,
            limits: RoomLimits::default(),
            metrics: metrics.clone(),
        };
        let options = EntityOptions { pending_max: 16, idle_timeout: Duration::from_mins(1) };
        let rooms = Registry::<Careless>::new(around, options, Vec::new());
        let lobby = room("lobby");
        let mut answers = Vec::new();
        let (mut pending, join) = (Vec::new(), || crate::domain::room::Join { display_name: None });
        for (author, id, command) in [
            ("alice", "open", open_room()),
            ("bob", "join", join().into()),
            ("alice", "rename", crate::domain::room::RenameRoom { title: "Agora".to_owned() }.into()),
            ("bob", "leave", crate::domain::room::Leave { reason: None }.into()),
        ] {
            let (caller, answer) = oneshot::channel();
            let request = Request {
                id: CommandId::parse(id).unwrap(),
                hash: RoomCommand::content_hash(&command, &lobby),
                author: MemberId::parse(author).unwrap(),
                occurred_at: None,
                expected: None,
                cause: None,
                command,
            };
            pending.push(Pending { request, reply: ReplyTo::Caller(caller) });
            answers.push(answer);
        }
        assert!(rooms.submit(&lobby, pending).is_ok(), "all in one batch");
        let mut codes = Vec::new();
        for answer in answers {
            let outcome = answer.await.unwrap().outcome;
            codes.push(outcome.map(|_| ()).map_err(|refused| refused.code));
        }
        let never_joined = Err(ErrorCode::NotAMember);
        assert_eq!(codes, [Ok(()), Err(ErrorCode::Internal), Ok(()), never_joined]);
        let kept = snapshots.load(&key::<Careless>(&lobby, log.epoch())).await.unwrap();
        let kept: RoomState = serde_json::from_slice(&kept.state).unwrap();
        assert_eq!((kept.title(), kept.members().count()), (Some("Agora"), 1));
        assert_eq!(metrics.loaded_from_snapshot.get() + metrics.loaded_from_start.get(), 2);
    });
}
