use std::{
    collections::HashSet,
    ops::Range,
    sync::{Arc, atomic::AtomicBool},
    thread,
    time::Instant,
};

use super::*;

/// Numbers, and something that is held as long as they are a piece.
type Numbers = (Range<u64>, Option<Arc<()>>);

type Work<'a> = dyn Fn(Numbers, &Turn<'_, '_, Calls<'a>>) -> Result<()> + Sync + 'a;

struct Calls<'a>(&'a Work<'a>);

impl<'a> Job for Calls<'a> {
    type Piece = Numbers;
    type Worker = ();

    fn worker(&self) {}

    fn work(&self, _: &mut (), piece: Numbers, turn: &Turn<'_, '_, Self>) -> Result<()> {
        (self.0)(piece, turn)
    }

    fn end(&self, (): ()) {}
}

fn run_calls<'a>(
    threads: &IngestThreads,
    work: &'a Work<'a>,
    feed: impl FnOnce(&mut Feed<'_, '_, '_, Calls<'a>>) -> Result<()>,
) -> Result<()> {
    run(&Calls(work), threads, &mut (), feed)
}

/// Gives each number as a piece of its own.
fn give_all(feed: &mut Feed<'_, '_, '_, Calls<'_>>, numbers: Range<u64>) -> Result<()> {
    numbers.into_iter().try_for_each(|number| feed.give((number..number + 1, None), 1))
}

/// Counts threads that are at work at the same time.
#[derive(Default)]
struct AtWork {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl AtWork {
    fn count<T>(&self, work: impl FnOnce() -> T) -> T {
        self.most.fetch_max(self.now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        let done = work();
        self.now.fetch_sub(1, Ordering::SeqCst);
        done
    }

    fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }
}

/// Waits for what other threads bring about; only a hang makes it fail.
#[track_caller]
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(20), "it never came: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn every_piece_is_done_once_by_as_many_threads_as_there_are_processors() {
    for processors in [1, 2, 4] {
        let threads = IngestThreads::new(processors);
        let (at_work, done) = (AtWork::default(), Mutex::new(Vec::new()));
        let work = |(numbers, _): Numbers, _: &Turn<'_, '_, Calls<'_>>| {
            // The first pieces wait for each other.
            at_work.count(|| eventually("all are at work", || at_work.most() >= processors));
            done.lock().extend(numbers);
            Ok(())
        };
        run_calls(&threads, &work, |feed| give_all(feed, 0..1000)).expect("nothing fails");
        let mut done = done.into_inner();
        done.sort_unstable();
        assert_eq!(done, (0..1000).collect::<Vec<_>>());
        assert_eq!(at_work.most(), processors);
        assert_eq!(threads.spare(), processors - 1);
    }
}

#[test]
fn threads_are_shared_by_all_who_ingest() {
    let threads = IngestThreads::new(3);
    let others = AtWork::default();
    let work = |_: Numbers, _: &Turn<'_, '_, Calls<'_>>| {
        if thread::current().name() == Some("ingest") {
            others.count(|| thread::sleep(Duration::from_millis(1)));
        } else {
            eventually("another thread", || others.most() > 0);
        }
        Ok(())
    };
    scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| run_calls(&threads, &work, |feed| give_all(feed, 0..100)).expect("nothing fails"));
        }
    });
    assert!(others.most() <= 2, "{} threads beside those of eight callers", others.most());
    assert_eq!(threads.spare(), 2);
}

#[test]
fn the_first_failure_in_order_is_the_result() {
    for processors in [1, 4] {
        let threads = IngestThreads::new(processors);
        let done = Mutex::new(HashSet::new());
        let failed_late = AtomicBool::new(false);
        let work = |(numbers, _): Numbers, turn: &Turn<'_, '_, Calls<'_>>| {
            match numbers.start {
                300 => {
                    // On several threads, a later one fails before.
                    eventually("a later failure", || processors == 1 || failed_late.load(Ordering::SeqCst));
                    assert!(!turn.is_in_vain());
                    return Err(Error::invalid("300"));
                }
                301 => {
                    failed_late.store(true, Ordering::SeqCst);
                    return Err(Error::invalid("301"));
                }
                number => done.lock().insert(number),
            };
            Ok(())
        };
        let fed = AtomicU64::new(0);
        let result = run_calls(&threads, &work, |feed| {
            for number in 0..1_000_000 {
                feed.give((number..number + 1, None), 100)?;
                fed.store(number, Ordering::Relaxed);
            }
            Err(Error::invalid("everything was fed"))
        });
        assert_eq!(result.expect_err("a piece fails").message(), "300");
        let done = done.into_inner();
        assert!((0..300).all(|number| done.contains(&number)), "what comes before is done");
        assert!(fed.into_inner() < 999_999, "feeding stops");
    }
}

