//! A log restored to a moment within the time that its backup was being made.

use std::path::Path;

use dramatis::log::embedded::backup::{self, BackupError, Source, Until, Wanted};
use dramatis_events::UnixMillis;

use super::data::Data;

#[test]
fn what_was_recorded_while_a_backup_was_made_is_within_its_reach() {
    let data = Data::new(90);
    let last = data.events().last().unwrap().recorded_at;
    let begun = UnixMillis::new(last.get() - 10_000);
    let wanted = Wanted { name: "one".into(), created_at: begun, read_models: serde_json::Value::Null };
    let store = data.dir.path().join("store");
    backup::create(&Source::new(&data.log_dir(), None), &store, wanted, &mut || {}, &mut |_, _| {}).unwrap();
    let restore = |into: &str, time: i64| {
        let (into, until) = (data.dir.path().join(into), Until::Time(UnixMillis::new(time)));
        backup::restore(&store, "one", Path::new(&into), until, last, &mut |_, _| {})
    };
    for (into, time) in
        [("before", begun.get() - 3_000), ("meanwhile", begun.get() + 5_500), ("last", last.get())]
    {
        let restored = restore(into, time).unwrap();
        let kept = data.events().iter().rfind(|event| event.recorded_at.get() <= time).unwrap().position;
        assert_eq!(restored.last_position, Some(kept), "{into}");
    }
    let beyond = restore("beyond", last.get() + 1);
    assert!(matches!(beyond, Err(BackupError::OutOfReach { .. })), "{beyond:?}");
}
