//! What a run found, as it is kept: rows, failures, the machine, the plan; and the places where it is written.

mod chart;
mod html;
mod number;
mod table;

use std::fs;
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::machine::Machine;
use crate::measure::{Digest, Latencies, Taken, median};
use crate::plan::{Amounts, Profile};
use crate::subject::Survival;

pub(crate) use number::{bytes, figure};
pub(crate) use table::wrap;

/// The version of the report's form. A reader refuses others.
pub const FORMAT: u32 = 1;

/// Which way calls to the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layer {
    /// The benchmark calls the backend.
    Raw,
    /// The benchmark calls the engine, and that the backend.
    Engine,
}

impl Layer {
    /// The word in reports.
    pub fn word(self) -> &'static str {
        match self {
            Layer::Raw => "raw",
            Layer::Engine => "engine",
        }
    }
}

/// Which figure is the better one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// The higher.
    Higher,
    /// The lower.
    Lower,
}

/// How long single operations took, in microseconds, all repetitions together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Operations that were timed.
    pub count: u64,
    /// Half of them took no longer.
    pub p50: f64,
    /// Nine in ten took no longer.
    pub p90: f64,
    /// 99 in 100 took no longer.
    pub p99: f64,
    /// 999 in 1000 took no longer.
    pub p999: f64,
    /// The longest.
    pub max: f64,
}

/// A figure beside another row's of the same subject and run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// The other row's id.
    pub row: String,
    /// This row's median by the other one's.
    pub ratio: f64,
}

/// One figure of one subject, whose contents were found right.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The same for all subjects and runs.
    pub id: String,
    /// Who called the backend.
    pub layer: Layer,
    /// What was done.
    pub work: String,
    /// What the figures count.
    pub unit: String,
    /// Which is better.
    pub better: Better,
    /// The median of all repetitions.
    pub median: f64,
    /// The least of them.
    pub min: f64,
    /// The greatest of them.
    pub max: f64,
    /// Each repetition's figure, in order.
    pub repetitions: Vec<f64>,
    /// Operations in all repetitions.
    pub operations: u64,
    /// How long single ones took, where they were timed.
    pub latency: Option<Latency>,
    /// Beside which row of the same subject it is to be read.
    pub baseline: Option<Baseline>,
    /// What was promised of each write when it was counted.
    pub durability: String,
    /// How the contents were compared, after the work and not counted.
    pub verified: String,
    /// Digest of what was written or read; equal for equal work.
    pub contents: String,
    /// What else a reader must know.
    pub note: Option<String>,
}

impl Row {
    pub(crate) fn new(id: &str, layer: Layer, work: impl Into<String>, unit: &str, repetitions: Vec<f64>) -> Self {
        let least = repetitions.iter().copied().fold(f64::INFINITY, f64::min);
        Self {
            id: id.to_owned(),
            layer,
            work: work.into(),
            unit: unit.to_owned(),
            better: Better::Higher,
            median: median(&repetitions),
            min: if repetitions.is_empty() { 0.0 } else { least },
            max: repetitions.iter().copied().fold(0.0, f64::max),
            repetitions,
            operations: 0,
            latency: None,
            baseline: None,
            durability: String::new(),
            verified: String::new(),
            contents: String::new(),
            note: None,
        }
    }

    /// A rate of operations: one figure for each repetition.
    pub(crate) fn rate(id: &str, layer: Layer, work: impl Into<String>, unit: &str, taken: &[Taken]) -> Self {
        let row = Self::new(id, layer, work, unit, taken.iter().map(Taken::per_second).collect());
        Self { operations: taken.iter().map(|taken| taken.operations).sum(), ..row }
    }

    /// A rate of bytes, in MB a second.
    pub(crate) fn throughput(id: &str, layer: Layer, work: impl Into<String>, taken: &[Taken]) -> Self {
        let row =
            Self::new(id, layer, work, "MB/s", taken.iter().map(|taken| taken.bytes_per_second() / 1e6).collect());
        Self { operations: taken.iter().map(|taken| taken.operations).sum(), ..row }
    }

    pub(crate) fn lower_is_better(self) -> Self {
        Self { better: Better::Lower, ..self }
    }

    pub(crate) fn operations(self, operations: u64) -> Self {
        Self { operations, ..self }
    }

    pub(crate) fn latency(self, latencies: &Latencies) -> Self {
        let latency = Latency {
            count: latencies.count(),
            p50: latencies.micros_at(0.5),
            p90: latencies.micros_at(0.9),
            p99: latencies.micros_at(0.99),
            p999: latencies.micros_at(0.999),
            max: latencies.micros_max(),
        };
        Self { latency: Some(latency), ..self }
    }

    pub(crate) fn set_baseline(&mut self, row: &str, median: f64) {
        let ratio = self.median / median;
        // A ratio to nothing is none, and JSON has no word for it.
        self.baseline = ratio.is_finite().then(|| Baseline { row: row.to_owned(), ratio });
    }

    pub(crate) fn durability(self, durability: impl Into<String>) -> Self {
        Self { durability: durability.into(), ..self }
    }

    pub(crate) fn verified(self, how: &str, contents: Digest) -> Self {
        Self { verified: how.to_owned(), contents: contents.hex(), ..self }
    }

    pub(crate) fn note(self, note: impl Into<String>) -> Self {
        Self { note: Some(note.into()), ..self }
    }
}

