//! Waiting for a call's end on the thread that makes it, whatever runtime that thread belongs to.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// How long a call looks for its answer before it sleeps: to be woken takes as long as a server on the same machine takes to
/// find a row.
const LOOK: Duration = Duration::from_micros(150);

/// A thread that waits.
struct Waiter {
    thread: Thread,
    /// Set (release) before the thread is woken, taken (acquire) before it polls.
    woken: AtomicBool,
}

impl Wake for Waiter {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

/// Runs `work` to its end. Timers and sockets are those of the runtime whose context the caller has entered.
pub(super) fn block_on<T>(work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    let waiter = Arc::new(Waiter { thread: thread::current(), woken: AtomicBool::new(false) });
    let waker = Waker::from(waiter.clone());
    let mut cx = Context::from_waker(&waker);
    let mut since = Instant::now();
    loop {
        if let Poll::Ready(output) = work.as_mut().poll(&mut cx) {
            return output;
        }
        if since.elapsed() < LOOK {
            // The server may need this core.
            thread::yield_now();
            continue;
        }
        while !waiter.woken.swap(false, Ordering::Acquire) {
            thread::park();
        }
        since = Instant::now();
    }
}
