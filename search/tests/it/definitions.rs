//! What files define, when the one who tells it fails.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use govc_search::{
    Definer, InProcess,
    language::Language,
    symbols::{Skipped, Symbol},
};

use super::world::World;

/// Fails in one way as often as is said, and then tells.
struct Failing {
    with: Skipped,
    left: AtomicUsize,
}

impl Definer for Failing {
    fn definitions(&self, language: Language, content: &[u8]) -> Result<Vec<Symbol>, Skipped> {
        let fails = |left: usize| left.checked_sub(1);
        match self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fails) {
            Ok(_) => Err(self.with),
            Err(_) => InProcess::default().definitions(language, content),
        }
    }
}

fn failing(with: Skipped, times: usize) -> (World, Arc<Failing>) {
    let definer = Arc::new(Failing { with, left: AtomicUsize::new(times) });
    let world = World::with_definer(definer.clone());
    world.put("main", &[("a.rs", b"fn needle() {}\n"), ("b.rs", b"// needle\n"), ("c.rs", b"fn other() {}\n")]);
    (world, definer)
}

#[test]
fn a_parser_that_fails_is_counted_and_asked_again() {
    for with in [Skipped::NoAnswer, Skipped::NoThread] {
        let (world, _) = failing(with, 2);
        for is_indexed in [false, true] {
            if is_indexed {
                world.index();
            }
            let found = world.find("sym:needle", "HEAD");
            // Only files that have the name at all are parsed.
            let expected = if is_indexed { (1, 0) } else { (0, 2) };
            assert_eq!((found.total_files, found.untold_files), expected, "{with:?}");
            assert_eq!((found.is_exact, found.partial), (true, None), "{with:?}");
        }
    }
}

#[test]
fn a_file_that_cannot_be_parsed_is_not_parsed_again_but_counted() {
    for with in [Skipped::TooLarge, Skipped::TooSlow, Skipped::Hazardous, Skipped::TooMany] {
        let (world, definer) = failing(with, usize::MAX);
        for _ in 0..3 {
            let found = world.find("sym:needle", "HEAD");
            assert_eq!((found.total_files, found.untold_files), (0, 2), "{with:?}");
            // It defines nothing as far as anybody knows.
            let found = world.find("needle -sym:needle", "HEAD");
            assert_eq!((found.total_files, found.untold_files), (2, 2), "{with:?}");
        }
        assert_eq!(usize::MAX - definer.left.load(Ordering::Relaxed), 2, "{with:?}: how often it was asked");
    }
}
