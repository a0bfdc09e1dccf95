//! `govc import`: a repository from elsewhere, into a store that no server has open.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use govc_engine::{RepoName, Store};

use super::command::{Failure, Outcome, StoreArgs, bar, open, told};
use super::meter::Meter;
use super::size::Bytes;
use crate::app::store_options;
use crate::config;
use crate::git::pack::spool::Folder;
use crate::import::{Import, Imported, RemoteOptions, Scope, Source, Watch as _};

/// How long a server may say nothing: it may count for long before it sends.
const SILENCE_MAX: &str = "5m";
const BYTES_MAX: &str = "64GiB";

/// `govc import`
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// A URL of a Git server (http:// or https://), a bundle file, or the folder of a repository
    #[arg(value_name = "URL|PATH")]
    source: String,

    /// The repository to import into, made if it is missing [default: the last part of the source's name]
    #[arg(long, value_name = "REPO")]
    into: Option<String>,

    /// Take all references as they are, and delete what the source has not; without it branches and tags are taken
    #[arg(long)]
    mirror: bool,

    /// Let branches lose commits and tags change, and a mirror lose everything
    #[arg(long)]
    force: bool,

    /// Environment variable that holds a token (or password) for the server
    #[arg(long, value_name = "VAR")]
    token_env: Option<String>,

    /// Go where the server redirects to, if that is another host; credentials are not sent there
    #[arg(long)]
    follow_redirects: bool,

    /// PEM file with the certificates to trust, instead of Mozilla's
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,

    /// How many commits deep the first slice of a new history is; 0 fetches all of it at once
    #[arg(long, value_name = "N", default_value_t = 1000)]
    slice: u32,

    /// Most bytes of packs to receive
    #[arg(long, value_name = "SIZE", default_value = BYTES_MAX)]
    max_size: String,

    /// How long all of it may take, such as 1h [default: no limit]
    #[arg(long, value_name = "DURATION")]
    timeout: Option<String>,

    /// How long the server may say nothing
    #[arg(long, value_name = "DURATION", default_value = SILENCE_MAX)]
    silence: String,

    #[command(flatten)]
    store: StoreArgs,
}

impl ImportArgs {
    /// Runs the command.
    pub(crate) fn run(self) -> ExitCode {
        told(self.outcome())
    }

    fn outcome(self) -> Outcome {
        let of = |flag: &'static str| move |why: String| Failure::usage(format!("--{flag}: {why}"));
        let bytes_max = config::size(&self.max_size).map_err(of("max-size"))?;
        let timeout = self.timeout.as_deref().map(config::duration).transpose().map_err(of("timeout"))?;
        let silence_max: Duration = config::duration(&self.silence).map_err(of("silence"))?;
        let token = self.token_env.as_deref().map(config::secret).transpose().map_err(of("token-env"))?;
        let ca_pem = self.ca_file.as_ref().map(std::fs::read).transpose();
        let ca_pem = ca_pem.map_err(|error| Failure::usage(format!("--ca-file: {error}")))?;
        let into = match &self.into {
            Some(name) => name.clone(),
            None => name_of(&self.source).ok_or_else(|| Failure::usage("--into REPO says what it is to be called"))?,
        };
        let into = RepoName::new(&into).map_err(Failure::usage)?;
        let config = self.store.load()?;
        let options = RemoteOptions { token, follow_redirects: self.follow_redirects, ca_pem, silence_max };
        let store_options = store_options(&config);
        let mut source = Source::open(&self.source, options, &store_options.limits)?;
        let meter = Meter::new(bar()?);
        let location = &config.storage.backend;
        let store = Store::open(open(location, &config)?, store_options)?;
        let data = &config.storage.data;
        let import = Import {
            store: &store,
            into: into.clone(),
            scope: if self.mirror { Scope::Mirror } else { Scope::BranchesAndTags },
            force: self.force,
            slice: self.slice,
            // Where a server keeps its own, and looks for what was left.
            folder: Folder::new(data.join("packs").join(store.id().to_string()), config.storage.reserve_bytes),
            slices: data.join("imports").join(store.id().to_string()),
            bytes_max,
            deadline: timeout.and_then(|timeout| Instant::now().checked_add(timeout)),
            watch: &meter,
        };
        let imported = import.run(&mut source);
        let closed = store.close();
        let imported = imported?;
        closed?;
        for note in &imported.notes {
            meter.say(&format!("{note}\n"));
        }
        say!("{}", told_of(&imported, &into));
        Ok(ExitCode::SUCCESS)
    }
}

fn told_of(imported: &Imported, into: &RepoName) -> String {
    let Imported { created, references, added, updated, deleted, objects, bytes, .. } = imported;
    let made = if *created { ", which is new" } else { "" };
    if !created && added + updated + deleted == 0 {
        return format!("{into} is up to date: {references} references");
    }
    format!(
        "imported into {into}{made}: {references} references ({added} added, {updated} changed, {deleted} deleted), \
         {objects} objects, {} received",
        Bytes(*bytes)
    )
}

/// What a source is called: the last part of its path, without an ending.
fn name_of(source: &str) -> Option<String> {
    let source = source.split(['?', '#']).next().unwrap_or_default();
    let path = source.split_once("://").map_or(source, |(_, rest)| rest.split_once('/').map_or("", |(_, path)| path));
    let path = path.trim_end_matches('/');
    let path = path.strip_suffix("/.git").unwrap_or(path);
    let name = path.rsplit('/').next().unwrap_or_default();
    let name = name.strip_suffix(".git").or(name.strip_suffix(".bundle")).unwrap_or(name);
    (!name.is_empty() && !name.starts_with('.')).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::name_of;

    #[test]
    fn sources_are_called_by_the_last_part_of_their_path() {
        for (source, name) in [
            ("https://example.org/team/x.git", Some("x")),
            ("https://ada:secret@example.org/team/x/", Some("x")),
            ("https://example.org", None),
            ("https://ada:secret@example.org/", None),
            ("/srv/git/x.git/", Some("x")),
            ("work/x/.git", Some("x")),
            ("x.bundle", Some("x")),
            ("..", None),
            (".", None),
        ] {
            assert_eq!(name_of(source).as_deref(), name, "{source}");
        }
    }
}