/// A workload without figures, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The workload.
    pub workload: String,
    /// What happened.
    pub error: String,
    /// Whether what was read was not what had been written.
    pub wrong_contents: bool,
    /// Whether nothing was measured on the subject after it.
    pub ended: bool,
}

/// What was found out about one subject.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// The subject's name.
    pub name: String,
    /// What a synced write survives.
    pub survival: Survival,
    /// The type of the file system of its folder, if it has one.
    pub file_system: Option<String>,
    /// The figures.
    pub rows: Vec<Row>,
    /// The workloads that gave none.
    pub failures: Vec<Failure>,
}

/// What was planned, as far as figures depend on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    /// The profile.
    pub profile: Profile,
    /// Seconds for each workload.
    pub seconds: u64,
    /// The seed.
    pub seed: u64,
    /// The history that was imported and read.
    pub history: String,
    /// Its objects.
    pub history_objects: u64,
    /// The bytes of its objects, and of deltas where they come in as such.
    pub history_bytes: u64,
    /// Bytes of the keys and values that it becomes.
    pub stored_bytes: u64,
    /// Amounts.
    pub amounts: Amounts,
    /// Digest of all inputs; equal for equal seeds.
    pub inputs: String,
}

/// What a run found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`FORMAT`].
    pub format: u32,
    /// When the run began, in UTC.
    pub date: String,
    /// The version of govc.
    pub version: String,
    /// Whether this is a program that was built without optimisation, whose figures mean little.
    pub debug_build: bool,
    /// Where it ran.
    pub machine: Machine,
    /// What was planned.
    pub plan: Planned,
    /// What was found, by subject.
    pub subjects: Vec<Measured>,
}

impl Report {
    /// The file that programs read.
    pub const JSON: &str = "report.json";
    /// The page that people read.
    pub const HTML: &str = "report.html";

    /// Writes `report.json` and `report.html` into a folder, which is made if it is not there. Each is whole or as it was
    /// before.
    ///
    /// # Errors
    /// [`ErrorKind::Files`] when one cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let failed = |error: &dyn std::fmt::Display| Error::files(folder.display(), error);
        fs::create_dir_all(folder).map_err(|error| failed(&error))?;
        let json = serde_json::to_string_pretty(self).map_err(|error| failed(&error))?;
        write_whole(folder, Self::JSON, &(json + "\n")).map_err(|error| failed(&error))?;
        write_whole(folder, Self::HTML, &self.html()).map_err(|error| failed(&error))
    }

    /// Reads a report: the file, or `report.json` in the folder.
    ///
    /// # Errors
    /// [`ErrorKind::Files`] if it cannot be read, [`ErrorKind::Invalid`] if it is no report or of another format.
    pub fn read(path: &Path) -> Result<Self> {
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let path = if path.is_dir() { path.join(Self::JSON) } else { path.to_path_buf() };
        let text = fs::read_to_string(&path).map_err(|error| Error::files(path.display(), error))?;
        let invalid = |why: &dyn std::fmt::Display| {
            Error::new(ErrorKind::Invalid, format!("{} is no report of this benchmark: {why}", path.display()))
        };
        let Head { format } = serde_json::from_str(&text).map_err(|error| invalid(&error))?;
        if format != FORMAT {
            return Err(invalid(&format!("its format is {format}, this program knows {FORMAT}")));
        }
        serde_json::from_str(&text).map_err(|error| invalid(&error))
    }

    /// Short names of the subjects, in their order: of URLs the scheme, with a number where several have it.
    fn labels(&self) -> Vec<String> {
        let short = |name: &str| name.split_once("://").map_or(name, |(scheme, _)| scheme).to_owned();
        let shorts: Vec<String> = self.subjects.iter().map(|subject| short(&subject.name)).collect();
        let label = |(at, label): (usize, &String)| {
            let is_alone = shorts.iter().filter(|other| *other == label).count() == 1;
            let number = 1 + shorts[..at].iter().filter(|other| *other == label).count();
            if is_alone { label.clone() } else { format!("{label} {number}") }
        };
        shorts.iter().enumerate().map(label).collect()
    }

    /// The figures as text for a terminal of 100 columns.
    pub fn table(&self) -> String {
        table::of(self)
    }

    /// The report as a page that needs nothing else.
    pub fn html(&self) -> String {
        html::page(self)
    }

    /// The ids of all rows that any subject has, in the order in which they are measured.
    pub fn row_ids(&self) -> Vec<&str> {
        let mut ids: Vec<&str> = Vec::new();
        for subject in &self.subjects {
            let mut after = 0;
            for row in &subject.rows {
                match ids.iter().position(|id| *id == row.id) {
                    Some(at) => after = at + 1,
                    None => {
                        ids.insert(after, &row.id);
                        after += 1;
                    }
                }
            }
        }
        ids
    }

    /// Whether every workload of every subject gave its figures.
    pub fn is_complete(&self) -> bool {
        self.subjects.iter().all(|subject| subject.failures.is_empty())
    }
}

impl Measured {
    /// The row of this id.
    pub fn row(&self, id: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.id == id)
    }
}

fn write_whole(folder: &Path, name: &str, text: &str) -> std::io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    // Temporary files are their owner's alone; a report is to be shown around.
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    file.as_file().set_permissions(readable)?;
    file.as_file().sync_all()?;
    file.persist(folder.join(name))?;
    Ok(())
}
