//! Tickets: the wait for a published transaction to become durable, for threads and for tasks.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use crate::{
    Error, ErrorKind, Result,
    sync::{Condvar, Mutex},
};

#[derive(Default)]
struct State {
    answer: Mutex<Answer>,
    answered: Condvar,
}

#[derive(Default)]
struct Answer {
    result: Option<Result<()>>,
    waker: Option<Waker>,
}

/// A claim to the answer of one write: ready when the write is as durable as its repository promises.
///
/// Dropping it loses the answer, not the write.
#[must_use = "a write is acknowledged only after its ticket"]
pub struct Ticket(Arc<State>);

impl Ticket {
    /// A ticket and the other end, which answers it.
    pub(crate) fn new() -> (Self, Promise) {
        let state = Arc::new(State::default());
        (Self(state.clone()), Promise(Some(state)))
    }

    /// A ticket that is answered already.
    pub(crate) fn ready(result: Result<()>) -> Self {
        let state = State::default();
        state.answer.lock().result = Some(result);
        Self(Arc::new(state))
    }

    /// Blocks the thread until the answer is there.
    ///
    /// # Errors
    /// Why the write is not durable; then nothing of it is visible, or the store is poisoned.
    pub fn wait(self) -> Result<()> {
        let mut answer = self.0.answer.lock();
        loop {
            match answer.result.take() {
                Some(result) => return result,
                None => self.0.answered.wait(&mut answer),
            }
        }
    }
}

impl Future for Ticket {
    type Output = Result<()>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let mut answer = self.0.answer.lock();
        match answer.result.take() {
            Some(result) => Poll::Ready(result),
            None => {
                answer.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// The end of a ticket that answers; a promise that is dropped answers with [`ErrorKind::Closed`].
pub(crate) struct Promise(Option<Arc<State>>);

impl Promise {
    pub(crate) fn answer(mut self, result: Result<()>) {
        self.send(result);
    }

    fn send(&mut self, result: Result<()>) {
        let Some(state) = self.0.take() else { return };
        let mut answer = state.answer.lock();
        answer.result = Some(result);
        let waker = answer.waker.take();
        drop(answer);
        state.answered.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.send(Err(Error::new(ErrorKind::Closed, "the store was closed before the write was durable")));
    }
}
