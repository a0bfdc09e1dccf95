//! The server as its users meet it: the real binary, the real `git`, HTTP by hand.
//!
//! | file | what is shown |
//! |---|---|
//! | `identity` | a whole history comes back bit by bit, over every protocol version, after stop and kill |
//! | `fetch`, `push` | what clients do all day |
//! | `clients` | a newer git, libgit2, dulwich, JGit, isomorphic-git, gix |
//! | `partial` | clones that leave something out, and objects by their ids |
//! | `requests` | features of version 2, and requests made to harm |
//! | `kept` | packs that are kept to be served again |
//! | `uris` | clones that get most by plain HTTP |
//! | `rules` | what a repository's settings refuse and hide |
//! | `refused`, `hostile` | pushes that break a rule, and packs made to harm |
//! | `extremes` | sound bytes beyond all measure, and clients that leave |
//! | `busy` | pushes to a branch that others push to |
//! | `crash` | `kill -9` under load, the orderly end |
//! | `wire` | clients that take their time |
//! | `slow`, `slow_push` | clients that are slow to take what they fetch, or to send what they push |
//! | `signed_push` | push certificates |
//! | `ssh` | Git over SSH, with OpenSSH's client |
//! | `ssh_login` | who comes in over SSH |
//! | `tls`, `http2`, `keep_alive` | HTTPS and its certificates; HTTP/2 connections; those of HTTP/1.1 that live on |
//! | `disk` | a full disk |
//! | `sync` | a disk that fails to sync, or claims to |
//! | `start` | settings, addresses, locks, health |
//! | `admin` | copies, backups, checks of whole stores from the command line |
//! | `lfs` | Git LFS with the real `git lfs`, and its API by hand |
//! | `archives` | the files of a commit as tar and zip |
//! | `export`, `import*` | repositories as files that git reads, and from folders, bundles and servers |
//! | `rest_*`, `grep`, `search*` | the API, and `govc search` |
//! | `formats` | repositories of either object format, and all of the above in SHA-256 |
//!
//! `GOVC_TEST_HISTORY=/path/to/bare.git[:/another.git]` runs `identity` and `histories_stay_identical` on real histories instead of
//! the generated one:
//! `GOVC_TEST_HISTORY=redis.git cargo test -p govc-server --test it identity`. `GOVC_TEST_KILLS=N` sets the number of
//! kills (8). `GOVC_TEST_OBJECT_FORMAT=sha256` has all repositories made with SHA-256 ids. `GOVC_TEST_CLIENTS` names the
//! folder in which `scripts/clients` has installed the clients of `clients`, where that is not the usual one. Every server gets a free port and a temporary folder of its own, so tests run side by side.

mod client;
mod git;
mod history;
mod http;
mod http2_client;
mod http_backend;
mod oddities;
mod pack;
mod server;
mod ssh_client;
mod tested;
mod trial;

mod admin;
mod archives;
mod busy;
mod clients;
mod crash;
mod disk;
mod export;
mod extremes;
mod fetch;
mod formats;
mod grep;
mod hostile;
mod http2;
mod identity;
mod import;
mod import_endings;
mod import_folder;
mod import_server;
mod keep_alive;
mod kept;
mod lfs;
mod partial;
mod push;
mod refused;
mod requests;
mod rest_bad;
mod rest_commits;
mod rest_compaction;
mod rest_forks;
mod rest_read;
mod rest_realities;
mod rest_repos;
mod rest_sql;
mod rest_transactions;
mod rest_versions;
mod rules;
mod search;
mod search_diffs;
mod search_words;
mod signed_push;
mod slow;
mod slow_push;
mod ssh;
mod ssh_login;
mod start;
mod sync;
mod tls;
mod uris;
mod wire;
