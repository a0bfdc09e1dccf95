//! The connection of one query: in memory, with nothing in it but the tables, and able to do nothing but read them.
//!
//! What a statement may do is decided while it is compiled, by an authorizer that refuses what it does not know. What
//! it may take is bounded by SQLite's limits here, by [`super::memory`], and by a progress handler that ends it at the
//! deadline. Everything stays in memory, sorting too: there are no files that could be filled or left behind.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use rusqlite::{
    Connection, OpenFlags,
    config::DbConfig,
    hooks::{AuthAction, AuthContext, Authorization},
    limits::Limit,
    vtab::Module,
};

use super::{
    changes::Changes,
    commits::Commits,
    files::Files,
    functions, memory,
    references::{Branches, Tags},
    run::Run,
    symbols::Symbols,
    table::{Handle, Table},
};

/// Longest statement, in bytes.
pub(super) const TEXT_BYTES_MAX: usize = 64 * 1024;
/// Largest value or row, in bytes; smaller for statements that do much at once, see [`bound_values`].
pub(super) const VALUE_BYTES_MAX: usize = 16 << 20;
const VALUE_BYTES_MIN: usize = 64 * 1024;
/// What the operations of a statement may go over together, each once, in bytes: a second or two.
const WORK_BYTES_MAX: usize = 256 << 20;
/// Operations between two looks at the clock: some ten microseconds of cheap ones.
const PROGRESS_OPS: i32 = 1000;

