//! What does the engine do in process, without a server? One noun a file.

mod commits;
mod load;
mod memory;
mod objects;
mod references;
mod scale;
mod table;
mod walk;

use std::io::Write;
use std::process::Command;
use std::sync::Arc;

use govc_backends::MemoryBackend;
use govc_engine::{
    Cause, Change, CommitRequest, Durability, Oid, RefEdit, RefName, Repo, RepoName, RepoSettings, Signature, Store,
    StoreOptions,
};

use crate::bench::Bench;
use crate::error::{Context, Error, Result};
use crate::report::Row;

const SUITE: &str = "engine";
const SECONDS: i64 = 1_700_000_000;
const MEMORY_BYTES: u64 = 12 << 30;

pub(crate) fn run(bench: &Bench) -> Result<Vec<Row>> {
    // Memory first: what others leave behind would be used again, and not be seen.
    let suites = [memory::run, table::run, commits::run, references::run, objects::run, walk::run, scale::run];
    suites.iter().map(|run| run(bench)).collect::<Result<Vec<_>>>().map(|rows| rows.concat())
}

fn open() -> Result<Store> {
    let options = StoreOptions { memory_budget_bytes: MEMORY_BYTES, ..StoreOptions::default() };
    Store::open(Arc::new(MemoryBackend::new()), options).context(|| "cannot open a store".into())
}

fn create(store: &Store, name: &str) -> Result<Repo> {
    let name = RepoName::new(name).context(|| "a name".into())?;
    let settings = RepoSettings { durability: Durability::Memory, ..RepoSettings::default() };
    store.create(&name, settings, "bench").context(|| "cannot create a repository".into())
}

fn branch(name: &str) -> Result<RefName> {
    RefName::branch(name).context(|| "a branch name".into())
}

fn request(branch: &RefName, files: Vec<(String, String)>, from: Option<Oid>) -> Result<CommitRequest> {
    let person = Signature::new("Bench", "bench@example.com", SECONDS, 0).context(|| "a signature".into())?;
    let changes = files.into_iter().map(|(path, text)| Change::put(path, text)).collect();
    let request = CommitRequest::new(branch.clone(), "change", person, changes);
    Ok(CommitRequest { allow_empty: true, create_branch_from: from, ..request })
}

fn publish(repo: &Repo, edits: Vec<RefEdit>) -> Result<()> {
    let mut transaction = repo.begin("bench", Cause::Api);
    for edit in edits {
        transaction.edit(edit).context(|| "an edit".into())?;
    }
    let published = transaction.prepare().and_then(|prepared| prepared.publish()).context(|| "publish".into())?;
    published.ticket.wait().context(|| "publish".into())
}

fn feed(mut command: Command, input: &[u8]) -> Result<()> {
    let mut child = command.spawn().context(|| "cannot start git".into())?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input).context(|| "cannot write to git".into())?;
    }
    let status = child.wait().context(|| "cannot wait for git".into())?;
    if status.success() { Ok(()) } else { Err(Error::new(format!("git failed: {status}"))) }
}
