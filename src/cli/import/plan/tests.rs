//! What a log's lines become.

use std::collections::HashSet;

use super::*;

/// Plans lines of one file of room `den` on 2010-03-08; each command as `by name data`.
fn planned(planner: &mut Planner, lines: &[&str]) -> (Vec<String>, Vec<Command>) {
    let mut file = FileState::new("den".into(), Some("2010-03-08".parse().unwrap()), Dial::Of24);
    let mut commands = Vec::new();
    for line in lines {
        planner.line(&mut file, &"x:1".into(), line, &mut commands).unwrap();
    }
    (commands.iter().map(shown).collect(), commands)
}

fn field(command: &Command, name: &str) -> Value {
    serde_json::from_str::<Value>(&command.frame).unwrap()[name].clone()
}

fn shown(command: &Command) -> String {
    let by = field(command, "by").as_str().unwrap_or("-").to_owned();
    format!("{by} {} {}", field(command, "name").as_str().unwrap(), field(command, "data"))
}

fn check(lines: &[&str], wanted: &[&str]) {
    let (got, _) = planned(&mut Planner::new(None), lines);
    assert_eq!(got.first().map(String::as_str), Some(r#"- open_room {"title":"den"}"#));
    assert_eq!(got[1..], *wanted);
}

#[test]
fn who_speaks_unseen_joins_first() {
    check(
        &["[12:00] <a> hi", "[12:01]  * a waves", "=== a has joined #x", "[12:02] <a>"],
        &[
            "a join {}",
            r#"a post_message {"text":"hi"}"#,
            r#"a post_message {"kind":"action","text":"waves"}"#,
            r#"a post_message {"text":""}"#,
        ],
    );
}

#[test]
fn leaving_ends_membership_and_only_members_leave() {
    check(
        &[
            "=== a has joined #x",
            "=== a has left #x [\"bye\"]",
            "=== a has left #x []",
            "=== z has left #x",
            "[12:00] <a> back",
        ],
        &["a join {}", r#"a leave {"reason":"bye"}"#, "a join {}", r#"a post_message {"text":"back"}"#],
    );
}

#[test]
fn who_is_kicked_leaves() {
    check(
        &[
            "=== a has joined #x",
            "=== a is now known as b",
            "=== b was kicked off #x by op (noise)",
            "=== z was kicked off #x by op (never seen)",
            "[12:00] <b> somebody else",
        ],
        &[
            "a join {}",
            r#"a rename_member {"display_name":"b"}"#,
            r#"a leave {"reason":"kicked by op (noise)"}"#,
            "b join {}",
            r#"b post_message {"text":"somebody else"}"#,
        ],
    );
}

#[test]
fn a_renamed_member_keeps_its_id() {
    check(
        &[
            "=== a has joined #x",
            "=== a is now known as b",
            "[12:00] <b> me",
            "=== b is now known as c",
            "[12:00] <c> still me",
            "=== c has joined #x",
            "=== c has left #x",
            "[12:00] <c> somebody else",
            "=== ghost is now known as d",
            "[12:01] <d> hi",
        ],
        &[
            "a join {}",
            r#"a rename_member {"display_name":"b"}"#,
            r#"a post_message {"text":"me"}"#,
            r#"a rename_member {"display_name":"c"}"#,
            r#"a post_message {"text":"still me"}"#,
            "a leave {}",
            "c join {}",
            r#"c post_message {"text":"somebody else"}"#,
            "d join {}",
            r#"d post_message {"text":"hi"}"#,
        ],
    );
}

#[test]
fn a_name_taken_back_and_a_name_taken_over() {
    check(
        &[
            "=== a has joined #x",
            "=== a is now known as b",
            "=== b is now known as a",
            "[12:00] <a> as before",
            "[12:00] <b> a new one",
            "=== a is now known as b",
            "[12:01] <b> taken over",
        ],
        &[
            "a join {}",
            r#"a rename_member {"display_name":"b"}"#,
            r#"a rename_member {"display_name":"a"}"#,
            r#"a post_message {"text":"as before"}"#,
            "b join {}",
            r#"b post_message {"text":"a new one"}"#,
            r#"a rename_member {"display_name":"b"}"#,
            r#"a post_message {"text":"taken over"}"#,
        ],
    );
}

#[test]
fn system_lines_of_no_consequence_send_nothing() {
    let (got, _) = planned(
        &mut Planner::new(None),
        &["=== mode/#x [+o a]  by b", "=== a sulks", "=== Topic for #x: hi"],
    );
    assert!(got.is_empty(), "{got:?}");
}

#[test]
fn ids_are_unique_and_come_again() {
    let lines =
        ["[12:00] <a> hi", "[12:00] <a> hi", "=== b has joined #x", "[12:00] <b> hi", "[12:00] <c> hi"];
    let (_, first) = planned(&mut Planner::new(None), &lines);
    let (_, second) = planned(&mut Planner::new(None), &lines);
    assert_eq!(first, second);
    let ids: HashSet<_> = first.iter().map(|command| command.id.clone()).collect();
    assert_eq!(ids.len(), first.len());
    assert!(ids.iter().all(|id| id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit())));
}

#[test]
fn equal_lines_count_over_files_of_one_room_and_membership_goes_on() {
    let mut planner = Planner::new(None);
    let (_, first) = planned(&mut planner, &["[12:00] <a> hi"]);
    let (got, second) = planned(&mut planner, &["[12:00] <a> hi"]);
    assert_eq!(got, [r#"a post_message {"text":"hi"}"#]);
    assert_ne!(first[2].id, second[0].id);
}

#[test]
fn the_day_advances_after_midnight_and_system_lines_take_the_last_time() {
    let lines = ["=== a has joined #x", "[23:59] <a> late", "=== b has joined #x", "[00:01] <a> early"];
    let (_, commands) = planned(&mut Planner::new(None), &lines);
    let minutes: Vec<i64> = commands[1..]
        .iter()
        .map(|c| (field(c, "occurred_at").as_i64().unwrap() - 1_268_006_400_000) / 60_000)
        .collect();
    assert_eq!(minutes, [0, 1_439, 1_439, 1_441]);
    let (_, commands) = planned(&mut Planner::new(None), &["[12:10] <a> x", "[12:05] <a> the clock was set"]);
    assert_eq!(field(&commands[3], "occurred_at").as_i64(), Some(1_268_006_400_000 + 725 * 60_000));
}

/// The minutes of what is said at these times, and what is said about the times.
fn minutes(dial: Dial, clocks: &[&str]) -> (Vec<i64>, Vec<String>) {
    let mut file = FileState::new("den".into(), Some("2010-03-08".parse().unwrap()), dial);
    let (mut planner, mut minutes, mut warnings) = (Planner::new(None), Vec::new(), Vec::new());
    for clock in clocks {
        let mut commands = Vec::new();
        planner.line(&mut file, &"x:1".into(), &format!("[{clock}] <a> hi"), &mut commands).unwrap();
        let at_ms = field(commands.last().unwrap(), "occurred_at").as_i64().unwrap();
        minutes.push((at_ms - 1_268_006_400_000) / 60_000);
        warnings.extend(file.take_warning());
    }
    (minutes, warnings)
}

#[test]
fn a_clock_of_twelve_hours_goes_round_twice_a_day() {
    let clocks = ["11:00", "12:59", "01:00", "11:59", "12:00", "12:59", "01:00"];
    let (got, warnings) = minutes(Dial::Of12, &clocks);
    assert_eq!(got, [660, 779, 780, 1_439, 1_440, 1_499, 1_500]);
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("runs back from 12:59 to 01:00, and never shows 13:00"), "{warnings:?}");
}

#[test]
fn a_clock_that_runs_back_within_a_day_is_told() {
    let (got, warnings) =
        minutes(Dial::Of24, &["10:00", "09:00", "02:00", "14:10", "02:10", "02:09", "02:00"]);
    assert_eq!(got, [600, 540, 120, 850, 130, 129, 120], "as they are");
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    for (warning, wanted) in warnings.iter().zip(["from 09:00 to 02:00, which", "from 14:10 to 02:10, which"])
    {
        assert!(warning.contains(wanted), "{warning}");
    }
}

#[test]
fn the_second_form_names_room_and_date_unless_a_room_is_given() {
    let line = "#ubuntu 2010-03-08 [01:00:00] <a> hi";
    for (given, wanted) in [(None, "#ubuntu"), (Some("lobby".to_owned()), "lobby")] {
        let (mut commands, mut file) = (Vec::new(), FileState::new("stem".into(), None, Dial::Of24));
        Planner::new(given).line(&mut file, &"x:1".into(), line, &mut commands).unwrap();
        assert!(commands.iter().all(|command| &*command.room == wanted));
        assert_eq!(field(&commands[2], "occurred_at").as_i64(), Some(1_268_006_400_000 + 3_600_000));
    }
}

#[test]
fn what_the_server_cannot_take_is_said() {
    let mut commands = Vec::new();
    let mut file = FileState::new("den".into(), None, Dial::Of24);
    let mut planner = Planner::new(None);
    let mut refused = |line: &str, file: &mut FileState| {
        planner.line(file, &"x:1".into(), line, &mut commands).unwrap_err()
    };
    let Problem::Refused(Counted::Message, reason) = refused("[12:00] <é> hi", &mut file) else { panic!() };
    assert!(reason.starts_with("a user id must be"), "{reason}");
    let Problem::Unparsed(reason) = refused("hello", &mut file) else { panic!() };
    assert!(reason.contains("got \"hello\""), "{reason}");
    let Problem::Refused(_, reason) =
        refused("[12:00] <a> hi", &mut FileState::new("my room".into(), None, Dial::Of24))
    else {
        panic!()
    };
    assert!(reason.contains("--room"), "{reason}");
}

#[test]
fn the_first_date_of_a_name_counts() {
    assert_eq!(date_in("2004-11-15_03.raw.txt"), "2004-11-15".parse().ok());
    assert_eq!(date_in("log-é-2004-13-15-2005-01-02"), "2005-01-02".parse().ok());
    assert_eq!(date_in("lobby.txt"), None);
}
