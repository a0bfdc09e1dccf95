//! The command line: `govc serve`, what is done with a whole store (`admin`), and `govc version`.
//!
//! Flags are taken as text and left to [`Config`], which parses them as it does
//! the environment's and the file's values, so that all three refuse the same things in the same words.

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::admin::{
    BackupArgs, BenchArgs, CompactArgs, CopyArgs, ExportArgs, FsckArgs, ImportArgs, RestoreArgs, StatsArgs,
};
use crate::client::{ReindexArgs, SearchArgs};
use crate::config::Config;
use crate::definitions;
use crate::serve;

/// The version of the program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A bad flag, variable or file; clap's own errors end with the same code.
const EXIT_USAGE: u8 = 2;

#[derive(Debug, Parser)]
#[command(
    name = "govc",
    version,
    about = "A memory-first, Git-compatible repository server",
    long_about = "govc is a database server whose data are Git repositories: push to it and clone from it \
                  with any git client, or commit and read through its HTTP API under /api/v1.",
    arg_required_else_help = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the server
    #[command(
        long_about = "Start the server.\n\nIt prints one line with its address on standard output when it \
                      is ready, and logs to standard error. SIGTERM and SIGINT let requests in flight \
                      finish (at most 30 s), then make everything durable and end; a second signal ends \
                      at once.\n\nEvery setting may be given as a flag, as an environment variable or in \
                      the TOML file that --config names; flags win over the environment, the environment \
                      over the file. Unknown names and bad values are errors.",
        after_long_help = SETTINGS_HELP
    )]
    Serve(Box<ServeArgs>),
    /// Copy a store from one backend to another
    #[command(
        long_about = "Copy a store from one backend to another.\n\nThe source is read as of one moment; a server may \
                            have it open and write it meanwhile. An interrupted copy goes on when it is begun again. In \
                            the end everything is read back and compared. A server is moved by copying, stopping it, \
                            bringing the copy up to date with --update, and starting it on the copy."
    )]
    Copy(CopyArgs),
    /// Write a store to a file
    #[command(
        long_about = "Write one moment of a store to a file, whole, or what has changed since another backup. A \
                            server may have the store open and write it meanwhile. The file is there complete and \
                            durable, or not at all."
    )]
    Backup(BackupArgs),
    /// Make a store from backup files
    #[command(
        long_about = "Make a store from a whole backup and the incremental ones that follow it. The target must \
                            be empty. In the end everything is read back and compared."
    )]
    Restore(RestoreArgs),
    /// Check a whole store
    #[command(
        long_about = "Check one moment of a store: every row, every block, every object by its id, everything that \
                            references reach. Changes nothing; a server may have the store open. The exit code is 0 if \
                            nothing is wrong and 1 if something is."
    )]
    Fsck(FsckArgs),
    /// Tell what a store takes, by family and repository
    #[command(
        long_about = "Tell what one moment of a store takes, by family and repository. Reads all of it; a server \
                            may have the store open."
    )]
    Stats(StatsArgs),
    /// Store repositories smaller
    #[command(
        long_about = "Store repositories anew and smaller, each object as a delta against the base that makes it small. \
                            Every object is read back and hashed before it takes the place of what was there. No server \
                            may have the store open: ask a running one with POST /api/v1/repos/{id}/compact."
    )]
    Compact(CompactArgs),
    /// Bring in a repository from a Git server, a folder or a bundle
    #[command(
        long_about = "Bring in a repository from a Git server over http:// or https://, from the folder of a repository, or from a \
                            bundle file, into a store that no server has open. No git is needed, and no settings of one are \
                            read.\n\nEverything is checked as in a push and published at once: what is refused or interrupted \
                            changes nothing. The same command again brings what came since; with --mirror all references \
                            become what they are at the source. The history of a repository that is new comes from a server in \
                            slices, which are kept in the data folder until all are there: after an interruption the same \
                            command asks only for what is missing.\n\nThe exit code is 0 when the repository is as the source \
                            has it, 1 when it is not, 2 for bad arguments, 130 after an interruption."
    )]
    Import(ImportArgs),
    /// Write a repository as a bare Git repository or a bundle
    #[command(
        long_about = "Write one moment of a repository to a folder, as a bare Git repository (one pack and its index, packed-refs, \
                            HEAD), or to a file that ends in .bundle, as a Git bundle (version 2). A server may have the store \
                            open and write it meanwhile. What is written is there complete and durable, or not at all; nothing \
                            is overwritten. Realities are not exported."
    )]
    Export(ExportArgs),
    /// Search the repositories of a running server
    #[command(
        long_about = "Search the repositories of a running server.\n\nA query is words, \"phrases\" and /regexes/, joined by \
                            AND (or a space), OR, NOT (or -) and parentheses, and narrowed by repo: path: lang: sym: rev: \
                            branch: type: case: count: author: message: before: after:. The exit code is 0 if something \
                            was found, 1 if nothing was, and 2 if the server could not be asked."
    )]
    Search(SearchArgs),
    /// Have a server make its search index anew, while searches go on with the one that it has
    Reindex(ReindexArgs),
    /// Tell what source files define (started by the server)
    #[command(hide = true)]
    Definitions,
    /// Measure storage backends with the same work, compare reports
    #[command(
        long_about = "Measure storage backends with the same work, verify what they hold afterwards, and write a \
                            table, report.json and report.html. Everything that is measured is made for it and removed \
                            again: folders of its own, a schema of its own (govc_bench_...) in a database."
    )]
    Bench(BenchArgs),
    /// Print the version
    #[command(long_about = "Print the program's name and version on one line.")]
    Version,
}

