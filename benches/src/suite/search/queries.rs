//! What is searched for: queries of every class, and how each is said to govc, zoekt and programs like grep.
//!
//! Patterns mean the same to all of them: no class that one reads as Unicode and another as ASCII (`\w`), none that may
//! match a line break (`\s`, `[^x]`). Contents alone are searched, and whether case matters is always said.

/// One query.
pub(super) struct Query {
    pub(super) class: &'static str,
    pub(super) terms: Terms,
    /// Whether upper and lower case are the same.
    pub(super) folds: bool,
    pub(super) scope: Scope,
}

/// What a file must contain.
pub(super) enum Terms {
    One(Term),
    Both(Term, Term),
    Either(Term, Term),
    /// The first, and not the second.
    Without(Term, Term),
}

/// A pattern within one line.
#[derive(Clone, Copy)]
pub(super) enum Term {
    Text(&'static str),
    Regex(&'static str),
}

/// Which files are searched.
#[derive(Clone, Copy)]
pub(super) enum Scope {
    All,
    /// Those whose paths end so.
    Suffix(&'static str),
    /// Those below folders of that name.
    Folder(&'static str),
    /// Those in a language; for programs like grep, those whose paths end so.
    Language(&'static str, &'static str),
}

use Term::{Regex, Text};

/// All queries, class by class.
pub(super) fn all() -> Vec<Query> {
    let mut queries = Vec::new();
    let mut plain = |class, terms: &[Term]| {
        queries.extend(terms.iter().map(|term| query(class, Terms::One(*term), false, Scope::All)));
    };
    plain("word, rare", &[Text("gibibyte"), Text("hysteresis"), Text("Zobrist"), Text("photograph")]);
    plain("word, common", &[Text("return"), Text("self"), Text("string"), Text("error")]);
    plain("identifier", &[Text("BTreeMap"), Text("get_unchecked_mut"), Text("poll_next"), Text("RwLockReadGuard")]);
    plain("punctuation", &[Text("=> {"), Text("&&mut "), Text("#![no_std]"), Text("::<_>()"), Text("/*!")]);
    plain("phrase", &[Text("the quick brown"), Text("this is a"), Text("at your option"), Text("out of memory")]);
    plain(
        "alternation",
        &[Regex("(mutex|rwlock|semaphore)_"), Regex("Tcp(Stream|Listener)"), Regex("(foo|bar|baz)\\(")],
    );
    plain(
        "regex with a literal",
        &[
            Regex("fn [a-z_]+_unchecked\\("),
            Regex("impl<.*> Drop for"),
            Regex("unsafe \\{ .*ptr.* \\}"),
            Regex("version = \"0\\.[0-9]+\\.[0-9]+\""),
        ],
    );
    plain("anchor", &[Regex("^use std::"), Regex("^pub enum "), Regex(";;$"), Regex("^mod tests \\{$")]);
    plain("classes alone", &[Regex("[0-9]{9,}"), Regex("[A-Z]{24,}"), Regex("[a-f0-9]{40}")]);
    plain("unicode", &[Text("ü"), Text("→"), Text("日本"), Text("Привет")]);
    plain("one or two bytes", &[Text("~"), Text("zq"), Text("?;"), Text("@")]);
    plain("no match", &[Text("nowhere_to_be_found_qz"), Text("xqzjkvwp"), Regex("zzqq[0-9]+qqzz")]);
    let folded = [Text("todo"), Text("FIXME:"), Text("utf-8 string"), Regex("deadlock(s|ed)?")];
    queries.extend(folded.map(|term| query("case-insensitive", Terms::One(term), true, Scope::All)));
    let scoped = [
        (Text("malloc"), Scope::Suffix(".c")),
        (Text("serde"), Scope::Suffix(".toml")),
        (Text("assert_eq"), Scope::Folder("tests")),
        (Text("return"), Scope::Language("python", ".py")),
        (Regex("fn main\\(\\)"), Scope::Folder("examples")),
    ];
    queries.extend(scoped.map(|(term, scope)| query("path, language", Terms::One(term), false, scope)));
    let combined = [
        Terms::Both(Text("Arc"), Text("Mutex")),
        Terms::Both(Text("epoll"), Text("kqueue")),
        Terms::Either(Text("epoll_wait"), Text("kevent")),
        Terms::Without(Text("unsafe"), Text("SAFETY")),
        Terms::Without(Text("unwrap()"), Text("test")),
    ];
    queries.extend(combined.map(|terms| query("and, or, not", terms, false, Scope::All)));
    queries
}

fn query(class: &'static str, terms: Terms, folds: bool, scope: Scope) -> Query {
    Query { class, terms, folds, scope }
}

impl Query {
    /// Its patterns: one or two.
    pub(super) fn patterns(&self) -> Vec<Term> {
        match self.terms {
            Terms::One(one) => vec![one],
            Terms::Both(a, b) | Terms::Either(a, b) | Terms::Without(a, b) => vec![a, b],
        }
    }

    /// In govc's language (`search/QUERY.md`).
    pub(super) fn govc(&self) -> String {
        let term = |term| match term {
            Text(text) => format!("content:\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
            Regex(regex) => format!("content:/{}/", regex.replace('/', "\\/")),
        };
        let scope = match self.scope {
            Scope::All => String::new(),
            Scope::Suffix(suffix) => format!(" path:/{}$/", escaped(suffix)),
            Scope::Folder(folder) => format!(" path:/(^|\\/){folder}\\//"),
            Scope::Language(language, _) => format!(" lang:{language}"),
        };
        format!("case:{} {}{scope}", self.case(), self.combined(term, " OR "))
    }

    /// In zoekt's language.
    pub(super) fn zoekt(&self) -> String {
        let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
        let term = |term| match term {
            Text(text) => format!("content:\"{}\"", quoted(&escaped(text))),
            Regex(regex) => format!("content:\"{}\"", quoted(regex)),
        };
        let scope = match self.scope {
            Scope::All => String::new(),
            Scope::Suffix(_) | Scope::Folder(_) => format!(" file:\"{}\"", quoted(&self.path_regex())),
            Scope::Language(language, _) => format!(" lang:{language}"),
        };
        format!("case:{} {}{scope}", self.case(), self.combined(term, " or "))
    }

    /// What the paths of the searched files match; empty for all.
    pub(super) fn path_regex(&self) -> String {
        match self.scope {
            Scope::All => String::new(),
            Scope::Suffix(suffix) | Scope::Language(_, suffix) => format!("{}$", escaped(suffix)),
            Scope::Folder(folder) => format!("(^|/){folder}/"),
        }
    }

    /// The same as a glob whose `*` matches slashes, as git's do; none for all.
    pub(super) fn path_glob(&self) -> Option<String> {
        match self.scope {
            Scope::All => None,
            Scope::Suffix(suffix) | Scope::Language(_, suffix) => Some(format!("*{suffix}")),
            Scope::Folder(folder) => Some(format!("*/{folder}/*")),
        }
    }

    fn case(&self) -> &'static str {
        if self.folds { "no" } else { "yes" }
    }

    fn combined(&self, term: impl Fn(Term) -> String, or: &str) -> String {
        match self.terms {
            Terms::One(one) => term(one),
            Terms::Both(a, b) => format!("{} {}", term(a), term(b)),
            Terms::Either(a, b) => format!("({}{or}{})", term(a), term(b)),
            Terms::Without(a, b) => format!("{} -{}", term(a), term(b)),
        }
    }
}

impl Term {
    /// As a regex that Go, Rust and PCRE read the same way.
    pub(super) fn regex(self) -> String {
        match self {
            Text(text) => escaped(text),
            Regex(regex) => regex.to_owned(),
        }
    }
}

/// A text as a regex.
fn escaped(text: &str) -> String {
    let mut regex = String::new();
    for character in text.chars() {
        if "\\.+*?()|[]{}^$".contains(character) {
            regex.push('\\');
        }
        regex.push(character);
    }
    regex
}

#[cfg(test)]
mod tests {
    use super::{Query, Scope, Terms, Text, all};

    #[test]
    fn there_are_enough_of_every_class() {
        let queries = all();
        let mut classes: Vec<&str> = queries.iter().map(|query| query.class).collect();
        classes.dedup();
        assert!(queries.len() >= 46 && classes.len() >= 14, "{} queries, {} classes", queries.len(), classes.len());
    }

    #[test]
    fn one_query_in_each_language() {
        let terms = Terms::Without(Text("a\\\"b"), Text("f("));
        let query = Query { class: "", terms, folds: true, scope: Scope::Suffix(".c") };
        assert_eq!(query.govc(), r#"case:no content:"a\\\"b" -content:"f(" path:/\.c$/"#);
        assert_eq!(query.zoekt(), r#"case:no content:"a\\\\\"b" -content:"f\\(" file:"\\.c$""#);
        assert_eq!(query.path_glob().as_deref(), Some("*.c"));
    }
}
