//! `reindex` and `repair`: what they do, and that they do nothing else.

use std::path::Path;
use std::sync::Arc;

use dramatis_events::{Epoch, Recorded};

use super::data::{Data, change, flip, name, text, unlocking, verify};

fn epoch(data: &Data) -> Epoch {
    data.epoch_text().parse().unwrap()
}

/// The events that come back, from a log that is then sound and goes on.
fn goes_on(data: &Data) -> Vec<Arc<Recorded>> {
    let events = data.events();
    data.grow(30, &data.options());
    assert_eq!(data.events()[..events.len()], events);
    let (verified, found) = verify(data);
    assert!(found.damage.is_empty() && found.notes.is_empty(), "{found:?}");
    assert_eq!(verified.events, u64::try_from(events.len()).unwrap() + 30);
    events
}

fn cut(data: &Data) -> Vec<Arc<Recorded>> {
    let before = epoch(data);
    data.told(&["repair", "--cut"], 0);
    let after = epoch(data);
    // By more than one: a copy may be repaired as well.
    assert!(after.log() == before.log() && after.counter() > before.counter() + 1, "{after}");
    goes_on(data)
}

#[test]
fn a_repair_changes_nothing_unless_it_is_told_to_cut() {
    let data = Data::new(90);
    let events = data.events();
    flip(&data.files("segment")[1], 48 + 56 + 40);
    let before = data.contents();
    insta::assert_snapshot!(data.told(&["repair"], 2));
    assert_eq!(data.contents(), before);

    insta::assert_snapshot!("cut", data.told(&["repair", "--cut"], 0));
    let aside = data.cut_folder();
    let moved: Vec<_> = aside.iter().filter(|path| path.extension().unwrap() == "segment").collect();
    assert_eq!(moved.len(), 3);
    for path in moved {
        let old = before.iter().find(|(old, _)| name(old) == name(path)).unwrap();
        assert_eq!(std::fs::read(path).unwrap(), old.1, "it is kept as it was");
    }
    assert_eq!(goes_on(&data), events[..24]);
    assert!(data.told(&["repair"], 0).starts_with("history reads back whole"));
}

#[test]
fn history_is_cut_wherever_it_is_damaged() {
    // In the middle of a segment, at its end, in its header, in the first one's, in the last one's.
    let places = [(1, 48 + 417 + 417 + 200, 30), (2, usize::MAX, 69), (2, 10, 48), (0, 10, 0), (3, 10, 72)];
    for (segment, at, kept) in places {
        let data = Data::new(90);
        let events = data.events();
        let path = &data.files("segment")[segment];
        let len = std::fs::read(path).unwrap().len();
        flip(path, at.min(len - 1));
        let left = cut(&data);
        assert_eq!(left, events[..kept], "segment {segment}, byte {at}");
    }
}

#[test]
fn a_missing_segment_is_cut_at() {
    let data = Data::new(90);
    let events = data.events();
    std::fs::remove_file(&data.files("segment")[1]).unwrap();
    assert_eq!(cut(&data), events[..24]);
    let data = Data::new(90);
    std::fs::remove_file(&data.files("segment")[0]).unwrap();
    assert!(cut(&data).is_empty());
}

/// The chain names a segment only once the next one is there: it proves that the open one is gone.
#[test]
fn a_lost_open_segment_is_told_and_cut_at() {
    for lost in 1..=4 {
        let data = Data::new(90);
        let (events, segments) = (data.events(), data.files("segment"));
        let first: usize = name(&segments[4 - lost]).trim_end_matches(".segment").parse().unwrap();
        segments[4 - lost..].iter().for_each(|path| std::fs::remove_file(path).unwrap());
        let told = data.told(&["verify"], 2);
        let missing = if lost == 4 { "it is missing" } else { "no segment after it is there" };
        assert!(told.contains(missing), "{lost}: {told}");
        let told = data.told(&["repair"], 2);
        let unknown = format!("lost: events from position {first} on; ");
        assert!(told.contains("no segment after it is there") && told.contains(&unknown), "{lost}: {told}");
        assert_eq!(cut(&data), events[..first], "{lost}");
    }
}