#[derive(Debug, Args)]
struct ServeArgs {
    /// Address and port to listen on; port 0 takes a free one [default: 127.0.0.1:8080] [env: GOVC_LISTEN]
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,

    /// Folder of the data, made if it is missing [default: ./govc-data] [env: GOVC_DATA]
    #[arg(long, value_name = "DIR")]
    data: Option<String>,

    /// What keeps the data: rocksdb or sqlite (under the data folder), memory (nothing survives), or a URL:
    /// rocksdb://PATH, sqlite://PATH, postgres://USER@HOST/DATABASE [default: rocksdb] [env: GOVC_BACKEND]
    #[arg(long, value_name = "URL")]
    backend: Option<String>,

    /// TOML file with settings [env: GOVC_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<String>,

    /// Memory for repository data, such as 2G [default: half of the machine's] [env: GOVC_MEMORY]
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,

    /// Free disk space to leave alone; writes are refused before it is used [default: 256MiB] [env: GOVC_RESERVE]
    #[arg(long, value_name = "SIZE")]
    reserve: Option<String>,

    /// Let a push to a repository that does not exist create it [env: GOVC_CREATE_ON_PUSH]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    create_on_push: Option<String>,

    /// Listen beyond loopback although everyone who reaches the server may do everything
    /// [env: GOVC_INSECURE_NO_AUTH]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    insecure_no_auth: Option<String>,

    /// Serve HTTPS with this certificate: a PEM file, with what leads from it to an authority [env: GOVC_TLS_CERT]
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<String>,

    /// The certificate's private key: a PEM file [env: GOVC_TLS_KEY]
    #[arg(long, value_name = "FILE")]
    tls_key: Option<String>,

    /// Serve Git over SSH too, at this address and port [env: GOVC_SSH_LISTEN]
    #[arg(long, value_name = "ADDR")]
    ssh_listen: Option<String>,

    /// The keys that may come in over SSH: a file like OpenSSH's authorized_keys [env: GOVC_SSH_AUTHORIZED_KEYS]
    #[arg(long, value_name = "FILE")]
    ssh_authorized_keys: Option<String>,

    /// Largest body of an API request [default: 128MiB] [env: GOVC_MAX_BODY]
    #[arg(long, value_name = "SIZE")]
    max_body: Option<String>,

    /// Largest single Git object [default: 128MiB] [env: GOVC_MAX_OBJECT]
    #[arg(long, value_name = "SIZE")]
    max_object: Option<String>,

    /// Largest pack that a push may send [default: 4GiB] [env: GOVC_MAX_PACK]
    #[arg(long, value_name = "SIZE")]
    max_pack: Option<String>,

    /// Least severe level that is logged: trace, debug, info, warn, error or off [default: info]
    /// [env: GOVC_LOG_LEVEL]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,

    /// Form of a log line: json or text [default: json] [env: GOVC_LOG_FORMAT]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
}

