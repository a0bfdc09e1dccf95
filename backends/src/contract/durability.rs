//! Checks of what is left when a store is opened again, of closing, and of long random lives.

use std::collections::BTreeMap;
use std::sync::Arc;

use govc_engine::backend::{Backend, BackendErrorKind, BackendResult, Batch, Family, Op, Precondition, Scan, Sync};

use super::{Check, Subject};
use crate::fault::mix;

pub(super) fn synced_writes_survive(check: &Check, subject: &mut dyn Subject) {
    let put = |backend: &dyn Backend, key: &[u8], sync: Sync| {
        let mut batch = Batch::new();
        batch.put(Family::Journal, key.to_vec(), key.to_vec());
        batch.put(Family::Refs, key.to_vec(), key.to_vec());
        check.ok("write", backend.write(batch, sync));
    };
    let keys = |backend: &dyn Backend, family: Family| -> Vec<Vec<u8>> {
        let entries = check.entries("scan", backend.scan(family, Scan::all()));
        entries.into_iter().map(|(key, _)| key).collect()
    };

    let backend = subject.open();
    put(&*backend, b"a", Sync::No);
    put(&*backend, b"b", Sync::Yes);
    drop(backend);
    let Some(backend) = subject.reopen() else { return };
    for family in [Family::Journal, Family::Refs] {
        check.same(
            "a synced write, and the one before it",
            keys(&*backend, family),
            vec![b"a".to_vec(), b"b".to_vec()],
        );
    }

    put(&*backend, b"c", Sync::No);
    let mut batch = Batch::new();
    batch.delete_range(Family::Journal, b"a".to_vec(), b"c".to_vec());
    check.ok("delete_range", backend.write(batch, Sync::No));
    check.ok("sync", backend.sync());
    drop(backend);
    let Some(backend) = subject.reopen() else { return };
    check.same("a synced deletion", keys(&*backend, Family::Journal), vec![b"c".to_vec()]);
    check.same("the other family", keys(&*backend, Family::Refs), [b"a", b"b", b"c"].map(|key| key.to_vec()).to_vec());

    let mut batch = Batch::new();
    batch.require_absent(Family::Journal, b"a".to_vec());
    batch.require_value(Family::Journal, b"c".to_vec(), &b"c"[..]);
    batch.put(Family::Journal, b"d".to_vec(), &b"d"[..]);
    check.ok("preconditions on what survived", backend.write(batch, Sync::No));
    check.ok("close", backend.close());
    drop(backend);
    let Some(backend) = subject.reopen() else { return };
    check.same("a write before a close", keys(&*backend, Family::Journal), vec![b"c".to_vec(), b"d".to_vec()]);
}

pub(super) fn lost_writes_are_a_suffix(check: &Check, subject: &mut dyn Subject) {
    const WRITES: u8 = 40;
    const SYNCED: u8 = 12;
    let families = [Family::Journal, Family::Blocks, Family::Ids];
    let backend = subject.open();
    for number in 0..WRITES {
        let mut batch = Batch::new();
        for family in families {
            batch.put(family, vec![number], vec![number; 100]);
        }
        let sync = if number + 1 == SYNCED { Sync::Yes } else { Sync::No };
        check.ok("write", backend.write(batch, sync));
    }
    drop(backend);
    let Some(backend) = subject.reopen() else { return };
    let left = check.entries("scan", backend.scan(Family::Journal, Scan::all()));
    check.holds("what was synced is there", left.len() >= usize::from(SYNCED));
    for family in families {
        let entries = check.entries("scan", backend.scan(family, Scan::all()));
        let wanted: Vec<_> = (0..WRITES).take(left.len()).map(|number| (vec![number], vec![number; 100])).collect();
        check.same("the first writes, each whole", entries, wanted);
    }
}

pub(super) fn random_batches_agree_with_a_model(check: &Check, subject: &mut dyn Subject) {
    const BATCHES: u64 = 300;
    for seed in 1..=3_u64 {
        let mut backend = subject.open();
        let mut model = Model::default();
        let mut random = Random { seed, drawn: 0 };
        for number in 1..=BATCHES {
            let what = format!("seed {seed}, batch {number}");
            let batch = random.batch(&model);
            let wanted = model.write(&batch);
            let sync = if number.is_multiple_of(100) { Sync::Yes } else { Sync::No };
            let result = backend.write(batch, sync);
            match wanted {
                Ok(()) => check.ok(&what, result),
                Err(index) => check.fails(&what, result, BackendErrorKind::PreconditionFailed { index }),
            }
            if number.is_multiple_of(10) {
                model.compare(check, &what, &*backend);
            }
            if number.is_multiple_of(100) {
                // The last write may have been refused, and with it its sync.
                check.ok(&what, backend.sync());
                drop(backend);
                let Some(again) = subject.reopen() else {
                    // What does not outlive its handle begins anew, and so does the model.
                    backend = subject.open();
                    model = Model::default();
                    continue;
                };
                backend = again;
                model.compare(check, &format!("{what}, opened again"), &*backend);
            }
        }
    }
}

