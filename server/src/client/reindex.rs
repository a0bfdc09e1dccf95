//! `govc reindex`: has a server make its search index anew, and waits for it.

use std::{process::ExitCode, thread, time::Duration};

use clap::Args;

use super::ask::{SERVER_DEFAULT, get, post};

/// The server refused, or was not reached.
const EXIT_FAILURE: u8 = 2;
/// Between two looks.
const WAIT: Duration = Duration::from_millis(200);
/// Looks at a server that does nothing, until it is taken to have given up: ten seconds.
const IDLE_MAX: u32 = 50;

/// `govc reindex`
#[derive(Debug, Args)]
pub(crate) struct ReindexArgs {
    /// The server
    #[arg(long, value_name = "URL", default_value = SERVER_DEFAULT)]
    server: String,

    /// Do not wait until it is done
    #[arg(long)]
    no_wait: bool,
}

impl ReindexArgs {
    /// Runs the command: 0 if the index was made anew, or with `--no-wait` will be; 2 if it was not, or the server could not be asked.
    pub(crate) fn run(self) -> ExitCode {
        match self.reindex() {
            Ok(said) => {
                println!("{said}");
                ExitCode::SUCCESS
            }
            Err(message) => {
                eprintln!("govc: {message}");
                ExitCode::from(EXIT_FAILURE)
            }
        }
    }

    fn reindex(&self) -> Result<String, String> {
        let server = self.server.trim_end_matches('/');
        let statistics = || get(&format!("{server}/api/v1/search/statistics"));
        let rebuilds = |answer: &serde_json::Value| answer["rebuilds"].as_u64().unwrap_or(0);
        let before = rebuilds(&statistics()?);
        let begun = post(&format!("{server}/api/v1/search/rebuild"))?;
        if self.no_wait {
            return Ok(match begun["state"].as_str() {
                Some("running") => "the search index is being made anew already".to_owned(),
                _ => "the search index will be made anew".to_owned(),
            });
        }
        let mut idle = 0;
        loop {
            let now = statistics()?;
            if rebuilds(&now) > before && now["rebuilding"] == false {
                let number = |name: &str| now[name].as_u64().unwrap_or(0);
                let bytes = number("text_bytes").saturating_add(number("index_bytes"));
                return Ok(format!("the search index was made anew: {} files, {bytes} bytes", number("files")));
            }
            if rebuilds(&now) < before {
                return Err("the server was started again meanwhile; ask once more".to_owned());
            }
            // A server that could not goes on with the index that it has.
            idle = if now["rebuilding"] == true { 0 } else { idle + 1 };
            if idle > IDLE_MAX {
                let error = now["last_error"].as_str().unwrap_or("the server does not say why");
                return Err(format!("the search index was not made anew: {error}"));
            }
            thread::sleep(WAIT);
        }
    }
}
