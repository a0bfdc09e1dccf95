//! Git's own protocol over HTTP and SSH, spoken without git.
//!
//! | file | owns |
//! |---|---|
//! | `route` | paths, headers, statuses |
//! | `bridge`, `inlet` | connections on one side, working threads on the other |
//! | `arrival` | pushes on their way in, however slow |
//! | `duplex` | conversations on a connection that goes both ways, such as SSH's |
//! | `pkt`, `sideband` | framing |
//! | `advertise`, `ls_refs`, `listings` | which references there are |
//! | `command`, `fetch_request`, `push_request` | what clients ask for |
//! | `push_cert` | what signed pushes are signed with |
//! | `filter`, `sparse` | what partial clones leave out |
//! | `reachable` | what may be asked for by its id |
//! | `negotiate`, `shallow` | what a client lacks |
//! | `object_info` | sizes without objects |
//! | `upload_pack`, `receive_pack` | fetching and pushing |
//! | `pointers`, `bundle_uri`, `download` | kept packs that are had by plain HTTP |
//! | `pack`, `cache` | packs, and those kept for serving again |
//! | `fuzz` | entries for fuzzing |
//!
//! Deliberately absent: the dumb protocol, hooks,
//! `git archive --remote`. None is advertised, and asking for one is a clear error.

mod advertise;
mod arrival;
mod bridge;
mod bundle_uri;
mod cache;
mod command;
mod download;
pub(crate) mod duplex;
mod fetch_request;
mod filter;
mod fuzz;
mod inlet;
pub(crate) mod listings;
mod ls_refs;
mod negotiate;
mod object_info;
pub(crate) mod pack;
pub(crate) mod pkt;
mod pointers;
pub(crate) mod push_cert;
mod push_request;
mod reachable;
mod receive_pack;
mod route;
mod shallow;
mod sideband;
mod sparse;
mod upload_pack;
mod visible;

pub(crate) use advertise::{Service, Version};
pub(crate) use bridge::{Patience, discard};
pub(crate) use bundle_uri::signature as bundle_signature;
pub(crate) use cache::PackCacheStats;
pub use cache::{PackCache, PackCacheOptions};
pub use fuzz::{fuzz_fetch, fuzz_filter, fuzz_kept_index, fuzz_pack, fuzz_pkt_line, fuzz_push};
pub use fuzz::{fuzz_receive_commands, fuzz_upload_request};
pub(crate) use reachable::Reachable;
pub(crate) use route::{repo_name, router};