/// Bytes that are gone move the last batch to where the one before it stood.
#[test]
fn a_batch_that_is_gone_is_damage_to_every_command() {
    let data = Data::new(90);
    let events = data.events();
    let last = data.files("segment").pop().unwrap();
    let bytes = std::fs::read(&last).unwrap();
    let mut batches = vec![48];
    while let end = *batches.last().unwrap()
        && bytes[end..].starts_with(&[0xd7, 0xa3, 0xba, 0x7c])
    {
        let body = u32::from_le_bytes(bytes[end + 48..end + 52].try_into().unwrap());
        batches.push(end + 56 + usize::try_from(body).unwrap());
    }
    let gone = batches[batches.len() - 3]..batches[batches.len() - 2];
    change(&last, |bytes| drop(bytes.drain(gone.clone())));
    let told = data.told(&["verify"], 2);
    assert!(told.contains(&format!("DAMAGED  {} byte {}:", name(&last), gone.start)), "{told}");
    data.told(&["repair"], 2);
    assert_eq!(cut(&data), events[..84]);
}

/// The log's id stands in every segment: only the counter is lost, and a higher one serves.
#[test]
fn a_damaged_epoch_is_made_anew() {
    let whole = Data::new(90);
    let (events, before) = (whole.events(), epoch(&whole));
    for damage in 0..3 {
        let data = Data::empty();
        for (path, bytes) in whole.contents() {
            std::fs::write(data.log_dir().join(name(&path)), bytes).unwrap();
        }
        let file = data.log_dir().join("epoch");
        match damage {
            0 => flip(&file, 4),
            1 => std::fs::write(&file, "no epoch\n").unwrap(),
            _ => flip(&data.files("segment")[1], 48 + 417 + 200),
        }
        if damage == 2 {
            std::fs::remove_file(&file).unwrap();
        }
        let contents = data.contents();
        let told = data.run(&["repair"]);
        let said = super::data::text(&told.stdout);
        assert!(told.status.code() == Some(2) && said.contains("would begin a new epoch"), "{said}");
        assert_eq!(data.contents(), contents);
        assert_eq!(data.run(&["repair", "--cut"]).status.code(), Some(0));
        let after = epoch(&data);
        // More than any counter that rose one by one can be: seconds.
        assert!(after.log() == before.log() && after.counter() > 50_000_000, "{after}");
        assert_eq!(goes_on(&data), events[..if damage == 2 { 27 } else { 90 }]);
        assert!(data.told(&["repair"], 0).starts_with("history reads back whole"));
    }
    let data = Data::new(3);
    flip(&data.log_dir().join("epoch"), 4);
    flip(&data.files("segment")[0], 10);
    assert_eq!(data.run(&["repair", "--cut"]).status.code(), Some(1), "nothing tells the log's id");
}

#[test]
fn the_cold_tier_is_cut_too() {
    let (data, cold) = Data::with_cold_tier(90);
    let events = data.events();
    let path = &data.files("segment")[1];
    assert!(path.starts_with(cold.path()));
    flip(path, 48 + 417 + 200);
    data.told(&["repair", "--cut"], 0);
    let files = data.files("segment");
    assert_eq!(files.len(), 2);
    assert!(files[1].starts_with(data.log_dir()), "what is written to is not cold: {files:?}");
    assert_eq!(goes_on(&data), events[..27]);
}

/// Then nothing is left of the segment, and the one before it is written to.
#[test]
fn a_cut_at_a_header_in_the_cold_tier_brings_the_segment_before_it_back() {
    let (data, cold) = Data::with_cold_tier(90);
    let events = data.events();
    let segments = data.files("segment");
    assert!(segments[0].starts_with(cold.path()) && segments[1].starts_with(cold.path()));
    flip(&segments[1], 10);
    data.told(&["repair", "--cut"], 0);
    let files = data.files("segment");
    assert_eq!(files.len(), 1);
    assert!(files[0].starts_with(data.log_dir()), "what is written to is not cold: {files:?}");
    let kept = goes_on(&data);
    assert!(!kept.is_empty() && events.starts_with(&kept), "{} events", kept.len());
}

