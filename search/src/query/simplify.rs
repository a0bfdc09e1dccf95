//! Makes a condition smaller without changing what it means.
//!
//! Afterwards there are no constants but a whole expression that is one, no `And` in an `And` nor `Or` in an `Or`, none
//! of fewer than two parts, no double negation, and no part twice (wherever it stands in the query's text).

use super::ast::{Atom, Expr, PathPattern, Pattern};

/// The same condition, simplified; what remains keeps its order.
pub fn simplify(expr: Expr) -> Expr {
    match expr {
        Expr::And(parts) => join(parts, true),
        Expr::Or(parts) => join(parts, false),
        Expr::Not(inner) => negate(simplify(*inner)),
        expr => expr,
    }
}

/// The expression with every span emptied, to compare what conditions mean without where they stand.
pub fn without_spans(expr: &Expr) -> Expr {
    let all = |parts: &[Expr]| parts.iter().map(without_spans).collect();
    match expr {
        Expr::Const(value) => Expr::Const(*value),
        Expr::And(parts) => Expr::And(all(parts)),
        Expr::Or(parts) => Expr::Or(all(parts)),
        Expr::Not(inner) => Expr::Not(Box::new(without_spans(inner))),
        Expr::Atom(atom) => Expr::Atom(atom_without_span(atom.clone())),
    }
}

fn negate(expr: Expr) -> Expr {
    match expr {
        Expr::Const(value) => Expr::Const(!value),
        Expr::Not(inner) => *inner,
        expr => Expr::Not(Box::new(expr)),
    }
}

/// A conjunction (`all`) or disjunction of the parts. The constant `all` changes nothing in it, the other decides it.
fn join(parts: Vec<Expr>, all: bool) -> Expr {
    let mut kept = Kept { parts: Vec::new(), seen: Vec::new() };
    for part in parts.into_iter().map(simplify) {
        match part {
            Expr::Const(value) if value == all => {}
            Expr::Const(value) => return Expr::Const(value),
            Expr::And(inner) if all => inner.into_iter().for_each(|part| kept.add(part)),
            Expr::Or(inner) if !all => inner.into_iter().for_each(|part| kept.add(part)),
            part => kept.add(part),
        }
    }
    let mut parts = kept.parts;
    match parts.len() {
        0 => Expr::Const(all),
        1 => parts.swap_remove(0),
        _ if all => Expr::And(parts),
        _ => Expr::Or(parts),
    }
}

/// Parts without repeats, and what they are compared by.
struct Kept {
    parts: Vec<Expr>,
    seen: Vec<Expr>,
}

impl Kept {
    fn add(&mut self, part: Expr) {
        let key = without_spans(&part);
        if !self.seen.contains(&key) {
            self.seen.push(key);
            self.parts.push(part);
        }
    }
}

fn atom_without_span(mut atom: Atom) -> Atom {
    match &mut atom {
        Atom::Text(Pattern { span, .. })
        | Atom::Content(Pattern { span, .. })
        | Atom::Repo(Pattern { span, .. })
        | Atom::Symbol(Pattern { span, .. })
        | Atom::Author(Pattern { span, .. })
        | Atom::Message(Pattern { span, .. })
        | Atom::Path(PathPattern::Glob { span, .. } | PathPattern::Pattern(Pattern { span, .. })) => *span = 0..0,
        Atom::Lang(_) | Atom::Before(_) | Atom::After(_) | Atom::Archived(_) | Atom::Fork(_) => {}
    }
    atom
}
