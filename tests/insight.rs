//! Activity and statistics: counted again from the events themselves, they are the same.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use support::Server;
use support::imports::{caught_up, chat_log, file, imported};

const HOUR_MS: i64 = 3_600_000;

fn lived_in() -> (tempfile::TempDir, Server) {
    let (data, logs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start(data.path());
    let log = file(logs.path(), "2010-03-08.txt", chat_log(2_000, 9));
    imported(&server, &[log], &["--room", "den"]);
    let mut bob = server.client("bob", &json!([]));
    bob.ask("den", "join", &json!({}));
    let posted = bob.ask("den", "post_message", &json!({"text": "héllo"}));
    let target = &posted["revision"];
    bob.ask("den", "post_message", &json!({"text": "myself", "reply_to": target}));
    bob.ask("den", "edit_message", &json!({"target": target, "text": "hello"}));
    bob.ask("den", "add_reaction", &json!({"target": target, "emoji": "👍"}));
    bob.ask("den", "redact_message", &json!({"target": target}));
    bob.ask("den", "leave", &json!({}));
    caught_up(&server);
    (data, server)
}

fn at(event: &Value) -> i64 {
    event["occurred_at"].as_i64().or(event["recorded_at"].as_i64()).unwrap()
}

#[test]
fn hours_count_what_the_events_say() {
    let (_data, server) = lived_in();
    let events = server.events(&["--room", "den"]);
    let mut want: BTreeMap<i64, BTreeMap<&str, u64>> = BTreeMap::new();
    for event in &events {
        let counter = match event["name"].as_str().unwrap() {
            "MessagePosted" => "messages",
            "MessageEdited" => "edits",
            "MessageRedacted" => "redactions",
            "ReactionAdded" => "reactions",
            "MemberJoined" => "joins",
            "MemberLeft" => "leaves",
            _ => continue,
        };
        let hour = want.entry(at(event).div_euclid(HOUR_MS) * HOUR_MS).or_default();
        *hour.entry(counter).or_default() += 1;
        if event["name"] == "MessagePosted" {
            let characters = event["data"]["text"].as_str().unwrap().chars().count();
            *hour.entry("characters").or_default() += u64::try_from(characters).unwrap();
        }
    }
    assert!(want.len() > 20, "{} hours", want.len());

    let page = server.get_json("/api/rooms/den/statistics?limit=500");
    assert_eq!(page["more"], false);
    let hours = page["hours"].as_array().unwrap();
    let times: Vec<_> = hours.iter().map(|hour| hour["hour"].as_i64().unwrap()).collect();
    assert_eq!(times, want.keys().copied().collect::<Vec<_>>());
    for hour in hours {
        for counter in ["messages", "edits", "redactions", "reactions", "joins", "leaves", "characters"] {
            let want = want[&hour["hour"].as_i64().unwrap()].get(counter).copied().unwrap_or(0);
            assert_eq!(hour[counter], want, "{counter} of {hour}");
        }
        let by = hour["by"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum::<u64>();
        assert_eq!(hour["messages"], by);
    }

    // Bounds take the hours in which they lie.
    let (from, to) = (times[3] + 5, times[6] + HOUR_MS - 1);
    let page = server.get_json(&format!("/api/rooms/den/statistics?from={from}&to={to}"));
    let some: Vec<_> =
        page["hours"].as_array().unwrap().iter().map(|hour| hour["hour"].as_i64().unwrap()).collect();
    assert_eq!((some.as_slice(), &page["more"]), (&times[3..=6], &json!(false)));
    let page = server.get_json(&format!("/api/rooms/den/statistics?from={from}&limit=2"));
    assert_eq!((page["hours"].as_array().unwrap().len(), &page["more"]), (2, &json!(true)));
    let as_people_write = |ms: i64| jiff::Timestamp::from_millisecond(ms).unwrap();
    let bounds = format!("from={}&to={}", as_people_write(from), as_people_write(to));
    assert_eq!(
        server.get_json(&format!("/api/rooms/den/statistics?{bounds}"))["hours"].as_array().unwrap().len(),
        4
    );
    for parameter in ["from", "to"] {
        let path = format!("/api/rooms/den/statistics?{parameter}=x");
        let (status, said) = server.get(&path);
        assert!(status == 400 && said.contains(&format!("{parameter}: expected a time such as")), "{said}");
    }
    // Beyond every calendar there is nothing before or after.
    for (bounds, hours) in [
        (format!("from={}", i64::MAX), 0),
        (format!("to={}", i64::MIN), 0),
        (format!("from={}&to={}", i64::MIN, i64::MAX), times.len()),
    ] {
        let page = server.get_json(&format!("/api/rooms/den/statistics?limit=500&{bounds}"));
        assert_eq!(page["hours"].as_array().unwrap().len(), hours, "{bounds}");
    }
}

#[test]
fn activity_counts_what_each_member_did() {
    let (_data, server) = lived_in();
    let events = server.events(&["--room", "den"]);
    let mut messages: BTreeMap<&str, u64> = BTreeMap::new();
    let mut active: BTreeSet<&str> = BTreeSet::new();
    for event in &events {
        match event["name"].as_str().unwrap() {
            "MessagePosted" => {
                *messages.entry(event["by"].as_str().unwrap()).or_default() += 1;
                active.insert(event["by"].as_str().unwrap());
            }
            "MemberJoined" => {
                active.insert(event["data"]["member"].as_str().unwrap());
            }
            _ => {}
        }
    }
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let page = server.get_json(&format!("/api/rooms/den/activity?limit=7{after}"));
        all.extend(page["activity"].as_array().unwrap().clone());
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    let shown: BTreeSet<_> = all.iter().map(|one| one["member"].as_str().unwrap()).collect();
    assert_eq!((shown.len(), &shown), (all.len(), &active), "each once");
    assert!(all.is_sorted_by_key(|one| std::cmp::Reverse(one["last_at"].as_i64())), "latest first");
    for one in &all {
        let want = messages.get(one["member"].as_str().unwrap()).copied().unwrap_or(0);
        assert_eq!(one["messages"], want, "{one}");
    }

    let of_bob = server.get_json("/api/users/bob/activity");
    let [bob] = of_bob["activity"].as_array().unwrap().as_slice() else { panic!("one room: {of_bob}") };
    assert_eq!(
        (&bob["room"], &bob["messages"], &bob["replies"], &bob["edits"], &bob["reactions"], &bob["joins"]),
        (&json!("den"), &json!(2), &json!(1), &json!(1), &json!(1), &json!(1))
    );
    let (status, _) = server.get("/api/rooms/den/activity?after=elsewhere");
    assert_eq!(status, 400);
}
