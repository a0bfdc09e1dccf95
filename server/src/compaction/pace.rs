//! How fast a compaction goes: at full speed while nobody else needs the processors, by budgets while somebody does.

use std::{
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};

/// What a compaction may take while others work.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Budgets {
    /// Of one processor, above zero.
    pub(crate) cpu_share: f64,
    /// Of objects that are read and stored anew, a second; `None` for any number.
    pub(crate) bytes_per_second: Option<u64>,
}

/// How often the load is measured.
const MEASURE_INTERVAL: Duration = Duration::from_millis(500);
/// How often the pace is checked, and how long it rests at once.
const CHECK_INTERVAL: Duration = Duration::from_millis(5);
const REST_MAX: Duration = Duration::from_millis(50);
/// What may be taken ahead.
const AHEAD_SECONDS: f64 = 0.05;

/// What was taken unseen is not made up for longer than this.
const DEBT_SECONDS_MAX: f64 = 5.0;

/// Below this share of all processors the process counts as idle, above the other as busy.
const IDLE_LOAD: f64 = 0.1;
const BUSY_LOAD: f64 = 0.5;
/// How much less a compaction takes of a busy process.
const BACK_OFF: f64 = 4.0;

/// The pace of one compaction; kept by the thread that it runs on.
pub(crate) struct Pace {
    budgets: Budgets,
    state: Mutex<State>,
}

struct State {
    checked: Instant,
    thread_cpu: Duration,
    cpu: Debt,
    bytes: Debt,
    measured: Instant,
    measured_process_cpu: Duration,
    measured_thread_cpu: Duration,
    /// Share of all processors that the rest of the process has taken lately.
    load: f64,
    rested: Duration,
}

/// What has been taken beyond what was allowed, in seconds at the allowed rate.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Debt(f64);

impl Debt {
    /// So much was taken, in seconds at the allowed rate, while so much time went by.
    fn add(&mut self, taken_seconds: f64, elapsed_seconds: f64) {
        self.0 = (self.0 + taken_seconds - elapsed_seconds).clamp(-AHEAD_SECONDS, DEBT_SECONDS_MAX);
    }
}

/// The share of a processor that a compaction takes beside such a load.
fn cpu_share(budgets: &Budgets, load: f64) -> f64 {
    match load {
        load if load < IDLE_LOAD => 1.0,
        load if load < BUSY_LOAD => budgets.cpu_share,
        _ => budgets.cpu_share / BACK_OFF,
    }
}

impl Pace {
    /// For the calling thread.
    pub(crate) fn new(budgets: Budgets) -> Self {
        let (now, thread_cpu, process_cpu) = (Instant::now(), cpu_time(THREAD), cpu_time(PROCESS));
        let state = State {
            checked: now,
            thread_cpu,
            cpu: Debt::default(),
            bytes: Debt::default(),
            measured: now,
            measured_process_cpu: process_cpu,
            measured_thread_cpu: thread_cpu,
            // Until it is known otherwise.
            load: BUSY_LOAD,
            rested: Duration::ZERO,
        };
        Self { budgets, state: Mutex::new(state) }
    }

    /// Notes that so many bytes more are done, and rests as long as the budgets demand, or until `is_over`.
    pub(crate) fn keep(&self, bytes: u64, is_over: impl Fn() -> bool) {
        let mut state = self.state.lock();
        if let Some(rate) = self.budgets.bytes_per_second {
            state.bytes.add(bytes as f64 / rate.max(1) as f64, 0.0);
        }
        while state.checked.elapsed() >= CHECK_INTERVAL && !is_over() {
            state.check(&self.budgets);
            let debt = state.cpu.0.max(state.bytes.0);
            if debt <= 0.0 {
                break;
            }
            let rest = Duration::from_secs_f64(debt).clamp(CHECK_INTERVAL, REST_MAX);
            state.rested += rest;
            thread::sleep(rest);
        }
    }

    /// How long it has rested.
    pub(crate) fn rested(&self) -> Duration {
        self.state.lock().rested
    }
}

impl State {
    fn check(&mut self, budgets: &Budgets) {
        let (now, thread_cpu) = (Instant::now(), cpu_time(THREAD));
        let elapsed = (now - self.checked).as_secs_f64();
        let taken = thread_cpu.saturating_sub(self.thread_cpu).as_secs_f64();
        (self.checked, self.thread_cpu) = (now, thread_cpu);
        self.cpu.add(taken / cpu_share(budgets, self.load), elapsed);
        self.bytes.add(0.0, elapsed);
        let since = now - self.measured;
        if since >= MEASURE_INTERVAL {
            let process_cpu = cpu_time(PROCESS);
            let all = process_cpu.saturating_sub(self.measured_process_cpu);
            let own = thread_cpu.saturating_sub(self.measured_thread_cpu);
            let processors = thread::available_parallelism().map_or(1, std::num::NonZero::get);
            self.load = all.saturating_sub(own).as_secs_f64() / (since.as_secs_f64() * processors as f64);
            (self.measured, self.measured_process_cpu, self.measured_thread_cpu) = (now, process_cpu, thread_cpu);
        }
    }
}

const THREAD: ClockId = ClockId::ThreadCPUTime;
const PROCESS: ClockId = ClockId::ProcessCPUTime;

/// What the calling thread, or the process, has used of processors.
pub(crate) fn cpu_time(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// What the calling thread has used of processors.
pub(crate) fn thread_cpu_time() -> Duration {
    cpu_time(THREAD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_depends_on_what_others_need() {
        let budgets = Budgets { cpu_share: 0.4, bytes_per_second: None };
        let share = |load| cpu_share(&budgets, load);
        assert_eq!(
            [share(0.0), share(0.09), share(0.1), share(0.49), share(0.5), share(2.0)],
            [1.0, 1.0, 0.4, 0.4, 0.1, 0.1]
        );
    }

    #[test]
    fn debts_grow_by_what_is_taken_and_shrink_with_time() {
        let mut debt = Debt::default();
        debt.add(0.3, 0.1);
        assert!((debt.0 - 0.2).abs() < 1e-9);
        debt.add(0.0, 0.1);
        assert!((debt.0 - 0.1).abs() < 1e-9);
        debt.add(0.0, 1000.0);
        assert_eq!(debt, Debt(-AHEAD_SECONDS), "time does not pile up");
        debt.add(1000.0, 0.0);
        assert_eq!(debt, Debt(DEBT_SECONDS_MAX));
    }

    #[test]
    fn bytes_beyond_the_rate_are_waited_for_but_not_by_who_is_to_end() {
        let budgets = Budgets { cpu_share: 1.0, bytes_per_second: Some(1 << 10) };
        let pace = Pace::new(budgets);
        thread::sleep(2 * CHECK_INTERVAL);
        let asked = std::cell::Cell::new(0);
        pace.keep(1 << 40, || asked.replace(asked.get() + 1) > 1);
        assert!(pace.rested() > Duration::ZERO, "it would go on for seconds");
        let rested = pace.rested();
        pace.keep(1 << 40, || true);
        assert_eq!(pace.rested(), rested);
    }
}
