//! How deep a pack's trees lie in each other: a push that would make them too deep is refused.
//!
//! Only what the pack brings is counted, as git does: what lies below, in trees that are there already, would have to be walked. So
//! several pushes can build deeper directories bit by bit, and whatever reads a whole repository must bear any depth.

use govc_engine::{Error, Oid, Result, TREE_DEPTH_MAX};

/// Pairs of a tree and one in it that are remembered: 128 MiB. A pack with more is not looked at.
const PAIRS_MAX: usize = 8 << 20;

/// The pairs of a pack, by the first bytes of their ids.
#[derive(Default)]
pub(super) struct Nesting {
    pairs: Vec<(u64, u64)>,
}

impl Nesting {
    /// Notes that a tree has another one in it.
    pub(super) fn note(&mut self, tree: &Oid, child: &Oid) {
        // One more than there may be tells that there were more.
        if self.pairs.len() <= PAIRS_MAX {
            self.pairs.push((tree.bits(), child.bits()));
        }
    }

    /// # Errors
    /// `TooLarge` if a tree lies deeper than [`TREE_DEPTH_MAX`] in others of the pack.
    pub(super) fn check(mut self) -> Result<()> {
        self.pairs.sort_unstable();
        self.pairs.dedup();
        let mut parents: Vec<u64> = self.pairs.iter().map(|(parent, _)| *parent).collect();
        parents.dedup();
        // A path this long has as many trees with trees in them.
        if parents.len() <= TREE_DEPTH_MAX || self.pairs.len() > PAIRS_MAX {
            return Ok(());
        }
        let place = |bits: &u64| parents.binary_search(bits).ok();
        let mut waits_for = vec![0u32; parents.len()];
        for child in self.pairs.iter().filter_map(|(_, child)| place(child)) {
            if let Some(count) = waits_for.get_mut(child) {
                *count += 1;
            }
        }
        let mut depths = vec![0usize; parents.len()];
        let mut ready: Vec<usize> =
            waits_for.iter().enumerate().filter(|(_, count)| **count == 0).map(|(at, _)| at).collect();
        while let Some(at) = ready.pop() {
            let depth = depths.get(at).copied().unwrap_or_default() + 1;
            if depth > TREE_DEPTH_MAX {
                return Err(Error::too_large(format!("directories are nested deeper than {TREE_DEPTH_MAX}")));
            }
            let bits = parents.get(at).copied().unwrap_or_default();
            let first = self.pairs.partition_point(|(parent, _)| *parent < bits);
            let children = self.pairs.iter().skip(first).take_while(|(parent, _)| *parent == bits);
            for child in children.filter_map(|(_, child)| place(child)) {
                if let (Some(of_child), Some(count)) = (depths.get_mut(child), waits_for.get_mut(child)) {
                    *of_child = depth.max(*of_child);
                    *count -= 1;
                    if *count == 0 {
                        ready.push(child);
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn oid(number: u64) -> Oid {
        let mut bytes = [0; 20];
        // Neither in the order of the ids nor against it.
        bytes[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
        Oid::from_bytes(&bytes).unwrap()
    }

    fn check(pairs: impl IntoIterator<Item = (u64, u64)>) -> Result<()> {
        let mut nesting = Nesting::default();
        pairs.into_iter().for_each(|(parent, child)| nesting.note(&oid(parent), &oid(child)));
        nesting.check()
    }

    #[test]
    fn the_longest_way_down_counts() {
        let max = TREE_DEPTH_MAX as u64;
        let chain = |len: u64| (0..len).map(|at| (at, at + 1));
        assert!(check([]).is_ok());
        // The root is at depth 0.
        assert!(check(chain(max)).is_ok());
        assert!(check(chain(max + 1)).is_err());
        assert!(check(chain(100_000)).is_err());
        // Also where shorter ways lead to the same trees, in either order.
        let shortcuts = || (2..max).map(|at| (0, at));
        assert!(check(chain(max).chain(shortcuts())).is_ok());
        assert!(check(chain(max + 1).chain(shortcuts())).is_err());
        assert!(check(shortcuts().chain(chain(max + 1).collect::<Vec<_>>().into_iter().rev())).is_err());
        // With more pairs than are remembered, no pack is too deep.
        let too_many = (0..=PAIRS_MAX as u64).map(|at| (1 << 32, at));
        assert!(check(chain(max + 1).chain(too_many)).is_ok());
        // Many trees beside one another are not deep, however often they are named.
        assert!(check((0..50_000).flat_map(|at| [(at, 1_000_000 + at), (at, 1_000_000), (at, 1_000_000)])).is_ok());
    }
}
