//! A list that only grows, and whose clones share all but the last block: what a writer adds is nothing to those who
//! read an earlier clone.

use std::sync::Arc;

/// Items of a block: what an addition after a clone copies at most.
const BLOCK: usize = 1 << 12;

/// The list. Cloning costs a pointer a block.
#[derive(Debug, Clone)]
pub(crate) struct Grown<T> {
    blocks: Vec<Arc<Vec<T>>>,
    len: usize,
}

impl<T> Default for Grown<T> {
    fn default() -> Self {
        Self { blocks: Vec::new(), len: 0 }
    }
}

impl<T: Clone> Grown<T> {
    /// How many items there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// An item.
    pub(crate) fn get(&self, at: usize) -> Option<&T> {
        self.blocks.get(at / BLOCK)?.get(at % BLOCK)
    }

    /// The items from `start` on, at most `count`.
    pub(crate) fn range(&self, start: usize, count: usize) -> impl Iterator<Item = &T> {
        (start..start.saturating_add(count)).map_while(|at| self.get(at))
    }

    /// Adds an item at the end.
    pub(crate) fn push(&mut self, item: T) {
        if self.len.is_multiple_of(BLOCK) {
            self.blocks.push(Arc::new(Vec::new()));
        }
        if let Some(block) = self.blocks.last_mut() {
            Arc::make_mut(block).push(item);
            self.len += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{BLOCK, Grown};

    #[test]
    fn a_clone_stays_as_it_is() {
        let mut list = Grown::default();
        (0..BLOCK + 3).for_each(|item| list.push(item));
        let before = list.clone();
        (0..BLOCK).for_each(|item| list.push(item));
        assert_eq!((before.len(), list.len()), (BLOCK + 3, 2 * BLOCK + 3));
        assert_eq!(
            (before.get(BLOCK + 2), before.get(BLOCK + 3), list.get(BLOCK + 3)),
            (Some(&(BLOCK + 2)), None, Some(&0))
        );
        assert_eq!(list.range(BLOCK - 1, 3).copied().collect::<Vec<_>>(), [BLOCK - 1, BLOCK, BLOCK + 1]);
        assert_eq!(before.range(BLOCK + 2, 9).count(), 1);
        assert_eq!(before.range(5 * BLOCK, 9).count(), 0);
    }
}
