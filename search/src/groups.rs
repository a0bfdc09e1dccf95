//! How many results have which value: the facets of an answer, the groups of an aggregate.

use std::{cmp::Reverse, collections::HashMap};

/// Values that are counted one by one; results with others are counted together.
const VALUES_MAX: usize = 10_000;
/// The longest value that is counted, and all of them together, in bytes: they come from whoever pushes.
const VALUE_BYTES_MAX: usize = 4 << 10;
const BYTES_MAX: usize = 8 << 20;

/// One value, and what has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Group {
    /// The value.
    pub value: String,
    /// Files, or commits, that have it.
    pub results: u64,
    /// Matches in the contents of these files.
    pub matches: u64,
}

/// Results by value.
#[derive(Debug, Clone, Default)]
pub struct Groups {
    counts: HashMap<String, (u64, u64)>,
    bytes: usize,
    others: u64,
}

impl Groups {
    /// Counts one result.
    pub(crate) fn add(&mut self, value: &str, matches: u64) {
        self.add_many(value, 1, matches);
    }

    /// Counts some results, which have so many matches together.
    pub(crate) fn add_many(&mut self, value: &str, results: u64, matches: u64) {
        if results == 0 {
            return;
        }
        let is_full = self.counts.len() >= VALUES_MAX
            || value.len() > VALUE_BYTES_MAX
            || self.bytes.saturating_add(value.len()) > BYTES_MAX;
        let count = match self.counts.get_mut(value) {
            Some(count) => count,
            None if is_full => return self.others = self.others.saturating_add(results),
            None => {
                self.bytes += value.len();
                self.counts.entry(value.to_owned()).or_default()
            }
        };
        *count = (count.0.saturating_add(results), count.1.saturating_add(matches));
    }

    /// How many values were counted.
    pub fn values(&self) -> usize {
        self.counts.len()
    }

    /// Results that are in no group, because there are more than 10 000 values, or these are very long.
    pub fn others(&self) -> u64 {
        self.others
    }

    /// The groups with most results first; of as many, in the order of their values.
    pub fn largest(&self, groups_max: usize) -> Vec<Group> {
        self.sorted(groups_max, |group| (Reverse(group.results), group.value.clone()))
    }

    /// The groups with the highest values first.
    pub fn newest(&self, groups_max: usize) -> Vec<Group> {
        self.sorted(groups_max, |group| Reverse(group.value.clone()))
    }

    fn sorted<K: Ord>(&self, groups_max: usize, key: impl Fn(&Group) -> K) -> Vec<Group> {
        let group = |(value, (results, matches)): (&String, &(u64, u64))| Group {
            value: value.clone(),
            results: *results,
            matches: *matches,
        };
        let mut groups: Vec<Group> = self.counts.iter().map(group).collect();
        groups.sort_by_cached_key(|group| key(group));
        groups.truncate(groups_max);
        groups
    }
}

#[cfg(test)]
mod tests {
    use super::{BYTES_MAX, Groups, VALUE_BYTES_MAX, VALUES_MAX};

    #[test]
    fn most_results_come_first_and_then_names() {
        let mut groups = Groups::default();
        for (value, matches) in [("b", 1), ("c", 2), ("a", 3), ("c", 4)] {
            groups.add(value, matches);
        }
        let shown = |groups: Vec<super::Group>| -> Vec<_> {
            groups.into_iter().map(|group| (group.value, group.results, group.matches)).collect()
        };
        assert_eq!(shown(groups.largest(2)), [("c".to_owned(), 2, 6), ("a".to_owned(), 1, 3)]);
        assert_eq!(shown(groups.newest(1)), [("c".to_owned(), 2, 6)]);
    }

    #[test]
    fn too_many_values_are_counted_together() {
        let mut groups = Groups::default();
        (0..VALUES_MAX + 5).for_each(|number| groups.add(&number.to_string(), 1));
        groups.add("0", 1);
        assert_eq!((groups.values(), groups.others()), (VALUES_MAX, 5));
        assert_eq!(groups.largest(1)[0].results, 2);
    }

    #[test]
    fn long_values_are_counted_together() {
        let mut groups = Groups::default();
        groups.add(&"x".repeat(VALUE_BYTES_MAX + 1), 1);
        assert_eq!((groups.values(), groups.others()), (0, 1));
        let count = 2 * BYTES_MAX / VALUE_BYTES_MAX;
        (0..count).for_each(|number| groups.add(&format!("{number:0width$}", width = VALUE_BYTES_MAX), 1));
        assert_eq!((groups.values(), groups.others()), (count / 2, 1 + count as u64 / 2));
    }
}
