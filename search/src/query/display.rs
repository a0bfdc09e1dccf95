//! Writes a query in its canonical form, which parses to the same query (but for spans).
//!
//! Options come first, then `case:` if all patterns agree on one that they would not have by themselves, then the
//! conditions. Patterns that disagree get a group with a `case:` of their own. The constant true is `case:auto`, which
//! asks for nothing.

use std::fmt::{self, Display, Formatter, Write};

use super::ast::{Atom, Count, Expr, Options, PathPattern, Pattern, Query, SearchKind};
use super::glob::{glob_regex, looks_like_glob};
use super::pattern::{Case, auto_case};
use super::settings::{kind_word, select_word};

impl Display for Query {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let options = self.options.to_string();
        let nothing_asked = self.expr == Expr::Const(true) && !options.is_empty();
        match (options.is_empty(), nothing_asked) {
            (true, _) => write!(f, "{}", self.expr),
            (false, true) => f.write_str(&options),
            (false, false) => {
                write!(f, "{options} ")?;
                write_top(f, &self.expr, true)
            }
        }
    }
}

/// The options that are not the default, separated by spaces.
impl Display for Options {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut words = Vec::new();
        if self.kind != SearchKind::File {
            words.push(format!("type:{}", kind_word(self.kind)));
        }
        words.extend(self.revs.iter().map(|rev| format!("rev:{}", text_value(rev))));
        words.extend(self.branches.iter().map(|glob| format!("branch:{}", text_value(glob))));
        words.extend(self.select.map(|select| format!("select:{}", select_word(select))));
        match self.count {
            Count::Page => {}
            Count::Files(files) => words.push(format!("count:{files}")),
            Count::All => words.push("count:all".to_owned()),
        }
        f.write_str(&words.join(" "))
    }
}

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write_top(f, self, false)
    }
}

/// `text` as a phrase.
pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Writes a whole expression; with options before it, an `OR` needs parentheses.
fn write_top(f: &mut Formatter<'_>, expr: &Expr, after_options: bool) -> fmt::Result {
    let case = common_case(expr);
    match case {
        Some(Case::Yes) => f.write_str("case:yes ")?,
        Some(Case::No) => f.write_str("case:no ")?,
        Some(Case::Auto) | None => {}
    }
    let prefixed = after_options || matches!(case, Some(Case::Yes | Case::No));
    match expr {
        Expr::Const(true) if !prefixed => f.write_str("case:auto"),
        Expr::And(parts) if parts.len() > 1 => write_joined(f, parts, " ", case),
        Expr::Or(parts) if parts.len() > 1 && !prefixed => write_joined(f, parts, " OR ", case),
        expr => write_operand(f, expr, case),
    }
}

fn write_joined(f: &mut Formatter<'_>, parts: &[Expr], separator: &str, case: Option<Case>) -> fmt::Result {
    for (i, part) in parts.iter().enumerate() {
        if i > 0 {
            f.write_str(separator)?;
        }
        write_operand(f, part, case)?;
    }
    Ok(())
}

/// Writes an expression so that it can stand beside others, or be negated. `case` is what holds around it; without
/// one, each pattern says its own.
fn write_operand(f: &mut Formatter<'_>, expr: &Expr, case: Option<Case>) -> fmt::Result {
    match expr {
        Expr::Const(true) => f.write_str("(case:auto)"),
        Expr::Const(false) => f.write_str("-(case:auto)"),
        Expr::And(parts) if parts.is_empty() => f.write_str("(case:auto)"),
        Expr::Or(parts) if parts.is_empty() => f.write_str("-(case:auto)"),
        Expr::And(parts) => write_group(f, parts, " ", case),
        Expr::Or(parts) => write_group(f, parts, " OR ", case),
        Expr::Not(inner) => match **inner {
            // Two hyphens in a row are text.
            Expr::Not(_) | Expr::Const(false) => write_group_of_one(f, inner, case),
            Expr::Or(ref parts) if parts.is_empty() => write_group_of_one(f, inner, case),
            _ => {
                f.write_char('-')?;
                write_operand(f, inner, case)
            }
        },
        Expr::Atom(atom) => match case_of_atom(atom).filter(|(sensitive, auto)| case.is_none() && sensitive != auto) {
            Some((true, _)) => write!(f, "(case:yes {})", AtomText(atom)),
            Some((false, _)) => write!(f, "(case:no {})", AtomText(atom)),
            None => write!(f, "{}", AtomText(atom)),
        },
    }
}

fn write_group(f: &mut Formatter<'_>, parts: &[Expr], separator: &str, case: Option<Case>) -> fmt::Result {
    f.write_char('(')?;
    write_joined(f, parts, separator, case)?;
    f.write_char(')')
}

