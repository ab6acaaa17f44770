//! Damage of any kind anywhere: what is found, and what a repair makes of it.

use dramatis::log::embedded::offline;
use dramatis_events::UnixMillis;

use super::data::{Data, Found, change, name, unlocking, verify};
use super::support::imports::{Chance, long_tier};

/// A place in these bytes.
fn place(chance: &mut Chance, bytes: &[u8]) -> usize {
    usize::try_from(chance.below(u64::try_from(bytes.len()).unwrap())).unwrap()
}

/// Changes the bytes in one of many ways.
fn spoil(chance: &mut Chance, bytes: &mut Vec<u8>) {
    let at = place(chance, bytes);
    let len = place(chance, &bytes[at..]).min(1 << chance.below(12));
    match chance.below(7) {
        0 => bytes[at] ^= 1 << chance.below(8),
        1 => bytes[at..=at + len].fill(0),
        2 => {
            for byte in &mut bytes[at..=at + len] {
                *byte = u8::try_from(chance.below(256)).unwrap();
            }
        }
        3 => bytes.truncate(at),
        4 => drop(bytes.drain(at..=at + len)),
        5 => {
            // What was written elsewhere, whole batches perhaps.
            let to = place(chance, &bytes[..bytes.len() - len]);
            bytes.copy_within(at..at + len, to);
        }
        _ => {
            let again = bytes[at..=at + len].to_vec();
            bytes.splice(at..at, again);
        }
    }
}

#[test]
fn whatever_is_damaged_a_repair_leaves_a_beginning_of_the_history() {
    let (mut chance, rounds) = (Chance::new(), if long_tier() { 1_000 } else { 60 });
    let sound = Data::new(150);
    let (events, contents) = (sound.events(), sound.contents());
    let mut cuts = 0;
    for round in 0..rounds {
        let data = Data::empty();
        for (path, bytes) in &contents {
            std::fs::write(data.log_dir().join(name(path)), bytes).unwrap();
        }
        let segments = data.files("segment");
        let mut safe = events.len();
        for _ in 0..=chance.below(3) {
            let nth = place(&mut chance, &vec![0; segments.len()]);
            let before = std::fs::read(&segments[nth]).unwrap();
            change(&segments[nth], |bytes| {
                if !bytes.is_empty() {
                    spoil(&mut chance, bytes);
                }
            });
            if std::fs::read(&segments[nth]).unwrap() != before {
                let first = name(&segments[nth]).split('.').next().unwrap().parse().unwrap();
                safe = safe.min(first);
            }
        }
        let (_, found) = verify(&data);
        let last: usize = name(segments.last().unwrap()).split('.').next().unwrap().parse().unwrap();
        assert!(safe >= last || !found.damage.is_empty(), "round {round}: nothing was found before {last}");
        let mut told = Found::default();
        let repair =
            unlocking(|| offline::cut(&data.place(), "cut-now", UnixMillis::new(0), &mut told)).unwrap();
        let left = data.events();
        assert!(left.len() >= safe, "round {round}: {} of {safe} events: {found:?}", left.len());
        assert_eq!(left, events[..left.len()], "round {round}: {repair:?}");
        assert_eq!(repair.kept, u64::try_from(left.len()).unwrap(), "round {round}");
        data.grow(30, &data.options());
        let (verified, found) = verify(&data);
        assert!(found.damage.is_empty() && found.notes.is_empty(), "round {round}: {repair:?} {found:?}");
        assert_eq!(verified.events, repair.kept + 30);
        cuts += u64::from(repair.cut.is_some());
    }
    println!("{cuts} of {rounds} were cut");
    assert!(cuts > rounds / 2);
}

#[test]
fn whatever_is_derived_is_found_and_built_again() {
    let (mut chance, rounds) = (Chance::new(), if long_tier() { 5_000 } else { 150 });
    let data = Data::new(150);
    let sound = data.contents();
    for round in 0..rounds {
        let indexes = data.files("index");
        let path = &indexes[place(&mut chance, &vec![0; indexes.len()])];
        let before = std::fs::read(path).unwrap();
        change(path, |bytes| spoil(&mut chance, bytes));
        let same = std::fs::read(path).unwrap() == before;
        let (_, found) = verify(&data);
        assert_eq!(found.damage.is_empty(), same, "round {round}: {found:?}");
        assert!(found.damage.iter().all(|damage| damage.file == name(path)), "round {round}: {found:?}");
        unlocking(|| offline::reindex(&data.place(), false, &mut Found::default())).unwrap();
        assert_eq!(data.contents(), sound, "round {round}");
    }
}
