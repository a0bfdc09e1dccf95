//! Functions that statements may call, and replacements for those of SQLite that nothing can stop.
//!
//! The progress handler is asked between operations, never within one. What a function does with values of some
//! megabytes must therefore take time in proportion to them. SQLite's `instr`, `replace`, `trim` with two arguments,
//! `LIKE` and `GLOB` take the product of two lengths; ours do the same in proportion, or look at the clock.

use std::{borrow::Cow, collections::HashSet, sync::Arc};

use govc_engine::{Error, ErrorKind, Result};
use memchr::memmem;
use rusqlite::{
    Connection,
    functions::{Context, FunctionFlags},
    types::{ToSql, ToSqlOutput, ValueRef},
};

use super::{pattern::Pattern, run::Run};

/// What statements may call, sorted. Left out: whatever reads or writes more than its arguments, tells of the process,
/// or makes large values out of nothing, and `json_patch`, which takes the product of two lengths.
const ALLOWED: &[&str] = &[
    "->",
    "->>",
    "abs",
    "avg",
    "char",
    "coalesce",
    "concat",
    "concat_ws",
    "count",
    "cume_dist",
    "current_date",
    "current_time",
    "current_timestamp",
    "date",
    "datetime",
    "dense_rank",
    "first_value",
    "format",
    "glob",
    "group_concat",
    "hex",
    "ifnull",
    "iif",
    "instr",
    "json",
    "json_array",
    "json_array_length",
    "json_extract",
    "json_group_array",
    "json_group_object",
    "json_object",
    "json_quote",
    "json_type",
    "json_valid",
    "julianday",
    "lag",
    "last_value",
    "lead",
    "length",
    "like",
    "likelihood",
    "likely",
    "lower",
    "ltrim",
    "max",
    "min",
    "nth_value",
    "ntile",
    "nullif",
    "octet_length",
    "percent_rank",
    "printf",
    "quote",
    "random",
    "rank",
    "replace",
    "round",
    "row_number",
    "rtrim",
    "sign",
    "strftime",
    "string_agg",
    "substr",
    "substring",
    "sum",
    "time",
    "timediff",
    "total",
    "trim",
    "typeof",
    "unhex",
    "unicode",
    "unixepoch",
    "unlikely",
    "upper",
];

/// Whether statements may call a function.
pub(super) fn is_allowed(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name == "if" || ALLOWED.binary_search(&name.as_str()).is_ok()
}

/// Puts our functions in the place of SQLite's.
pub(super) fn replace_builtin(connection: &Connection, run: &Arc<Run>) -> rusqlite::Result<()> {
    let add = |name: &str, arguments: i32, function: fn(&Run, &Context<'_>) -> Result<Output>| {
        let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_INNOCUOUS;
        let run = Arc::clone(run);
        connection.create_scalar_function(name, arguments, flags, move |context| run.guard(|| function(&run, context)))
    };
    add("like", 2, like)?;
    add("like", 3, like)?;
    add("glob", 2, glob)?;
    add("instr", 2, |_, context| Ok(instr(context)))?;
    add("replace", 3, replace)?;
    add("trim", 2, |_, context| Ok(trim(context, true, true)))?;
    add("ltrim", 2, |_, context| Ok(trim(context, true, false)))?;
    add("rtrim", 2, |_, context| Ok(trim(context, false, true)))
}

/// What a function gives.
enum Output {
    Null,
    Integer(i64),
    Text(Vec<u8>),
}

impl ToSql for Output {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Output::Null => ValueRef::Null,
            Output::Integer(number) => ValueRef::Integer(*number),
            Output::Text(text) => ValueRef::Text(text),
        }))
    }
}

/// An argument as a text; `None` for NULL.
fn text<'a>(context: &'a Context<'_>, index: usize) -> Option<Cow<'a, [u8]>> {
    match context.get_raw(index) {
        ValueRef::Null => None,
        ValueRef::Integer(number) => Some(number.to_string().into_bytes().into()),
        // Not quite SQLite's digits for numbers of more than 15.
        ValueRef::Real(number) => Some(format!("{number:?}").into_bytes().into()),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(bytes.into()),
    }
}

fn like(run: &Run, context: &Context<'_>) -> Result<Output> {
    let escape = if context.len() < 3 {
        None
    } else {
        let Some(escape) = text(context, 2) else { return Ok(Output::Null) };
        let mut characters = std::str::from_utf8(&escape).unwrap_or_default().chars();
        match (characters.next(), characters.next()) {
            (Some(escape), None) => Some(escape),
            _ => return Err(Error::invalid("the ESCAPE of LIKE is not a single character")),
        }
    };
    matches(run, context, |pattern| Pattern::like(pattern, escape))
}

