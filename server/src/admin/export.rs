//! `govc export`: one repository of a store, as files that git reads.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use govc_backends::OverlayBackend;
use govc_engine::{Error, ErrorKind, Progress as _, RepoName, Store};

use super::command::{Failure, Outcome, StoreArgs, bar, open_to_read, told};
use super::size::Bytes;
use crate::app::store_options;
use crate::export::{Exported, Form, export};

/// Objects between two looks at the bar.
const STEP: usize = 512;

/// `govc export`
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// The repository
    repo: String,

    /// A folder, for a bare repository, or a file that ends in .bundle; must not exist
    #[arg(value_name = "DIR|FILE.bundle")]
    target: PathBuf,

    /// Only these references: a name (main, v1.0, refs/notes/commits) or a pattern in which * is any text (refs/tags/v1.*);
    /// may be given several times [default: all]
    #[arg(long = "ref", value_name = "NAME")]
    references: Vec<String>,

    #[command(flatten)]
    store: StoreArgs,
}

impl ExportArgs {
    /// Runs the command.
    pub(crate) fn run(self) -> ExitCode {
        told(self.outcome())
    }

    fn outcome(self) -> Outcome {
        let name = RepoName::new(&self.repo).map_err(Failure::usage)?;
        let config = self.store.load()?;
        let bar = bar()?;
        let source = open_to_read(&config.storage.backend)?;
        // What is written while it opens goes to memory: the store stays as it is, and may be another's.
        let store = Store::open(Arc::new(OverlayBackend::new(source)), store_options(&config))?;
        let repo = store.repo(&name)?;
        let mut begun = false;
        let mut step = |done: usize, total: usize| {
            // While the objects are found, how many there are is not known.
            if total > 0 && !std::mem::replace(&mut begun, true) {
                bar.begin_count("exporting", total as u64);
            }
            if done.is_multiple_of(STEP) || done == total {
                if total > 0 {
                    bar.reach(done as u64);
                }
                if bar.is_cancelled() {
                    return Err(Error::new(ErrorKind::Cancelled, "the export was interrupted; nothing is left of it"));
                }
            }
            Ok(())
        };
        let exported = export(&repo, &self.target, &self.references, &mut step);
        bar.end();
        let Exported { form, references, objects, bytes, version } = exported?;
        let form = match form {
            Form::Bare => "a bare repository",
            Form::Bundle => "a bundle",
        };
        say!(
            "version {version} of {name} is in {}, {form}: {references} references, {objects} objects, {}",
            self.target.display(),
            Bytes(bytes)
        );
        Ok(ExitCode::SUCCESS)
    }
}