/// What `govc serve --help` says about the file and the settings that have no flag.
const SETTINGS_HELP: &str = "\
The TOML file (--config, GOVC_CONFIG), with the defaults:

  [server]
  listen = \"127.0.0.1:8080\"     # GOVC_LISTEN
  host, port                    # GOVC_HOST, GOVC_PORT: the parts of listen, instead of it
  insecure_no_auth = false      # GOVC_INSECURE_NO_AUTH
  max_body = \"128MiB\"           # GOVC_MAX_BODY
  body_timeout = \"60s\"          # GOVC_BODY_TIMEOUT: until 16 KiB of a body have come, or are taken of an answer
  max_buffered                  # GOVC_MAX_BUFFERED: for bodies and answers in flight; default 1/8 of memory,
                                # at least twice max_body
  header_timeout = \"60s\"        # GOVC_HEADER_TIMEOUT: for a request's head, and idle connections
  max_connections = 8192        # GOVC_MAX_CONNECTIONS
  work_threads                  # GOVC_WORK_THREADS: for long work; default 8 a processor, 16 to 256
  work_queue = 1024             # GOVC_WORK_QUEUE: long work that may wait for a thread
  work_timeout = \"60s\"          # GOVC_WORK_TIMEOUT: how long it may wait, and then run
  shutdown_timeout = \"30s\"      # GOVC_SHUTDOWN_TIMEOUT: at most 30s
  tls_cert, tls_key             # GOVC_TLS_CERT, GOVC_TLS_KEY: PEM files; HTTPS instead of HTTP. Changed files are used at once
                                # on SIGHUP, and within some seconds without it
  ssh_listen                    # GOVC_SSH_LISTEN: an address for Git over SSH; needs
  ssh_authorized_keys           # GOVC_SSH_AUTHORIZED_KEYS: a file like OpenSSH's, looked at for each login
  ssh_host_key                  # GOVC_SSH_HOST_KEY: a private key; default one that is made in the data folder
  public_url                    # GOVC_PUBLIC_URL: the address in links of Git LFS; default the one that was asked for

  [storage]
  backend = \"rocksdb\"           # GOVC_BACKEND: also sqlite, memory, or a URL
  data = \"./govc-data\"          # GOVC_DATA
  memory                        # GOVC_MEMORY: default half of the machine's
  reserve = \"256MiB\"            # GOVC_RESERVE
  max_object = \"128MiB\"         # GOVC_MAX_OBJECT
  relaxed_delay = \"100ms\"       # GOVC_RELAXED_DELAY: what a relaxed repository may lose

  [versions]
  max_count = 10000000          # GOVC_VERSIONS_MAX_COUNT: superseded versions that a repository keeps
  max_age = \"90d\"               # GOVC_VERSIONS_MAX_AGE: how long it keeps them

  [compaction]                  # of what has grown; POST /api/v1/repos/{id}/compact has it done now
  enabled = true                # GOVC_COMPACTION_ENABLED
  min_growth = \"4MiB\"         # GOVC_COMPACTION_MIN_GROWTH: what has come to a repository, at least
  growth_percent = 25           # GOVC_COMPACTION_GROWTH_PERCENT: and of what is compacted already
  archive_after = \"30d\"         # GOVC_COMPACTION_ARCHIVE_AFTER: without a write; or \"never\"
  cpu_percent = 25              # GOVC_COMPACTION_CPU_PERCENT: of one processor, while the server is in use
  max_rate = 0                  # GOVC_COMPACTION_MAX_RATE: bytes a second, such as \"50MiB\"; 0 for any
  memory = \"512MiB\"           # GOVC_COMPACTION_MEMORY: beside the budget, at most a quarter of it by default

  [search]
  enabled = true                # GOVC_SEARCH_ENABLED: whether there is an index; without, searches read the files
  memory                        # GOVC_SEARCH_MEMORY: for directories and definitions; default 1/16 of memory,
                                # at most 256MiB; mapped files come on top

  [limits]
  references = 1000000          # GOVC_LIMITS_REFERENCES: that one push or call may change
  changes = 100000              # GOVC_LIMITS_CHANGES: of one commit over HTTP
  realities = 100000            # GOVC_LIMITS_REALITIES: that one call may make

  [transactions]
  max_open = 10000              # GOVC_TRANSACTIONS_MAX_OPEN
  max_bytes = \"256MiB\"          # GOVC_TRANSACTIONS_MAX_BYTES: that all open ones hold, beside memory
  idle = \"10m\"                  # GOVC_TRANSACTIONS_IDLE: how long one lives that is not used

  [logging]
  level = \"info\"                # GOVC_LOG_LEVEL
  format = \"json\"               # GOVC_LOG_FORMAT

  [metrics]
  enabled = true                # GOVC_METRICS_ENABLED
  path = \"/metrics\"             # GOVC_METRICS_PATH

  [git]
  create_on_push = false        # GOVC_CREATE_ON_PUSH
  default_object_format = \"sha1\"  # GOVC_DEFAULT_OBJECT_FORMAT: or sha256, of repositories made without saying it
  max_pack = \"4GiB\"             # GOVC_MAX_PACK
  pack_cache_memory             # GOVC_PACK_CACHE_MEMORY: default 1/8 of memory, at most 256MiB
  pack_cache_disk = \"4GiB\"      # GOVC_PACK_CACHE_DISK
  fetch_grace = \"60s\"           # GOVC_FETCH_GRACE: what a reference named can be fetched so long after
  allowed_signers               # GOVC_ALLOWED_SIGNERS: file of the SSH keys that may sign pushes
  cert_nonce_slop = \"15m\"       # GOVC_CERT_NONCE_SLOP: how old what a push over HTTP signs may be
  bundle_uris = false           # GOVC_BUNDLE_URIS: tell clients that ask of a bundle to download first
  packfile_uris                 # GOVC_PACKFILE_URIS: point those that take it at a pack to download;
                                # default: if server.public_url is set
  uri_min_pack = \"16MiB\"        # GOVC_URI_MIN_PACK: smaller ones are not worth it
  uri_lifetime = \"1h\"           # GOVC_URI_LIFETIME: how long what a client was told of is there

  [lfs]
  max_object = \"16GiB\"          # GOVC_LFS_MAX_OBJECT: largest file of Git LFS