fn glob(run: &Run, context: &Context<'_>) -> Result<Output> {
    matches(run, context, Pattern::glob)
}

fn matches(run: &Run, context: &Context<'_>, compile: impl FnOnce(&[u8]) -> Pattern) -> Result<Output> {
    let (Some(pattern), Some(text)) = (text(context, 0), text(context, 1)) else { return Ok(Output::Null) };
    // A pattern that does not change is compiled once. With an escape that does, it is not the same one.
    let is_kept = context.len() < 3;
    let known = if is_kept { context.get_aux::<Pattern>(0).ok().flatten() } else { None };
    let pattern = match known {
        Some(pattern) => pattern,
        None => {
            let compiled = compile(&pattern);
            if is_kept {
                context.set_aux(0, compiled).map_err(|error| Error::invalid(error.to_string()))?
            } else {
                Arc::new(compiled)
            }
        }
    };
    Ok(Output::Integer(i64::from(pattern.matches(run, &text)?)))
}

/// Where the second argument is in the first, from 1: in characters, or in bytes of two blobs.
fn instr(context: &Context<'_>) -> Output {
    let is_blob = |index| matches!(context.get_raw(index), ValueRef::Blob(_));
    let (Some(hay), Some(needle)) = (text(context, 0), text(context, 1)) else { return Output::Null };
    let Some(at) = memmem::find(&hay, &needle) else { return Output::Integer(0) };
    let before = &hay[..at];
    let count = if is_blob(0) && is_blob(1) {
        before.len()
    } else {
        before.iter().filter(|byte| **byte & 0xc0 != 0x80).count()
    };
    Output::Integer(i64::try_from(count + 1).unwrap_or(i64::MAX))
}

fn replace(run: &Run, context: &Context<'_>) -> Result<Output> {
    let (Some(text), Some(old)) = (text(context, 0), text(context, 1)) else { return Ok(Output::Null) };
    if old.is_empty() {
        return Ok(Output::Text(text.into_owned()));
    }
    let Some(new) = self::text(context, 2) else { return Ok(Output::Null) };
    let mut replaced = Vec::new();
    let mut done = 0;
    for at in memmem::find_iter(&text, &old) {
        replaced.extend_from_slice(&text[done..at]);
        replaced.extend_from_slice(&new);
        done = at + old.len();
        if replaced.len() > run.value_bytes_max() {
            return Err(Error::new(ErrorKind::TooLarge, "the result of replace is too large"));
        }
    }
    replaced.extend_from_slice(&text[done..]);
    Ok(Output::Text(replaced))
}

/// The first argument without those of its first or last characters that are in the second.
fn trim(context: &Context<'_>, from_start: bool, from_end: bool) -> Output {
    let (Some(text), Some(unwanted)) = (text(context, 0), text(context, 1)) else { return Output::Null };
    let unwanted: HashSet<&[u8]> = characters(&unwanted).collect();
    let mut kept = &text[..];
    if from_start {
        let length: usize =
            characters(kept).take_while(|character| unwanted.contains(character)).map(<[u8]>::len).sum();
        kept = &kept[length..];
    }
    while from_end && !kept.is_empty() {
        let start = kept.iter().rposition(|byte| byte & 0xc0 != 0x80).unwrap_or(0);
        if !unwanted.contains(&kept[start..]) {
            break;
        }
        kept = &kept[..start];
    }
    Output::Text(kept.to_vec())
}

/// The characters of a text: a byte and those that continue it.
fn characters(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let length = 1 + rest.get(1..)?.iter().take_while(|byte| **byte & 0xc0 == 0x80).count();
        let (character, after) = rest.split_at(length);
        rest = after;
        Some(character)
    })
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::{ALLOWED, is_allowed};

    #[test]
    fn what_is_allowed_exists() {
        let connection = Connection::open_in_memory().expect("open");
        let find = "SELECT count(*) FROM pragma_function_list WHERE name = ?1";
        let is_there = |name: &&&str| connection.query_row(find, [name], |row| row.get::<_, bool>(0)).expect("a count");
        // They are no functions to the list.
        let known = ["iif", "if", "coalesce", "likely", "unlikely", "likelihood"];
        let missing: Vec<_> = ALLOWED.iter().filter(|name| !known.contains(name) && !is_there(name)).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn the_list_can_be_searched() {
        assert!(ALLOWED.is_sorted());
        for name in ["COUNT", "like", "->>", "if"] {
            assert!(is_allowed(name), "{name}");
        }
        for name in ["load_extension", "zeroblob", "randomblob", "readfile", "fts3_tokenizer", "json_patch", ""] {
            assert!(!is_allowed(name), "{name}");
        }
    }
}
