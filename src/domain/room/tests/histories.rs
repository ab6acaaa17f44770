//! What holds for every history that the rules let happen.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const AUTHORS: &[&str] = &[OWNER, MEMBER, STRANGER, "persona:zeno", "integration:irc"];

/// Commands that are often acceptable and sometimes not.
fn any_command() -> impl Strategy<Value = RoomCommand> {
    let name = || prop_oneof![Just("Moe".to_owned()), Just("Sam".to_owned()), Just(" ".to_owned())];
    let text = || prop_oneof![4 => "[a-c]{1,4}", 1 => "\\PC{0,12}"];
    let target = || (0..40_u64).prop_map(Revision::new);
    let reason = || proptest::option::of("[a-z]{0,6}");
    let kind = || prop_oneof![Just(MessageKind::Text), Just(MessageKind::Action)];
    let visibility = || prop_oneof![Just(Visibility::Open), Just(Visibility::Invited)];
    let member = || proptest::sample::select(AUTHORS).prop_map(id);
    prop_oneof![
        3 => (name(), visibility()).prop_map(|(title, visibility)| OpenRoom { title, visibility }.into()),
        2 => visibility().prop_map(|visibility| SetVisibility { visibility }.into()),
        3 => member().prop_map(|member| InviteMember { member }.into()),
        1 => reason().prop_map(|reason| DeclineInvitation { reason }.into()),
        1 => member().prop_map(|member| WithdrawInvitation { member }.into()),
        2 => name().prop_map(|title| RenameRoom { title }.into()),
        1 => (reason(), 0..8).prop_filter_map("closing is rare", |(reason, n)| (n == 0).then(|| CloseRoom { reason }.into())),
        6 => proptest::option::of(name()).prop_map(|display_name| Join { display_name }.into()),
        2 => reason().prop_map(|reason| Leave { reason }.into()),
        2 => (member(), reason()).prop_map(|(member, reason)| RemoveMember { member, reason }.into()),
        2 => name().prop_map(|display_name| RenameMember { display_name }.into()),
        9 => (text(), kind(), proptest::option::of(target()))
            .prop_map(|(text, kind, reply_to)| PostMessage { text, kind, reply_to }.into()),
        3 => (target(), text()).prop_map(|(target, text)| EditMessage { target, text }.into()),
        3 => (target(), reason()).prop_map(|(target, reason)| RedactMessage { target, reason }.into()),
        3 => (target(), text()).prop_map(|(target, emoji)| AddReaction { target, emoji }.into()),
        3 => (target(), text()).prop_map(|(target, emoji)| RemoveReaction { target, emoji }.into()),
    ]
}

fn any_script() -> impl Strategy<Value = Vec<(MemberId, RoomCommand)>> {
    vec((proptest::sample::select(AUTHORS).prop_map(id), any_command()), 0..120)
}

/// Runs the commands one upon the other; whoever did an event is kept beside it.
fn run(script: &[(MemberId, RoomCommand)]) -> (RoomState, Vec<(MemberId, RoomEvent)>) {
    let (mut state, mut history) = (RoomState::default(), Vec::<(MemberId, RoomEvent)>::new());
    for (author, command) in script {
        let target = Room::target(command).and_then(|revision| {
            let (author, event) = history.get(usize::try_from(revision.get()).unwrap())?.clone();
            Some(Target { revision, author, event })
        });
        let context = Context::<Room> { author, target: target.as_ref(), limits: &limits() };
        for event in Room::decide(&state, &context, command).unwrap_or_default() {
            Room::evolve(&mut state, &event).unwrap();
            history.push((author.clone(), event));
        }
    }
    (state, history)
}