Sizes: 4096, 512MiB, 2G (powers of 1024), 500MB (powers of 1000). Durations: 500ms, 30s, 5m, 1h; ages\nalso 90d.";

/// Runs the program that the process's arguments ask for, to its end.
pub fn run() -> ExitCode {
    match Cli::parse().command {
        Command::Serve(args) => match Config::load(args.given()) {
            Ok(config) => {
                definitions::is_able();
                serve::run(config)
            }
            Err(error) => {
                eprintln!("govc: {error}");
                ExitCode::from(EXIT_USAGE)
            }
        },
        Command::Copy(args) => args.run(),
        Command::Backup(args) => args.run(),
        Command::Restore(args) => args.run(),
        Command::Fsck(args) => args.run(),
        Command::Stats(args) => args.run(),
        Command::Compact(args) => args.run(),
        Command::Import(args) => args.run(),
        Command::Export(args) => args.run(),
        Command::Search(args) => args.run(),
        Command::Reindex(args) => args.run(),
        Command::Definitions => definitions::serve(),
        Command::Bench(args) => args.run(),
        Command::Version => {
            println!("govc {VERSION}");
            ExitCode::SUCCESS
        }
    }
}

impl ServeArgs {
    /// The flags that are present, under the names that [`Config`] knows.
    fn given(self) -> Vec<(&'static str, String)> {
        let flags = [
            ("listen", self.listen),
            ("data", self.data),
            ("backend", self.backend),
            ("config", self.config),
            ("memory", self.memory),
            ("reserve", self.reserve),
            ("create-on-push", self.create_on_push),
            ("insecure-no-auth", self.insecure_no_auth),
            ("tls-cert", self.tls_cert),
            ("tls-key", self.tls_key),
            ("ssh-listen", self.ssh_listen),
            ("ssh-authorized-keys", self.ssh_authorized_keys),
            ("max-body", self.max_body),
            ("max-object", self.max_object),
            ("max-pack", self.max_pack),
            ("log-level", self.log_level),
            ("log-format", self.log_format),
        ];
        flags.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

/// The whole help of `govc serve`.
#[cfg(test)]
pub(crate) fn serve_help() -> String {
    use clap::CommandFactory;
    let mut command = Cli::command();
    let serve = command.find_subcommand_mut("serve").expect("serve is a subcommand");
    serve.render_long_help().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn given(arguments: &[&str]) -> Result<Vec<(&'static str, String)>, clap::Error> {
        let arguments = ["govc", "serve"].iter().chain(arguments);
        match Cli::try_parse_from(arguments)?.command {
            Command::Serve(args) => Ok(args.given()),
            _ => unreachable!("serve was asked for"),
        }
    }

    #[test]
    fn the_commands_are_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn switches_may_carry_a_value() {
        assert!(given(&[]).unwrap().is_empty());
        let on = ("create-on-push", "true".to_owned());
        assert_eq!(given(&["--create-on-push"]).unwrap(), [on]);
        let off = ("create-on-push", "false".to_owned());
        assert_eq!(given(&["--create-on-push=false"]).unwrap(), [off]);
        given(&["--create-on-push", "true"]).unwrap_err();
    }

    #[test]
    fn every_flag_is_a_setting() {
        let command = Cli::command();
        let serve = command.find_subcommand("serve").expect("serve is a subcommand");
        let flags: Vec<_> = serve.get_arguments().filter_map(clap::Arg::get_long).collect();
        assert!(flags.len() >= 13, "{flags:?}");
        for flag in flags.into_iter().filter(|flag| !["help", "config"].contains(flag)) {
            let arguments = [format!("--{flag}=\u{1}")];
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let flags = given(&arguments).unwrap();
            let found = crate::config::Given { flags, ..Default::default() };
            let message = Config::resolve(&found).map(|config| config.storage.data.display().to_string());
            // A folder may have any name; every other setting refuses a control byte.
            match message {
                Ok(data) => assert!(flag == "data" && data == "\u{1}", "--{flag} was ignored"),
                Err(error) => assert!(error.to_string().contains(&format!("--{flag}")), "{error}"),
            }
        }
    }
}