pub(super) fn closed_backend_answers_closed(check: &Check, subject: &mut dyn Subject) {
    fn without_value<T>(result: BackendResult<T>) -> BackendResult<()> {
        result.map(drop)
    }
    let backend: Arc<dyn Backend> = subject.open();
    let mut batch = Batch::new();
    batch.put(Family::Meta, b"key".to_vec(), &b"value"[..]);
    check.ok("write", backend.write(batch.clone(), Sync::No));
    check.ok("close", backend.close());
    check.ok("close again", backend.close());
    let calls = [
        ("get", without_value(backend.get(Family::Meta, b"key"))),
        ("get_many", without_value(backend.get_many(Family::Meta, &[b"key".to_vec()]))),
        ("scan", without_value(backend.scan(Family::Meta, Scan::all()))),
        ("write", backend.write(batch, Sync::No)),
        ("empty write", backend.write(Batch::new(), Sync::Yes)),
        ("sync", backend.sync()),
        ("usage", without_value(backend.usage())),
    ];
    for (what, result) in calls {
        check.fails(what, result, BackendErrorKind::Closed);
    }
    check.holds("a closed backend still says what it is", !backend.describe().kind.is_empty());
}

pub(super) fn usage_names_every_family(check: &Check, subject: &mut dyn Subject) {
    let backend = subject.open();
    let usage = check.ok("usage", backend.usage());
    let mut named: Vec<Family> = usage.families.into_iter().map(|(family, _)| family).collect();
    named.sort();
    check.same("families", named, Family::ALL.to_vec());
    let description = backend.describe();
    check.holds("kind and location are told", !description.kind.is_empty() && !description.location.is_empty());
}

type Key = (Family, Vec<u8>);

/// The families that random batches use: neighbours and the last one.
const FAMILIES: [Family; 3] = [Family::Catalog, Family::Refs, Family::Meta];

/// What a backend should hold, done the plain way.
#[derive(Default)]
struct Model {
    entries: BTreeMap<Key, Vec<u8>>,
}

impl Model {
    /// Applies a batch; the index of the first precondition that does not hold if there is one.
    fn write(&mut self, batch: &Batch) -> Result<(), usize> {
        for (index, precondition) in batch.preconditions.iter().enumerate() {
            let holds = match precondition {
                Precondition::Absent { family, key } => self.get(*family, key).is_none(),
                Precondition::Value { family, key, value } => self.get(*family, key).is_some_and(|own| own == value),
            };
            if !holds {
                return Err(index);
            }
        }
        for op in &batch.ops {
            match op {
                Op::Put { family, key, value } => {
                    self.entries.insert((*family, key.clone()), value.to_vec());
                }
                Op::Delete { family, key } => {
                    self.entries.remove(&(*family, key.clone()));
                }
                Op::DeleteRange { family, from, to } => {
                    self.entries.retain(|(own, key), _| own != family || key < from || key >= to);
                }
            }
        }
        Ok(())
    }

    fn get(&self, family: Family, key: &[u8]) -> Option<&Vec<u8>> {
        self.entries.get(&(family, key.to_vec()))
    }

    fn compare(&self, check: &Check, what: &str, backend: &dyn Backend) {
        for family in FAMILIES {
            let own = self.entries.iter().filter(|((one, _), _)| *one == family);
            let wanted: Vec<_> = own.map(|((_, key), value)| (key.clone(), value.clone())).collect();
            check.same(what, check.entries(what, backend.scan(family, Scan::all())), wanted);
            for key in (0..Random::KEYS).map(Random::key) {
                let found = check.ok(what, backend.get(family, &key));
                check.same(what, found.as_deref(), self.get(family, &key).map(Vec::as_slice));
            }
        }
    }
}

/// A reproducible source of batches.
struct Random {
    seed: u64,
    drawn: u64,
}

impl Random {
    const KEYS: u64 = 40;

    fn below(&mut self, end: u64) -> u64 {
        self.drawn += 1;
        mix(mix(self.seed) ^ self.drawn) % end
    }

    fn key(number: u64) -> Vec<u8> {
        // Of different lengths, so that one key is the beginning of another.
        vec![b'a' + (number % 8) as u8; 1 + (number / 8) as usize]
    }

    fn some_key(&mut self) -> Key {
        let family = FAMILIES[self.below(FAMILIES.len() as u64) as usize];
        (family, Self::key(self.below(Self::KEYS)))
    }

    fn batch(&mut self, model: &Model) -> Batch {
        let mut batch = Batch::new();
        for _ in 0..self.below(3) {
            let (family, key) = self.some_key();
            // Mostly what holds, sometimes what does not.
            match (model.get(family, &key), self.below(10)) {
                (Some(_), 0) | (None, 1..) => batch.require_absent(family, key),
                (Some(value), _) => batch.require_value(family, key, value.clone()),
                (None, 0) => batch.require_value(family, key, vec![0_u8]),
            }
        }
        for _ in 0..self.below(8) {
            let (family, key) = self.some_key();
            match self.below(10) {
                0 => batch.delete_range(family, key, Self::key(self.below(Self::KEYS))),
                1..=3 => batch.delete(family, key),
                _ => batch.put(family, key, vec![self.below(4) as u8; self.below(50) as usize]),
            }
        }
        batch
    }
}
