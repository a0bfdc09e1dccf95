//! `govc compact`: repositories of a store that no server has open, stored smaller.

use std::process::ExitCode;

use clap::Args;
use govc_compaction::{CompactOptions, compact};
use govc_engine::{Durability, ErrorKind, Repo, RepoName, Store};

use super::command::{Failure, Outcome, StoreArgs, bar, open, told};
use super::size::Bytes;
use crate::app::store_options;

/// `govc compact`
#[derive(Debug, Args)]
pub(crate) struct CompactArgs {
    /// A repository [default: all]
    repo: Option<String>,

    /// As small as it gets, for repositories that nobody writes to any more; takes several times as long
    #[arg(long)]
    archive: bool,

    #[command(flatten)]
    store: StoreArgs,
}

impl CompactArgs {
    /// Runs the command.
    pub(crate) fn run(self) -> ExitCode {
        told(self.outcome())
    }

    fn outcome(self) -> Outcome {
        let name = self.repo.as_deref().map(RepoName::new).transpose().map_err(Failure::usage)?;
        let config = self.store.load()?;
        let bar = bar()?;
        let store = Store::open(open(&config.storage.backend, &config)?, store_options(&config))?;
        let repos = match &name {
            Some(name) => vec![store.repo(name)?],
            None => store.list(None, usize::MAX),
        };
        let options = if self.archive { CompactOptions::archive() } else { CompactOptions::default() };
        let compacted = compact_all(&store, &repos, &options, &bar);
        drop(repos);
        store.close()?;
        compacted.map(|()| ExitCode::SUCCESS)
    }
}

fn compact_all(store: &Store, repos: &[Repo], options: &CompactOptions, bar: &super::bar::Bar) -> Result<(), Failure> {
    // What is in the journal only is stored with the rest.
    store.settle();
    let (mut before, mut after, mut failed) = (0, 0, 0);
    for repo in repos.iter().filter(|repo| repo.settings().durability != Durability::Memory) {
        let done = match compact(repo, options, bar) {
            Ok(done) => done,
            // What is wrong with one repository is no reason to leave out the others.
            Err(error) if *error.kind() == ErrorKind::Corrupt && repos.len() > 1 => {
                eprintln!("govc: {}: {error}", repo.name());
                failed += 1;
                continue;
            }
            Err(error) => return Err(Failure::from(error.context(repo.name().to_string()))),
        };
        say!(
            "{}: {} objects of {}, stored in {} instead of {}{}",
            repo.name(),
            done.objects,
            Bytes(done.object_bytes),
            Bytes(done.stored_bytes_after),
            Bytes(done.stored_bytes_before),
            match done.removed {
                0 => String::new(),
                removed => format!("; {removed} removed, of {}", Bytes(done.removed_bytes)),
            }
        );
        before += done.stored_bytes_before;
        after += done.stored_bytes_after;
    }
    if repos.len() > 1 {
        say!("all: {} instead of {}", Bytes(after), Bytes(before));
    }
    if failed > 0 {
        return Err(Failure::new(format!("{failed} of {} repositories could not be compacted", repos.len())));
    }
    Ok(())
}