#[test]
fn a_repair_that_was_stopped_is_made_again() {
    let whole = Data::new(90);
    let events = whole.events();
    flip(&whole.files("segment")[1], 48 + 417 + 200);
    let damaged = whole.contents();
    whole.told(&["repair", "--cut"], 0);
    let (after, segments) = (whole.contents(), 4);
    let is = |path: &Path, what: &str| name(path) == what;
    for gone in 0..segments - 1 {
        // The epoch, the chain and so many segments were done.
        let data = Data::empty();
        let mut left = segments - gone;
        for (path, bytes) in &damaged {
            let bytes = match after.iter().find(|(other, _)| name(other) == name(path)) {
                Some((_, new)) if is(path, "epoch") || is(path, "chain") => new,
                _ => bytes,
            };
            let ending = path.extension().and_then(|ending| ending.to_str());
            if ending == Some("segment") {
                if left == 0 {
                    continue;
                }
                left -= 1;
            }
            if ending != Some("index") || gone == 0 {
                std::fs::write(data.log_dir().join(name(path)), bytes).unwrap();
            }
        }
        assert_eq!(cut(&data), events[..27], "after {gone} segments were gone");
    }
}

#[test]
fn what_opening_mends_needs_no_repair() {
    let data = Data::new(60);
    let last = data.files("segment").pop().unwrap();
    change(&last, |bytes| {
        let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
        bytes[end] ^= 1;
    });
    let before = data.contents();
    let told = data.told(&["repair"], 0);
    assert!(told.contains("needs no repair"), "{told}");
    assert_eq!(data.contents(), before);
    assert_eq!(data.events().len(), 57);
}

#[test]
fn bytes_behind_a_segment_are_removed_without_a_cut() {
    let data = Data::new(60);
    let events = data.events();
    let path = &data.files("segment")[0];
    change(path, |bytes| bytes.extend_from_slice(b"strange"));
    let before = epoch(&data);
    assert!(data.told(&["repair", "--cut"], 0).contains("no event is in it"));
    assert_eq!(epoch(&data), before);
    assert_eq!(goes_on(&data), events);
}

#[test]
fn what_is_derived_is_built_again() {
    let data = Data::new(90);
    let sound = data.contents();
    let remove = |name: &str| std::fs::remove_file(data.log_dir().join(name)).unwrap();
    data.files("index").iter().for_each(|path| remove(&name(path)));
    remove("chain");
    insta::assert_snapshot!(data.told(&["reindex"], 0));
    assert_eq!(data.contents(), sound, "all of it is as the server made it");
    flip(&data.files("index")[1], 100);
    data.told(&["verify"], 2);
    assert!(data.told(&["reindex"], 0).contains("1 indexes built, 0 lines"));
    assert_eq!(data.contents(), sound);
}

#[test]
fn a_chain_that_contradicts_is_only_replaced_when_that_is_accepted() {
    let data = Data::new(90);
    let chain = data.log_dir().join("chain");
    let lines = std::fs::read_to_string(&chain).unwrap();
    for at in [3, lines.lines().next().unwrap().len() + 30, lines.len() - 2] {
        std::fs::write(&chain, &lines).unwrap();
        flip(&chain, at);
        let before = data.contents();
        assert!(data.told(&["reindex"], 2).contains("DAMAGED  chain: it is broken"));
        assert_eq!(data.contents(), before);
        assert!(data.told(&["reindex", "--accept-chain"], 0).contains("accepted"));
        assert!(std::fs::read_to_string(&chain).unwrap().contains("\nanchor accepted ") || at == 3);
        let (verified, found) = verify(&data);
        assert!(found.damage.is_empty() && verified.hashes == 3, "{at}: {found:?}");
    }
    // It is accepted only where everything reads back.
    std::fs::write(&chain, "no chain").unwrap();
    flip(&data.files("segment")[0], 300);
    data.told(&["reindex", "--accept-chain"], 2);
    assert_eq!(std::fs::read_to_string(&chain).unwrap(), "no chain");
}

