//! What a query says, once parsed: a boolean expression over files, commits or diffs, and options for the whole.

use std::ops::Range;

/// A parsed query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// What a result must satisfy.
    pub expr: Expr,
    /// What to search and how to answer.
    pub options: Options,
}

/// What holds for a query as a whole. Each may be said at the top level only, not below `OR`, `NOT` or another group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// What is searched: `type:`.
    pub kind: SearchKind,
    /// The revisions to search, as they were typed (`rev:`); empty for the default branch. Several are a union.
    pub revs: Vec<String>,
    /// Globs over branch names (`branch:`); every branch that matches is searched.
    pub branches: Vec<String>,
    /// What is reported instead of matches: `select:`.
    pub select: Option<Select>,
    /// `count:all`: count everything before answering; `count:N`: stop after N files.
    pub count: Count,
}

/// What is searched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SearchKind {
    /// Contents and paths of files: `type:file`, or nothing said.
    #[default]
    File,
    /// Commits' messages and authors.
    Commit,
    /// Lines that commits added or removed.
    Diff,
    /// Definitions.
    Symbol,
    /// Paths only.
    Path,
}

/// What each result is reduced to, without repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Select {
    /// The repositories that have a result.
    Repo,
    /// The files.
    File,
    /// The directories.
    Directory,
    /// The matching lines.
    Content,
    /// The definitions.
    Symbol,
}

/// How far to count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Count {
    /// As far as the page needs.
    #[default]
    Page,
    /// At most so many files.
    Files(usize),
    /// Everything.
    All,
}

/// A condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expr {
    /// Always (true) or never (false).
    Const(bool),
    /// All of them; never empty and never nested directly after simplification.
    And(Vec<Expr>),
    /// Any of them.
    Or(Vec<Expr>),
    /// Not this.
    Not(Box<Expr>),
    /// A single condition.
    Atom(Atom),
}

/// A single condition on one file (or commit, for those that say so).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Atom {
    /// A bare word, phrase or regex: in the content, or else in the path.
    Text(Pattern),
    /// `content:`: in the content.
    Content(Pattern),
    /// `path:`, `file:`, `f:`: the path; as regex (zoekt) or glob, see [`PathPattern`].
    Path(PathPattern),
    /// `repo:`, `r:`: the repository's name.
    Repo(Pattern),
    /// `lang:`, `l:`: the language, as typed; compared without case.
    Lang(String),
    /// `sym:`, `symbol:`: the name of something defined in the file.
    Symbol(Pattern),
    /// `author:`: the author's name or address (commits, diffs).
    Author(Pattern),
    /// `message:`: the commit's message (commits, diffs).
    Message(Pattern),
    /// `before:`: committed before this moment, seconds since the epoch (commits, diffs).
    Before(i64),
    /// `after:`: committed at or after this moment.
    After(i64),
    /// `archived:yes|no`.
    Archived(bool),
    /// `fork:yes|no`: whether the repository is a fork.
    Fork(bool),
}

/// A text or regular expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    /// The text itself, or the regular expression's source.
    pub text: String,
    /// Whether `text` is a regular expression (Rust's syntax).
    pub regex: bool,
    /// Whether upper and lower case differ; `case:auto` is resolved by the parser: upper case letters make it so.
    pub case_sensitive: bool,
    /// Where it stands in the query, in bytes.
    pub span: Range<usize>,
}

/// A condition on a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathPattern {
    /// `path:src/**/*.rs`: what contains `*`, `?` or `[` and is not in slashes; matches the whole path or, without a
    /// slash, the file's name. [`glob_regex`](super::glob_regex) has the exact rules.
    Glob {
        /// The glob.
        glob: String,
        /// Whether upper and lower case differ, as in [`Pattern`].
        case_sensitive: bool,
        /// Where it stands in the query, in bytes.
        span: Range<usize>,
    },
    /// A text anywhere in the path, or a regex (in slashes, or with characters that only a regex has).
    Pattern(Pattern),
}
