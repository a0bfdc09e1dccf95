//! Runs of a model: how many schedules of which kinds, and the repetition of one.
//!
//! `GOVC_SHUTTLE_RUNS` schedules of each kind (random, and two of PCT: priorities that change once, or four times),
//! drawn by `GOVC_SHUTTLE_SEED`, or else by the clock. A failure prints its schedule; `GOVC_SHUTTLE_SCHEDULE`, that or
//! a file that holds it, repeats it.

use std::time::SystemTime;

use shuttle::{
    Config, MaxSteps, Runner,
    scheduler::{PctScheduler, RandomScheduler, ReplayScheduler, Scheduler, UncontrolledNondeterminismCheckScheduler},
};

/// Schedules of each kind.
const RUNS: usize = 2000;
/// Changes of priorities that a schedule of PCT makes.
const PCT_CHANGES: [usize; 2] = [2, 5];
/// Steps after which a model is taken to go on for ever; usual ones need some thousands.
const STEPS_MAX: usize = 200_000;
/// Stack of each thread: settling compresses.
const STACK_BYTES: usize = 1 << 20;

/// Runs `model` with many schedules, or with the one that is to be repeated.
#[track_caller]
pub(crate) fn check(model: impl Fn() + Copy + Send + Sync + 'static) {
    if let Ok(schedule) = std::env::var("GOVC_SHUTTLE_SCHEDULE") {
        let schedule = std::fs::read_to_string(&schedule).unwrap_or(schedule);
        let mut replay = ReplayScheduler::new_from_encoded(schedule.trim());
        // It ends where the model failed.
        replay.set_allow_incomplete();
        return run(replay, model);
    }
    let number = |name: &str| std::env::var(name).ok().map(|value| value.parse::<u64>().expect(name));
    let runs = number("GOVC_SHUTTLE_RUNS").map_or(RUNS, |runs| usize::try_from(runs).expect("a number of runs"));
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed = number("GOVC_SHUTTLE_SEED").unwrap_or_else(now);
    println!("seed {seed}, {runs} schedules of each kind");
    run(RandomScheduler::new_from_seed(seed, runs), model);
    for changes in PCT_CHANGES {
        run(PctScheduler::new_from_seed(seed, changes, runs), model);
    }
    // What decides and is not the schedule's would make failures that cannot be repeated.
    run(UncontrolledNondeterminismCheckScheduler::new(RandomScheduler::new_from_seed(seed, runs.min(20))), model);
}

fn run(scheduler: impl Scheduler + 'static, model: impl Fn() + Send + Sync + 'static) {
    let mut config = Config::new();
    config.stack_size = STACK_BYTES;
    config.max_steps = MaxSteps::FailAfter(STEPS_MAX);
    // That orderings are taken for stronger than they are is known.
    config.silence_warnings = true;
    Runner::new(scheduler, config).run(model);
}