/// A chain whose links hold, with this done to what its lines say.
fn forged(chain: &str, forge: impl Fn(usize, &str) -> Option<String>) -> String {
    let (mut link, mut text) = ([0; 32], String::new());
    for (nth, line) in chain.lines().enumerate() {
        let Some(said) = forge(nth, line.rsplit_once(' ').unwrap().0) else { continue };
        link = *blake3::Hasher::new().update(&link).update(said.as_bytes()).finalize().as_bytes();
        for part in [said.as_str(), " ", blake3::Hash::from_bytes(link).to_hex().as_str(), "\n"] {
            text.push_str(part);
        }
    }
    text
}

#[test]
fn a_chain_that_names_other_bytes_is_told() {
    let data = Data::new(90);
    let chain = data.log_dir().join("chain");
    let lines = std::fs::read_to_string(&chain).unwrap();
    assert_eq!(forged(&lines, |_, said| Some(said.to_owned())), lines);
    let other_hash = |nth, said: &str| {
        let (before, _) = said.rsplit_once(' ').unwrap();
        Some(if nth == 1 { format!("{before} {}", blake3::hash(b"other").to_hex()) } else { said.to_owned() })
    };
    let without = |nth, said: &str| (nth != 1).then(|| said.to_owned());
    for (text, told, refused) in [
        (forged(&lines, other_hash), "its hash is not the one in the chain", true),
        (
            forged(&lines, without),
            "it names segments after 00000000000000000024.segment, but not that",
            false,
        ),
    ] {
        std::fs::write(&chain, text).unwrap();
        let (_, found) = verify(&data);
        assert_eq!(found.damage.len(), 1, "{found:?}");
        assert!(found.damage[0].reason.contains(told), "{found:?}");
        if refused {
            assert!(data.told(&["reindex"], 2).contains("does not agree with 00000000000000000024.segment"));
            data.told(&["reindex", "--accept-chain"], 0);
        } else {
            data.told(&["reindex"], 0);
        }
        assert!(verify(&data).1.damage.is_empty());
    }
}

#[test]
fn nothing_is_mended_under_a_server() {
    let data = Data::new(60);
    let log = data.open();
    for command in [["reindex"].as_slice(), &["repair"], &["repair", "--cut"]] {
        let told = data.told(command, 1);
        assert!(told.contains("the log is in use by process"), "{told}");
    }
    unlocking(|| drop(log));
    data.told(&["repair"], 0);
}

#[test]
fn what_may_not_be_read_is_not_taken_for_damage() {
    let data = Data::new(90);
    let index = name(&data.files("index")[0]);
    for (file, commands) in [
        ("epoch", &[&["verify"][..], &["repair", "--cut"], &["reindex"]][..]),
        ("chain", &[&["verify"][..], &["repair", "--cut"], &["reindex", "--accept-chain"]]),
        (index.as_str(), &[&["verify"][..], &["reindex"]]),
    ] {
        let path = data.log_dir().join(file);
        let (kept, before) = (path.with_extension("kept"), data.contents());
        std::fs::rename(&path, &kept).unwrap();
        // To open it is an error that tells nothing of its bytes, whoever runs this.
        std::os::unix::fs::symlink(file, &path).unwrap();
        for command in commands {
            let output = data.run(command);
            let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
            assert_eq!(output.status.code(), Some(1), "{file} {command:?}: {said}");
            assert!(said.contains(file) && !said.contains("DAMAGED"), "{file} {command:?}: {said}");
        }
        std::fs::rename(&kept, &path).unwrap();
        assert_eq!(data.contents(), before, "{file}");
    }
    data.told(&["verify"], 0);
}
