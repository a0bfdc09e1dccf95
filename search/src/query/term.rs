//! Makes a condition of a term.

use super::ast::Atom;
use super::date;
use super::error::QueryError;
use super::fields::Field;
use super::lex::Value;
use super::pattern::{self, Case};
use super::settings::{plain, yes_or_no};

/// The condition that a term says; `None` is a term without a field.
pub(super) fn atom(field: Option<Field>, value: &Value, case: Case, now_seconds: i64) -> Result<Atom, QueryError> {
    let Some(field) = field else { return Ok(Atom::Text(pattern::text(value, case)?)) };
    Ok(match field {
        Field::Content => Atom::Content(pattern::text(value, case)?),
        Field::Symbol => Atom::Symbol(pattern::text(value, case)?),
        Field::Author => Atom::Author(pattern::text(value, case)?),
        Field::Message => Atom::Message(pattern::text(value, case)?),
        Field::Regex => Atom::Text(pattern::regex(value, case)?),
        Field::Path => Atom::Path(pattern::path(value, case)?),
        Field::Repo => Atom::Repo(pattern::repo(value, case)?),
        Field::Lang => Atom::Lang(plain(field, value)?.to_owned()),
        Field::Before => Atom::Before(moment(field, value, now_seconds)?),
        Field::After => Atom::After(moment(field, value, now_seconds)?),
        Field::Archived => Atom::Archived(yes_or_no(field, value)?),
        Field::Fork => Atom::Fork(yes_or_no(field, value)?),
        Field::Case | Field::Type | Field::Rev | Field::Branch | Field::Select | Field::Count => {
            return Err(QueryError::new(value.span.clone(), format!("{}: is an option", field.name())));
        }
    })
}

fn moment(field: Field, value: &Value, now_seconds: i64) -> Result<i64, QueryError> {
    let text = plain(field, value)?;
    date::moment(text, now_seconds).map_err(|message| QueryError::new(value.span.clone(), message))
}
