//! What is to be measured: the profile, how long, from which seed, with which amounts.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use govc_engine::Backend;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::workload::WORKLOADS;

/// What the users of a store do most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Many writers make small commits, each on a branch of its own, in several repositories.
    Agents,
    /// Mostly reads: whole clones of a middling repository that few commits change.
    Ci,
    /// One repository with large trees: commits change 10 of 1000 files.
    Monorepo,
    /// A long history comes in at once.
    Import,
}

impl Profile {
    /// All of them.
    pub const ALL: [Profile; 4] = [Profile::Agents, Profile::Ci, Profile::Monorepo, Profile::Import];

    /// The word used on command lines and in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Profile::Agents => "agents",
            Profile::Ci => "ci",
            Profile::Monorepo => "monorepo",
            Profile::Import => "import",
        }
    }

    pub(crate) fn shape(self) -> Shape {
        let agents = Shape { folders: 10, files: 100, changed: 1, writers: 16, repositories: 4, commits: 20_000 };
        match self {
            Profile::Agents => agents,
            Profile::Ci => Shape { folders: 20, files: 200, changed: 2, writers: 4, repositories: 1, commits: 12_000 },
            Profile::Monorepo => {
                Shape { folders: 10, files: 1000, changed: 10, writers: 8, repositories: 1, commits: 3_000 }
            }
            Profile::Import => {
                Shape { folders: 20, files: 400, changed: 2, repositories: 2, commits: 40_000, ..agents }
            }
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Profile {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|profile| profile.as_str() == word).ok_or_else(|| {
            Error::new(ErrorKind::Invalid, format!("profile {word:?} is not one of agents, ci, monorepo, import"))
        })
    }
}

/// What a profile's trees and writers look like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) folders: usize,
    /// In all folders together.
    pub(crate) files: usize,
    /// Files that a commit changes.
    pub(crate) changed: usize,
    pub(crate) writers: usize,
    pub(crate) repositories: usize,
    /// Commits of the generated history.
    pub(crate) commits: usize,
}

/// How much there is to do, whatever the time. Two reports are compared only if these are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amounts {
    /// How often each figure is measured; it is the median of these.
    pub repetitions: usize,
    /// Operations after which a repetition ends, even if there is time left.
    pub operations_max: u64,
    /// Bytes after which a repetition that writes ends.
    pub written_bytes_max: u64,
    /// Commits of the generated history; `None` for the profile's own number.
    pub history_commits: Option<usize>,
    /// Bytes of objects after which reading a real history stops: it is held in memory.
    pub history_bytes_max: u64,
    /// Objects of the large store that is opened.
    pub open_objects: usize,
    /// References of the large store that is opened.
    pub open_references: usize,
}

impl Default for Amounts {
    fn default() -> Self {
        Self {
            repetitions: 3,
            operations_max: 1_000_000,
            written_bytes_max: 256 << 20,
            history_commits: None,
            history_bytes_max: 512 << 20,
            open_objects: 1_000_000,
            open_references: 100_000,
        }
    }
}

impl Amounts {
    /// As little as still goes through every workload: shows that a backend works, not how fast it is.
    pub fn brief() -> Self {
        Self {
            repetitions: 2,
            operations_max: 24,
            written_bytes_max: 1 << 20,
            history_commits: Some(150),
            history_bytes_max: 8 << 20,
            open_objects: 2000,
            open_references: 100,
        }
    }
}

/// What puts a wrapper around a backend.
type Wrap = dyn Fn(Arc<dyn Backend>) -> Arc<dyn Backend> + Send + Sync;

/// A wrapper around a backend whose cost is to be measured.
#[derive(Clone)]
pub struct Wrapper(Arc<Wrap>);

impl Wrapper {
    /// The wrapper that `wrap` puts around a backend.
    pub fn new(wrap: impl Fn(Arc<dyn Backend>) -> Arc<dyn Backend> + Send + Sync + 'static) -> Self {
        Self(Arc::new(wrap))
    }

    pub(crate) fn around(&self, backend: Arc<dyn Backend>) -> Arc<dyn Backend> {
        (self.0)(backend)
    }
}

impl fmt::Debug for Wrapper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wrapper")
    }
}

/// Ends a run early. Clones mean the same run.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Asks the run to stop; it does so after the operation it is in, and removes what it made.
    pub fn ask(&self) {
        // Nothing is published by it, so no ordering is needed.
        self.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) { Err(Error::cancelled()) } else { Ok(()) }
    }
}

/// The names of all workloads, in the order in which they run.
pub fn workloads() -> impl Iterator<Item = &'static str> {
    WORKLOADS.iter().map(|workload| workload.name)
}

/// What is to be measured.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What the users do most.
    pub profile: Profile,
    /// Seconds that each workload may measure on each backend, all repetitions together. Preparing and verifying
    /// come on top of it.
    pub seconds: u64,
    /// Where all contents and orders come from.
    pub seed: u64,
    /// A real bare repository whose objects are imported and read, instead of generated ones. It is only read.
    pub history: Option<PathBuf>,
    /// The workloads to run, by name ([`workloads`]); none means all.
    pub only: Vec<String>,
    /// How much there is to do.
    pub amounts: Amounts,
    /// A wrapper whose cost is measured beside the backend without it.
    pub wrapper: Option<Wrapper>,
    /// Ends the run early.
    pub stop: Stop,
}

impl Plan {
    /// Six seconds for each workload of a profile, seed 1, a generated history.
    pub fn new(profile: Profile) -> Self {
        Self {
            profile,
            seconds: 6,
            seed: 1,
            history: None,
            only: Vec::new(),
            amounts: Amounts::default(),
            wrapper: None,
            stop: Stop::default(),
        }
    }

    /// Whether a workload is to be run.
    pub(crate) fn includes(&self, workload: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == workload)
    }

    pub(crate) fn check(&self) -> Result<()> {
        let Amounts { repetitions, operations_max, open_objects, open_references, history_commits, .. } = self.amounts;
        let wrong = |message: &str| Err(Error::new(ErrorKind::Invalid, message));
        if self.seconds == 0 || self.seconds > 3600 {
            return wrong("a workload takes between 1 and 3600 seconds");
        }
        if repetitions == 0 || repetitions > 100 {
            return wrong("there are between 1 and 100 repetitions");
        }
        if operations_max == 0 || open_objects == 0 || open_references == 0 || history_commits == Some(0) {
            return wrong("no amount may be 0");
        }
        if let Some(unknown) = self.only.iter().find(|name| !workloads().any(|known| known == *name)) {
            let known: Vec<&str> = workloads().collect();
            return wrong(&format!("there is no workload {unknown:?}; there are {}", known.join(", ")));
        }
        Ok(())
    }
}
