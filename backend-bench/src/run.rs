//! The run: every workload on every subject, one after the other, nothing left behind.

use crate::error::{Error, ErrorKind, Result};
use crate::inputs::Inputs;
use crate::machine::{self, Machine};
use crate::plan::Plan;
use crate::progress::Progress;
use crate::report::{FORMAT, Failure, Measured, Planned, Report, Row};
use crate::subject::{Bench, Subject};
use crate::workload::{BESIDE, Context, WORKLOADS};

/// Measures every subject. One that fails ends with its error in the report, and the others go on.
///
/// # Errors
/// [`ErrorKind::Invalid`] for a plan that cannot be carried out, [`ErrorKind::Cancelled`] when the run was asked to stop.
/// Whatever happens, every subject was told to remove what it made.
pub fn run(plan: &Plan, subjects: &mut [Box<dyn Subject>], progress: &mut dyn Progress) -> Result<Report> {
    plan.check()?;
    check_names(subjects)?;
    let date = jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M:%S UTC").to_string();
    let scope = Ending(progress);
    let progress = &mut *scope.0;
    let workloads = WORKLOADS.iter().filter(|workload| plan.includes(workload.name)).count();
    progress.begin(1 + subjects.len() * workloads);
    progress.step("making the history");
    let inputs = Inputs::make(plan)?;
    let mut measured = Vec::new();
    for subject in subjects {
        measured.push(measure(plan, &inputs, subject.as_mut(), progress)?);
    }
    let planned = Planned {
        profile: plan.profile,
        seconds: plan.seconds,
        seed: plan.seed,
        history: inputs.history.name.clone(),
        history_objects: inputs.history.objects.len() as u64,
        history_bytes: inputs.history.bytes,
        stored_bytes: inputs.import.stored_bytes,
        amounts: plan.amounts,
        inputs: inputs.digest.hex(),
    };
    Ok(Report {
        format: FORMAT,
        date,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        debug_build: cfg!(debug_assertions),
        machine: Machine::here(),
        plan: planned,
        subjects: measured,
    })
}

/// Ends the display however a run ends.
struct Ending<'a>(&'a mut dyn Progress);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

fn check_names(subjects: &[Box<dyn Subject>]) -> Result<()> {
    if subjects.is_empty() {
        return Err(Error::new(ErrorKind::Invalid, "there is no backend to measure"));
    }
    for (at, subject) in subjects.iter().enumerate() {
        if subjects[..at].iter().any(|other| other.name() == subject.name()) {
            return Err(Error::new(ErrorKind::Invalid, format!("two backends are called {}", subject.name())));
        }
    }
    Ok(())
}

/// Clears a subject however its measurement ends.
struct Cleared<'a>(Bench<'a>);

impl Drop for Cleared<'_> {
    fn drop(&mut self) {
        self.0.clear();
    }
}

/// Every workload on one subject. The only error is a request to stop.
fn measure(plan: &Plan, inputs: &Inputs, subject: &mut dyn Subject, progress: &mut dyn Progress) -> Result<Measured> {
    let (name, survival) = (subject.name().to_owned(), subject.survival());
    let mut measured = Measured { name, survival, file_system: None, rows: Vec::new(), failures: Vec::new() };
    let mut cleared = Cleared(Bench::new(subject));
    let bench = &mut cleared.0;
    for workload in WORKLOADS.iter().filter(|workload| plan.includes(workload.name)) {
        plan.stop.check()?;
        progress.step(&format!("{}: {}", measured.name, workload.name));
        let outcome = (workload.run)(&mut Context { plan, inputs, bench, progress });
        if measured.file_system.is_none() {
            measured.file_system = bench.subject.folder().and_then(machine::file_system);
        }
        match outcome {
            Ok(rows) => measured.rows.extend(rows),
            Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
            Err(error) => {
                // What lies in one workload may be right in the next; a backend that fails would only fail again.
                let wrong_contents = error.kind() == ErrorKind::Wrong;
                let ended = !matches!(error.kind(), ErrorKind::Wrong | ErrorKind::TooSlow);
                let (workload, error) = (workload.name.to_owned(), error.to_string());
                measured.failures.push(Failure { workload, error, wrong_contents, ended });
                if ended {
                    break;
                }
            }
        }
    }
    set_baselines(&mut measured.rows);
    Ok(measured)
}

fn set_baselines(rows: &mut [Row]) {
    for (id, other) in BESIDE {
        let median = rows.iter().find(|row| row.id == *other).map(|row| row.median);
        if let (Some(row), Some(median)) = (rows.iter_mut().find(|row| row.id == *id), median) {
            row.set_baseline(other, median);
        }
    }
}