fn write_group_of_one(f: &mut Formatter<'_>, inner: &Expr, case: Option<Case>) -> fmt::Result {
    f.write_str("-(")?;
    write_operand(f, inner, case)?;
    f.write_char(')')
}

/// The one `case:` that suits every pattern, or `None`.
fn common_case(expr: &Expr) -> Option<Case> {
    let mut cases = Vec::new();
    collect_cases(expr, &mut cases);
    if cases.iter().all(|(sensitive, auto)| sensitive == auto) {
        Some(Case::Auto)
    } else if cases.iter().all(|(sensitive, _)| *sensitive) {
        Some(Case::Yes)
    } else {
        cases.iter().all(|(sensitive, _)| !sensitive).then_some(Case::No)
    }
}

fn collect_cases(expr: &Expr, cases: &mut Vec<(bool, bool)>) {
    match expr {
        Expr::Const(_) => {}
        Expr::And(parts) | Expr::Or(parts) => parts.iter().for_each(|part| collect_cases(part, cases)),
        Expr::Not(inner) => collect_cases(inner, cases),
        Expr::Atom(atom) => cases.extend(case_of_atom(atom)),
    }
}

/// Whether case matters for the atom's pattern, and whether it would without a `case:`.
fn case_of_atom(atom: &Atom) -> Option<(bool, bool)> {
    match atom {
        Atom::Text(p) | Atom::Content(p) | Atom::Repo(p) | Atom::Symbol(p) | Atom::Author(p) | Atom::Message(p) => {
            Some((p.case_sensitive, auto_case(&p.text, p.regex)))
        }
        Atom::Path(PathPattern::Pattern(p)) => Some((p.case_sensitive, auto_case(&p.text, p.regex))),
        Atom::Path(PathPattern::Glob { glob, case_sensitive, .. }) => Some((*case_sensitive, auto_case(glob, false))),
        Atom::Lang(_) | Atom::Before(_) | Atom::After(_) | Atom::Archived(_) | Atom::Fork(_) => None,
    }
}

struct AtomText<'a>(&'a Atom);

impl Display for AtomText<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let answer = |yes: bool| if yes { "yes" } else { "no" };
        match self.0 {
            Atom::Text(pattern) => write!(f, "{}", pattern_value(pattern)),
            Atom::Content(pattern) => write!(f, "content:{}", pattern_value(pattern)),
            Atom::Repo(pattern) => write!(f, "repo:{}", pattern_value(pattern)),
            Atom::Symbol(pattern) => write!(f, "symbol:{}", pattern_value(pattern)),
            Atom::Author(pattern) => write!(f, "author:{}", pattern_value(pattern)),
            Atom::Message(pattern) => write!(f, "message:{}", pattern_value(pattern)),
            Atom::Path(PathPattern::Pattern(pattern)) => write!(f, "path:{}", pattern_value(pattern)),
            Atom::Path(PathPattern::Glob { glob, .. }) => write!(f, "path:{}", glob_value(glob)),
            Atom::Lang(name) => write!(f, "lang:{}", text_value(name)),
            Atom::Before(seconds) => write!(f, "before:@{seconds}"),
            Atom::After(seconds) => write!(f, "after:@{seconds}"),
            Atom::Archived(yes) => write!(f, "archived:{}", answer(*yes)),
            Atom::Fork(yes) => write!(f, "fork:{}", answer(*yes)),
        }
    }
}

fn pattern_value(pattern: &Pattern) -> String {
    if pattern.regex { slashed(&pattern.text) } else { text_value(&pattern.text) }
}

/// A literal text, without quotes if it is plain enough to be read as one everywhere.
pub(super) fn text_value(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '/');
    let is_word = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_') && text.chars().all(plain);
    if is_word && !matches!(text, "AND" | "OR" | "NOT" | "or") { text.to_owned() } else { quoted(text) }
}

/// A regex in slashes, with those inside escaped.
fn slashed(source: &str) -> String {
    let mut out = String::from("/");
    let mut escaped = false;
    for c in source.chars() {
        if c == '/' && !escaped {
            out.push('\\');
        }
        out.push(c);
        escaped = c == '\\' && !escaped;
    }
    out.push('/');
    out
}

/// A glob as it is or, if it could only have been made by a program, as the regex that it means.
fn glob_value(glob: &str) -> String {
    let bare = looks_like_glob(glob)
        && !glob.starts_with('"')
        && !glob.contains(|c: char| c.is_whitespace() || matches!(c, '^' | '$' | '\\' | '|' | '(' | ')' | '+'))
        && !glob.contains(".*");
    let in_slashes = glob.len() > 1 && glob.starts_with('/') && glob.ends_with('/');
    if bare && !in_slashes { glob.to_owned() } else { slashed(&glob_regex(glob)) }
}