const LIMITS: [(Limit, usize); 11] = [
    (Limit::SQLITE_LIMIT_LENGTH, VALUE_BYTES_MAX),
    (Limit::SQLITE_LIMIT_SQL_LENGTH, TEXT_BYTES_MAX),
    (Limit::SQLITE_LIMIT_COLUMN, 500),
    // The compiler recurses on the thread's stack.
    (Limit::SQLITE_LIMIT_EXPR_DEPTH, 200),
    (Limit::SQLITE_LIMIT_COMPOUND_SELECT, 100),
    (Limit::SQLITE_LIMIT_VDBE_OP, 25_000),
    (Limit::SQLITE_LIMIT_FUNCTION_ARG, 100),
    (Limit::SQLITE_LIMIT_ATTACHED, 0),
    (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, TEXT_BYTES_MAX),
    (Limit::SQLITE_LIMIT_VARIABLE_NUMBER, 1000),
    // Queries are counted by thread.
    (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
];

const TABLES: [&str; 6] = ["commits", "files", "branches", "tags", "symbols", "changes"];

/// Opens the connection. `is_select` is set once a statement that selects was compiled.
pub(super) fn open(run: &Arc<Run>, is_select: &Arc<AtomicBool>) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_MEMORY
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_in_memory_with_flags(flags)?;
    // Sorters and interim tables go into memory, where they are counted.
    connection.execute_batch("PRAGMA temp_store = MEMORY")?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    // A name in double quotes that no column has is an error, not a text.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DDL, false)?;
    add::<Commits>(&connection, run, "commits")?;
    add::<Files>(&connection, run, "files")?;
    add::<Branches>(&connection, run, "branches")?;
    add::<Tags>(&connection, run, "tags")?;
    add::<Symbols>(&connection, run, "symbols")?;
    add::<Changes>(&connection, run, "changes")?;
    functions::replace_builtin(&connection, run)?;
    for (limit, most) in LIMITS {
        connection.set_limit(limit, i32::try_from(most).unwrap_or(i32::MAX))?;
    }
    let (authorized, selected) = (Arc::clone(run), Arc::clone(is_select));
    connection.authorizer(Some(move |context: AuthContext<'_>| authorize(&authorized, &selected, &context)))?;
    if run.deadline.is_some() {
        let timed = Arc::clone(run);
        connection.progress_handler(PROGRESS_OPS, Some(move || timed.is_late()))?;
    }
    Ok(connection)
}

/// Bounds values by what a statement does with them; gives the bound, in bytes.
///
/// The progress handler is asked at the jumps of a loop only. Between two of them thousands of operations can be
/// written into a statement, each of which takes time in proportion to its values: `a + a + a ...` over a text of
/// digits was seen to run for a minute beyond its deadline. So the more such operations a statement has, the smaller its
/// values may be.
pub(super) fn bound_values(connection: &Connection, text: &str) -> rusqlite::Result<usize> {
    let mut program = connection.prepare(&format!("EXPLAIN {text}"))?;
    let mut operations = program.raw_query();
    let mut count = 0;
    while let Some(row) = operations.next()? {
        let (name, detail) = memory::suspended(|| (row.get::<_, String>(1), row.get::<_, Option<String>>(5)));
        count += usize::from(takes_time(&name?, detail.ok().flatten().as_deref()));
    }
    let bytes = (WORK_BYTES_MAX / count.max(1)).clamp(VALUE_BYTES_MIN, VALUE_BYTES_MAX);
    connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, i32::try_from(bytes).unwrap_or(i32::MAX))?;
    Ok(bytes)
}

/// Whether an operation may go over all bytes of a value without asking for memory, where it would notice the
/// deadline.
fn takes_time(name: &str, detail: Option<&str>) -> bool {
    const QUICK: [&str; 61] = [
        "AggFinal",
        "BeginSubrtn",
        "Blob",
        "Close",
        "Column",
        "Copy",
        "DecrJumpZero",
        "Delete",
        "EndCoroutine",
        "Explain",
        "Gosub",
        "Goto",
        "Halt",
        "IdxInsert",
        "If",
        "IfNot",
        "IfNotOpen",
        "IfNullRow",
        "IfPos",
        "Init",
        "InitCoroutine",
        "Insert",
        "Int64",
        "Integer",
        "IsNull",
        "Jump",
        "Last",
        "MakeRecord",
        "Move",
        "NewRowid",
        "Next",
        "Noop",
        "NotNull",
        "Null",
        "NullRow",
        "OffsetLimit",
        "Once",
        "OpenDup",
        "OpenEphemeral",
        "OpenPseudo",
        "Real",
        "ResetSorter",
        "ResultRow",
        "Return",
        "Rewind",
        "Rowid",
        "SCopy",
        "Sequence",
        "SorterData",
        "SorterInsert",
        "SorterNext",
        "SorterOpen",
        "SorterSort",
        "String",
        "String8",
        "Transaction",
        "VColumn",
        "VFilter",
        "VNext",
        "VOpen",
        "Variable",
    ];
    // Columns that are to be numbers.
    let converts = name == "MakeRecord" && detail.is_none_or(|affinities| affinities.contains(['C', 'D', 'E', 'F']));
    converts || !(QUICK.contains(&name) || name == "Yield")
}

fn add<T: Table>(connection: &Connection, run: &Arc<Run>, name: &str) -> rusqlite::Result<()> {
    let module: &'static Module<'static, Handle<T>> = const { &Module::eponymous_only_module() };
    connection.create_module(name, module, Some(Arc::clone(run)))
}

fn authorize(run: &Run, is_select: &AtomicBool, context: &AuthContext<'_>) -> Authorization {
    let refused = match context.action {
        AuthAction::Select => {
            // Read by the same thread.
            is_select.store(true, Ordering::Relaxed);
            return Authorization::Allow;
        }
        AuthAction::Recursive => return Authorization::Allow,
        AuthAction::Read { table_name, .. } if is_table(table_name) => return Authorization::Allow,
        // No column is read: of a part of the statement itself, which looks like a table of that name.
        AuthAction::Read { table_name, column_name: "" } if !is_of_sqlite(table_name) => return Authorization::Allow,
        AuthAction::Function { function_name } if functions::is_allowed(function_name) => return Authorization::Allow,
        AuthAction::Read { table_name, .. } => {
            format!("there is no table {table_name:?}; there are {}", TABLES.join(", "))
        }
        AuthAction::Function { function_name } => format!("the function {function_name} is not available"),
        _ => "only SELECT is available".to_owned(),
    };
    run.refuse(refused);
    Authorization::Deny
}

fn is_table(name: &str) -> bool {
    TABLES.iter().any(|table| table.eq_ignore_ascii_case(name))
}

/// Whether SQLite may have a table of its own by this name.
fn is_of_sqlite(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let families = ["sqlite_", "pragma_", "json", "fts", "rtree", "dbstat", "bytecode", "tables_used", "carray"];
    families.iter().any(|family| name.starts_with(family))
}
