//! Measures memory and RocksDB in a folder, as the `govc` binary does: `local FOLDER [PROFILE [SECONDS [HISTORY]]]`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use govc_backend_bench::{Bar, Plan, Profile, Report, Subject, Survival, run};
use govc_backends::{MemoryBackend, RocksBackend, RocksOptions};
use govc_engine::{Backend, BackendResult};

struct Memory;

impl Subject for Memory {
    fn name(&self) -> &str {
        "memory"
    }

    fn survival(&self) -> Survival {
        Survival::Nothing
    }

    fn fresh(&mut self) -> BackendResult<Arc<dyn Backend>> {
        Ok(Arc::new(MemoryBackend::new()))
    }

    fn reopen(&mut self) -> Option<BackendResult<Arc<dyn Backend>>> {
        None
    }

    fn clear(&mut self) {}
}

struct Rocks(PathBuf);

impl Subject for Rocks {
    fn name(&self) -> &str {
        "rocksdb"
    }

    fn survival(&self) -> Survival {
        Survival::Machine
    }

    fn folder(&self) -> Option<&Path> {
        Some(&self.0)
    }

    fn fresh(&mut self) -> BackendResult<Arc<dyn Backend>> {
        self.clear();
        Ok(Arc::new(RocksBackend::open(&self.0, RocksOptions::default())?))
    }

    fn reopen(&mut self) -> Option<BackendResult<Arc<dyn Backend>>> {
        Some(RocksBackend::open(&self.0, RocksOptions::default()).map(|backend| Arc::new(backend) as Arc<dyn Backend>))
    }

    fn clear(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let folder = PathBuf::from(words.next().ok_or("usage: local FOLDER [PROFILE [SECONDS [HISTORY]]]")?);
    let mut plan = Plan::new(words.next().map_or(Ok(Profile::Agents), |word| word.parse())?);
    if let Some(seconds) = words.next() {
        plan.seconds = seconds.parse()?;
    }
    plan.history = words.next().map(PathBuf::from);
    std::fs::create_dir_all(&folder)?;
    let report: Report =
        run(&plan, &mut [Box::new(Memory), Box::new(Rocks(folder.join("rocksdb")))], &mut Bar::default())?;
    report.write(&folder)?;
    print!("{}", report.table());
    Ok(())
}
