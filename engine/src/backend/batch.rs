//! Atomic groups of writes with preconditions.

use bytes::Bytes;

use super::Family;

/// One write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Sets a key.
    Put {
        /// The key space.
        family: Family,
        /// The key.
        key: Vec<u8>,
        /// The value.
        value: Bytes,
    },
    /// Removes a key, if it is there.
    Delete {
        /// The key space.
        family: Family,
        /// The key.
        key: Vec<u8>,
    },
    /// Removes every key of `from..to`.
    DeleteRange {
        /// The key space.
        family: Family,
        /// The first key that goes.
        from: Vec<u8>,
        /// The first key that stays.
        to: Vec<u8>,
    },
}

/// What must hold for a batch to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Precondition {
    /// The key has no value.
    Absent {
        /// The key space.
        family: Family,
        /// The key.
        key: Vec<u8>,
    },
    /// The key has exactly this value.
    Value {
        /// The key space.
        family: Family,
        /// The key.
        key: Vec<u8>,
        /// The value.
        value: Bytes,
    },
}

/// An atomic group of writes with preconditions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// The writes, in order.
    pub ops: Vec<Op>,
    /// What must hold.
    pub preconditions: Vec<Precondition>,
    /// Whether it makes room in the end, so that it is written although only a reserve of room is left.
    pub uses_reserve: bool,
    bytes: usize,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a key.
    pub fn put(&mut self, family: Family, key: Vec<u8>, value: impl Into<Bytes>) {
        let value = value.into();
        self.bytes += key.len() + value.len();
        self.ops.push(Op::Put { family, key, value });
    }

    /// Removes a key, if it is there.
    pub fn delete(&mut self, family: Family, key: Vec<u8>) {
        self.bytes += key.len();
        self.ops.push(Op::Delete { family, key });
    }

    /// Removes every key of `from..to`.
    pub fn delete_range(&mut self, family: Family, from: Vec<u8>, to: Vec<u8>) {
        self.bytes += from.len() + to.len();
        self.ops.push(Op::DeleteRange { family, from, to });
    }

    /// Demands that a key has no value.
    pub fn require_absent(&mut self, family: Family, key: Vec<u8>) {
        self.preconditions.push(Precondition::Absent { family, key });
    }

    /// Demands that a key has exactly this value.
    pub fn require_value(&mut self, family: Family, key: Vec<u8>, value: impl Into<Bytes>) {
        self.preconditions.push(Precondition::Value { family, key, value: value.into() });
    }

    /// Bytes of keys and values to be written.
    pub fn byte_len(&self) -> usize {
        self.bytes
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }
}