proptest! {
    #[test]
    fn replay_from_stored_bytes_equals_live(script in any_script()) {
        let (live, history) = run(&script);
        let mut replayed = RoomState::default();
        for (_, event) in &history {
            let stored = event.encode().unwrap();
            let event = RoomEvent::decode(event.name(), event.version(), &stored).unwrap();
            Room::evolve(&mut replayed, &event).unwrap();
        }
        prop_assert_eq!(replayed, live);
    }

    #[test]
    fn a_snapshot_anywhere_and_what_came_after_it_give_the_same_state(script in any_script()) {
        let (live, history) = run(&script);
        let mut state = RoomState::default();
        for at in 0..=history.len() {
            let snapshot = serde_json::to_vec(&state).unwrap();
            let mut opened: RoomState = serde_json::from_slice(&snapshot).unwrap();
            prop_assert_eq!(&opened, &state);
            for (_, event) in &history[at..] {
                Room::evolve(&mut opened, event).unwrap();
            }
            prop_assert_eq!(&opened, &live, "from a snapshot of the first {} events", at);
            if let Some((_, event)) = history.get(at) {
                Room::evolve(&mut state, event).unwrap();
            }
        }
    }

    #[test]
    fn recorded_history_keeps_the_rules(script in any_script()) {
        let (state, history) = run(&script);
        prop_assert!(state.members().count() <= limits().members_max);
        let message = |target: Revision| match history.get(usize::try_from(target.get()).unwrap()) {
            Some((author, RoomEvent::MessagePosted(posted))) => Ok((author, posted)),
            other => Err(TestCaseError::fail(format!("revision {target} is {other:?}"))),
        };
        for (author, event) in &history {
            match event {
                RoomEvent::MessagePosted(posted) => {
                    prop_assert_eq!(posted.reply_to.is_some(), posted.thread_root.is_some());
                    if let Some(root) = posted.thread_root {
                        prop_assert_eq!(message(root)?.1.thread_root, None);
                    }
                }
                RoomEvent::MessageEdited(edited) => prop_assert_eq!(message(edited.target)?.0, author),
                RoomEvent::MessageRedacted(redacted) => {
                    let allowed = message(redacted.target)?.0 == author || state.owner() == Some(author);
                    prop_assert!(allowed, "{author} redacted {}", redacted.target);
                }
                RoomEvent::ReactionAdded(added) => drop(message(added.target)?),
                RoomEvent::ReactionRemoved(removed) => drop(message(removed.target)?),
                RoomEvent::RoomRenamed(_)
                | RoomEvent::RoomClosed(_)
                | RoomEvent::RoomVisibilitySet(_)
                | RoomEvent::MemberRemoved(_)
                | RoomEvent::InvitationWithdrawn(_) => {
                    prop_assert_eq!(state.owner(), Some(author));
                }
                RoomEvent::RoomOpened(_)
                | RoomEvent::MemberJoined(_)
                | RoomEvent::MemberLeft(_)
                | RoomEvent::MemberInvited(_)
                | RoomEvent::InvitationAccepted(_)
                | RoomEvent::InvitationDeclined(_)
                | RoomEvent::MemberRenamed(_) => {}
            }
        }
    }

    /// What a session keeps of a reader, event by event, is what the room's state says of them.
    #[test]
    fn reading_folded_beside_the_state_agrees_with_it(script in any_script()) {
        let (_, history) = run(&script);
        let mut state = RoomState::default();
        let mut readings: Vec<Option<Reading>> = vec![None; AUTHORS.len()];
        for (_, event) in &history {
            Room::evolve(&mut state, event).unwrap();
            for (reader, reading) in AUTHORS.iter().zip(&mut readings) {
                let now = state.reading(&id(reader));
                let folded = reading.map(|reading| reading.after(event, &id(reader)));
                if let Some(folded) = folded {
                    prop_assert_eq!(Some(folded), now, "{} after {:?}", reader, event);
                    let is_told = Reading::EVENTS.contains(&event.name());
                    prop_assert!(is_told || Some(folded) == *reading, "{:?} is not named", event);
                }
                *reading = now;
            }
        }
    }
}
