//! Finding things in the repositories of a store: files, definitions, commits, on any branch, commit or version.
//!
//! A search receives [`Place`]s, commits with their snapshots, and returns finished answers as of those versions: it knows
//! nothing of HTTP or of people, and never sees a half-published change. What makes it fast is an index that follows the
//! store ([`Search`]); what is not indexed yet is read, so an answer is exact at any moment. `README.md` says where
//! what is, `QUERY.md` is the language, `FORMAT.md` what is on the disk.
//!
//! - [`find()`] finds files by a [`query::Query`], [`find_commits()`] commits, [`find_diffs()`] the lines that they change.
//! - [`fulltext()`] finds the files that say most about some words, best first.
//! - [`suggest()`] completes a query while it is typed.
//! - [`aggregate()`] counts what they find by repository, language, path, author or time.
//! - [`history()`] tells which commits contain something, when it appeared and went, on which branches it is.
//! - [`grep()`] reports the matching lines of one commit, in the order of its files.
//! - [`sql()`] runs a `SELECT` over commits, files, references, symbols and changes.
//!
//! ```
//! use std::sync::Arc;
//!
//! use govc_engine::{Change, CommitRequest, RefName, RepoName, RepoSettings, Signature, Store, StoreOptions};
//! use govc_search::{FindOptions, Search, SearchOptions, find, places, query::parse};
//!
//! let store = Store::open(Arc::new(govc_backends::MemoryBackend::new()), StoreOptions::default())?;
//! let search = Search::open(store.clone(), SearchOptions::default())?;
//! let repo = store.create(&RepoName::new("demo")?, RepoSettings::default(), "ada")?;
//! let ada = Signature::new("Ada", "ada@example.org", 1_700_000_000, 0)?;
//! let changes = vec![Change::put("src/main.rs", "fn main() {\n    greet();\n}\n"), Change::put("notes.md", "greet\n")];
//! repo.commit(CommitRequest::new(RefName::branch("main")?, "begin", ada, changes))?.published.ticket.wait()?;
//!
//! let query = parse("greet lang:rust", 0).expect("a valid query");
//! let searched = places(&repo, &repo.snapshot(), &query.options, true, None)?;
//! let found = find(&search.corpus(), &query, &searched, &FindOptions::default())?;
//! assert_eq!((found.total_files, found.is_exact), (1, true));
//! assert_eq!((found.files[0].path.as_slice(), found.files[0].lines[0].line_number), (&b"src/main.rs"[..], 2));
//!
//! search.stop();
//! store.close()?;
//! # Ok::<(), govc_engine::Error>(())
//! ```

mod aggregate;
mod commits;
mod corpus;
mod deadline;
mod defined;
mod definitions;
mod diffs;
mod find;
mod frame;
mod fulltext;
mod grep;
mod groups;
mod history;
mod importance;
mod index;
mod indexer;
pub mod language;
mod line;
mod numbers;
mod opaque;
mod paths;
mod place;
mod presence;
pub mod query;
mod service;
mod sieve;
mod sql;
mod suggest;
pub mod symbols;
mod tokens;
mod view;

pub use aggregate::{Aggregate, GroupBy, Interval, aggregate};
pub use commits::{CommitCursor, CommitHit, CommitOptions, CommitsFound, find_commits};
pub use corpus::Corpus;
pub use defined::SymbolFigures;
pub use definitions::{Definer, InProcess};
pub use diffs::{DiffCursor, DiffFile, DiffHit, DiffLine, DiffOptions, DiffsFound, LineSign, find_diffs};
pub use find::{Cursor, Explain, ExplainPattern, Facets, FileHit, FindOptions, Found, Partial, find};
pub use fulltext::{FullText, FullTextCursor, FullTextHit, FullTextOptions, FullTextWord, fulltext};
pub use grep::{GrepAnswer, GrepQuery, Stop, grep};
pub use groups::{Group, Groups};
pub use history::{
    FileTransition, HistoryAnswer, HistoryCommit, HistoryCursor, HistoryEvent, HistoryExplain, HistoryList,
    HistoryOptions, HistoryRef, HistoryRows, Transition, history,
};
pub use index::IndexFigures;
pub use indexer::{Indexer, IndexerState, IndexerStatus};
pub use line::{GrepLine, MatchSpan};
pub use place::{PLACES_MAX, Place, places};
pub use presence::PresenceFigures;
pub use service::{Search, SearchOptions, SearchStatus};
pub use sql::{SQL_ROWS_MAX, SqlAnswer, SqlQuery, SqlValue, account_sql_memory, sql};
pub use suggest::{SUGGESTIONS_MAX, SuggestOptions, Suggestion, SuggestionKind, finished, suggest};

/// Reads any bytes as a query, finished or not, and as a cursor; a query that is accepted says the same once written out. For fuzzing.
#[doc(hidden)]
pub fn fuzz_query(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = (Cursor::decode(text), CommitCursor::decode(text), DiffCursor::decode(text), HistoryCursor::decode(text));
    let _ = FullTextCursor::decode(text);
    assert!(text.starts_with(finished(text)), "{text:?}");
    let now_seconds = 1_800_000_000;
    match query::parse(text, now_seconds) {
        Ok(parsed) => {
            let written = parsed.to_string();
            let again = query::parse(&written, now_seconds).map(|again| again.to_string());
            assert_eq!(again.as_deref(), Ok(written.as_str()), "{text:?}");
        }
        Err(error) => assert!(text.get(error.span.clone()).is_some(), "{text:?}: {error:?}"),
    }
}
