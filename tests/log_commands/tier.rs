//! A cold tier that is out of reach is no damage: nothing is judged, let alone cut, without it.

use super::data::Data;

/// Tells the commands to look elsewhere for the cold tier, or nowhere.
fn set_cold_dir(data: &Data, dir: &str) {
    let config = format!("[log]\ncold_dir = '{dir}'\n");
    std::fs::write(data.dir.path().join("dramatis.toml"), config).unwrap();
}

#[test]
fn a_cold_tier_that_is_not_there_is_no_damage() {
    let (data, cold) = Data::with_cold_tier(90);
    let (before, tier) = (data.contents(), std::fs::read_dir(cold.path()).unwrap().count());
    // Where it is mounted without it, and no setting at all.
    let unmounted = tempfile::tempdir().unwrap();
    for dir in [unmounted.path().to_str().unwrap(), ""] {
        set_cold_dir(&data, dir);
        for command in [&["verify"][..], &["info"], &["reindex"], &["repair"], &["repair", "--cut"]] {
            let told = data.told(command, 1);
            assert!(told.contains("cold tier") && told.contains("log.cold_dir"), "{command:?}: {told}");
            assert!(!told.contains("DAMAGED"), "{command:?}: {told}");
        }
        assert_eq!(data.contents(), before);
        assert_eq!(std::fs::read_dir(unmounted.path()).unwrap().count(), 0);
    }
    set_cold_dir(&data, cold.path().to_str().unwrap());
    data.told(&["verify"], 0);
    assert!(std::fs::read_dir(cold.path()).unwrap().count() >= tier);
}

#[test]
fn what_never_moved_needs_no_cold_tier() {
    let (data, cold) = Data::with_cold_tier(3);
    assert!(data.log_dir().join("tier").exists(), "{:?}", data.files("segment"));
    drop(cold);
    let unmounted = tempfile::tempdir().unwrap();
    for dir in [unmounted.path().to_str().unwrap(), ""] {
        set_cold_dir(&data, dir);
        data.told(&["verify"], 0);
        data.told(&["repair"], 0);
    }
}