#[test]
fn what_feeding_fails_with_waits_for_what_was_fed() {
    let threads = IngestThreads::new(2);
    let work = |(numbers, _): Numbers, _: &Turn<'_, '_, Calls<'_>>| {
        thread::sleep(Duration::from_millis(1));
        if numbers.start == 9 { Err(Error::invalid("the last one")) } else { Ok(()) }
    };
    for (count, message) in [(9, "feeding"), (10, "the last one")] {
        let result = run_calls(&threads, &work, |feed| {
            give_all(feed, 0..count)?;
            Err(Error::invalid("feeding"))
        });
        assert_eq!(result.expect_err("it fails").message(), message);
    }
}

#[test]
fn other_threads_have_so_many_bytes_at_once() {
    let threads = IngestThreads::new(2);
    const PIECE: usize = 1 << 20;
    let (held, is_fed, own) = (Arc::new(()), AtomicBool::new(false), AtomicUsize::new(0));
    let work = |_: Numbers, _: &Turn<'_, '_, Calls<'_>>| {
        if thread::current().name() == Some("ingest") {
            eventually("everything is fed", || is_fed.load(Ordering::SeqCst));
        } else if !is_fed.load(Ordering::SeqCst) {
            own.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    };
    let room = IN_FLIGHT_BYTES_MAX / PIECE;
    run_calls(&threads, &work, |feed| {
        for number in 0..100 {
            feed.give((number..number + 1, Some(Arc::clone(&held))), PIECE)?;
            assert!(Arc::strong_count(&held) - 1 <= room, "{} pieces", Arc::strong_count(&held) - 1);
        }
        // What would never have room is not kept waiting either.
        feed.give((100..101, None), IN_FLIGHT_BYTES_MAX + 1)?;
        is_fed.store(true, Ordering::SeqCst);
        Ok(())
    })
    .expect("nothing fails");
    assert_eq!(own.into_inner(), 101 - room);
}

#[test]
fn a_panic_is_an_error_and_gives_the_thread_back() {
    let threads = IngestThreads::new(2);
    let is_taken = AtomicBool::new(false);
    let work = |_: Numbers, _: &Turn<'_, '_, Calls<'_>>| {
        if thread::current().name() == Some("ingest") {
            is_taken.store(true, Ordering::SeqCst);
            panic!("on purpose");
        }
        Ok(())
    };
    let result = run_calls(&threads, &work, |feed| {
        give_all(feed, 0..1)?;
        eventually("another thread takes it", || is_taken.load(Ordering::SeqCst));
        Ok(())
    });
    assert_eq!(*result.expect_err("it panicked").kind(), ErrorKind::Backend);
    assert_eq!(threads.spare(), 1);

    // One of the calling thread goes on there, once the others have ended.
    let work = |_: Numbers, _: &Turn<'_, '_, Calls<'_>>| Ok(());
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        run_calls(&threads, &work, |feed| {
            give_all(feed, 0..10)?;
            panic!("on purpose")
        })
    }));
    assert!(panicked.is_err());
    assert_eq!(threads.spare(), 1);
}

#[test]
fn a_thread_without_work_ends_and_another_begins() {
    let threads = IngestThreads::new(2);
    let done = AtomicUsize::new(0);
    let work = |_: Numbers, _: &Turn<'_, '_, Calls<'_>>| {
        done.fetch_add(1, Ordering::SeqCst);
        Ok(())
    };
    run_calls(&threads, &work, |feed| {
        for round in 1..=3 {
            feed.give((round..round + 1, None), 1)?;
            eventually("the piece is done", || done.load(Ordering::SeqCst) == round as usize);
            eventually("its thread is spare", || threads.spare() == 1);
        }
        Ok(())
    })
    .expect("nothing fails");
}

#[test]
fn parts_of_a_piece_are_done_by_threads_that_wait() {
    for processors in [1, 3] {
        let threads = IngestThreads::new(processors);
        let (at_work, done) = (AtWork::default(), Mutex::new(Vec::new()));
        let work = |(mut numbers, _): Numbers, turn: &Turn<'_, '_, Calls<'_>>| {
            at_work.count(|| {
                while let Some(number) = numbers.next() {
                    if turn.is_wanted() && !numbers.is_empty() {
                        let middle = numbers.start.midpoint(numbers.end);
                        match turn.hand_on((middle..numbers.end, None), 1) {
                            None => numbers.end = middle,
                            Some(part) => assert_eq!(part.0, middle..numbers.end, "it comes back as it was"),
                        }
                    }
                    // Something is left until all are at work.
                    if at_work.most() < processors {
                        thread::sleep(Duration::from_millis(5));
                    }
                    done.lock().push(number);
                }
            });
            Ok(())
        };
        run_calls(&threads, &work, |feed| feed.give((0..1000, None), 1)).expect("nothing fails");
        let mut done = done.into_inner();
        done.sort_unstable();
        assert_eq!(done, (0..1000).collect::<Vec<_>>());
        assert_eq!(at_work.most(), processors);
        // A piece that is kept is not shared.
        let caller = thread::current().id();
        let work = |_: Numbers, turn: &Turn<'_, '_, Calls<'_>>| {
            assert!(!turn.is_wanted());
            assert_eq!(thread::current().id(), caller);
            Ok(())
        };
        run_calls(&threads, &work, |feed| (0..50).try_for_each(|number| feed.keep((number..number + 1, None))))
            .expect("nothing fails");
    }
}
