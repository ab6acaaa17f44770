//! Maps that give memory back: one that held a million rooms once would keep their places.

use std::collections::HashMap;
use std::hash::Hash;

/// Maps of this capacity are left as they are.
const CAPACITY_MIN: usize = 1_024;

/// To be called after a removal: shrinks a map that is nearly empty, so seldom that a removal
/// costs the same on average.
pub(super) fn shrink<K: Eq + Hash, V>(map: &mut HashMap<K, V>) {
    if map.capacity() > CAPACITY_MIN && map.len() < map.capacity() / 8 {
        map.shrink_to(map.len().saturating_mul(2));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_that_was_emptied_is_small_again() {
        let mut map: HashMap<u32, u32> = (0..100_000).map(|key| (key, key)).collect();
        for key in 0..100_000 {
            map.remove(&key);
            shrink(&mut map);
            assert!(map.len() == 99_999 - usize::try_from(key).unwrap_or(0));
        }
        assert!(map.capacity() <= 2 * CAPACITY_MIN, "{}", map.capacity());
    }
}
