//! The tables and the one function of a store, and how older ones are brought up to date.
//!
//! `version` holds the number of steps taken. Each step is one transaction, taken once and never changed later; a
//! new need is a new step at the end. A schema with more steps than this list belongs to a newer govc and is refused.
//!
//! - One table for each family, `key bytea` and `value bytea`: PostgreSQL orders `bytea` by bytes, in any locale.
//! - `lease`: one row with the epoch, which each opening increments under the writes' lock, alone.
//! - `writes`: for each epoch and writing connection ("slot") the number of its last write, set in the same
//!   transaction, and the number before it.
//! - `write`: one call writes a batch, or a part of a large one. See [`write_function`].

use govc_engine::backend::{BackendError, BackendErrorKind, Family};
use tokio_postgres::Client;

use super::address::Address;
use super::failure::ConnectError;
use super::options::PostgresOptions;

/// Epochs whose rows in `writes` are kept, for servers that were taken over and ask what became of a write.
const EPOCHS_KEPT: i64 = 16;

/// The steps, oldest first.
fn steps() -> [String; 1] {
    [format!("{}{}", tables(), write_function())]
}

fn tables() -> String {
    let mut sql = "
        CREATE TABLE version (steps integer NOT NULL);
        INSERT INTO version VALUES (0);
        CREATE TABLE lease (epoch bigint NOT NULL);
        INSERT INTO lease VALUES (0);
        -- Half-empty pages, so that an update of a row finds room beside it and touches no index.
        CREATE TABLE writes (
            epoch bigint, slot integer, seq bigint NOT NULL, previous bigint NOT NULL, PRIMARY KEY (epoch, slot)
        ) WITH (fillfactor = 50);"
        .to_owned();
    for family in Family::ALL {
        let name = family.name();
        sql.push_str(&format!("CREATE TABLE {name} (key bytea PRIMARY KEY, value bytea NOT NULL);"));
        // What the engine has compressed already is not compressed again.
        if matches!(family, Family::Blocks | Family::Journal) {
            sql.push_str(&format!("ALTER TABLE {name} ALTER COLUMN value SET STORAGE EXTERNAL;"));
        }
    }
    sql
}

/// What `write` answers, beside the position (from 1) of a precondition that does not hold.
pub(super) mod answer {
    /// It is written.
    pub(crate) const WRITTEN: i64 = 0;
    /// The epoch is another server's.
    pub(crate) const FENCED: i64 = -1;
    /// It was written before, by the same call in a session that broke.
    pub(crate) const BEFORE: i64 = -2;
    /// An acknowledged write of this slot is not there any more.
    pub(crate) const LOST: i64 = -3;
}

/// Parameters of `write` before those of the families.
pub(super) const COMMON_PARAMETERS: usize = 10;
/// Parameters of `write` for each family.
pub(super) const FAMILY_PARAMETERS: usize = 5;

/// The function that writes. It answers with a number and raises nothing of its own, because an exception would put
/// each refused precondition into the server's log.
///
/// A call takes the lock (alone if it has preconditions or deletes), so each later statement sees all that was
/// committed before; then it looks at the epoch, at the slot's number, at the preconditions, and writes. `seq` is one
/// more than the slot's last number. A call that is repeated because its answer was lost finds its own number and
/// does nothing; one that arrives late, after it was repeated, does the same. Later calls for the same large batch
/// have no `own_seq` and only write.
fn write_function() -> String {
    let mut parameters = String::new();
    let mut body = String::new();
    let mut found = Vec::new();
    for family in Family::ALL {
        let name = family.name();
        parameters.push_str(&format!(
            ", {name}_from bytea[], {name}_to bytea[], {name}_gone bytea[], {name}_keys bytea[], {name}_values bytea[]"
        ));
        body.push_str(&format!(
            "
            IF {name}_from IS NOT NULL THEN
                FOR at IN 1 .. cardinality({name}_from) LOOP
                    DELETE FROM {name} WHERE key >= {name}_from[at] AND key < {name}_to[at];
                END LOOP;
            END IF;
            IF {name}_gone IS NOT NULL THEN
                DELETE FROM {name} WHERE key = ANY ({name}_gone);
            END IF;
            IF {name}_keys IS NOT NULL THEN
                INSERT INTO {name} SELECT u.k, u.v FROM unnest({name}_keys, {name}_values) AS u (k, v)
                ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value;
            END IF;"
        ));
        let number = family as u8;
        found.push(format!("SELECT t.value FROM {name} AS t WHERE a.family = {number} AND t.key = a.key"));
    }
    let found = found.join(" UNION ALL ");
    let (written, fenced, before, lost) = (answer::WRITTEN, answer::FENCED, answer::BEFORE, answer::LOST);
    format!(
        "
        CREATE FUNCTION write (
            lock_key bigint, alone boolean, relaxed boolean, own_epoch bigint, own_slot integer, solid_seq bigint,
            own_seq bigint, asked_families smallint[], asked_keys bytea[], asked_values bytea[]{parameters}
        ) RETURNS bigint LANGUAGE plpgsql VOLATILE AS $write$
        DECLARE
            stored bigint;
            failing bigint;
        BEGIN
            IF own_seq IS NOT NULL THEN
                IF relaxed THEN
                    PERFORM set_config('synchronous_commit', 'off', true);
                END IF;
                IF alone THEN
                    PERFORM pg_advisory_xact_lock(lock_key);
                ELSE
                    PERFORM pg_advisory_xact_lock_shared(lock_key);
                END IF;
                SELECT w.seq INTO stored FROM writes AS w WHERE w.epoch = own_epoch AND w.slot = own_slot;
                IF stored >= own_seq THEN
                    RETURN {before};
                END IF;
                IF own_epoch IS DISTINCT FROM (SELECT l.epoch FROM lease AS l) THEN
                    RETURN {fenced};
                END IF;
                IF stored IS NULL OR stored < solid_seq THEN
                    RETURN {lost};
                END IF;
                IF asked_families IS NOT NULL THEN
                    SELECT min(a.position) INTO failing
                    FROM unnest(asked_families, asked_keys, asked_values) WITH ORDINALITY
                        AS a (family, key, value, position)
                    LEFT JOIN LATERAL ({found}) AS f (value) ON true
                    WHERE f.value IS DISTINCT FROM a.value;
                    IF failing IS NOT NULL THEN
                        RETURN failing;
                    END IF;
                END IF;
                -- Waits for the end of the same call in a session that broke; then its number is there.
                UPDATE writes AS w SET previous = w.seq, seq = own_seq
                WHERE w.epoch = own_epoch AND w.slot = own_slot AND w.seq < own_seq;
                IF NOT FOUND THEN
                    RETURN {before};
                END IF;
            END IF;
            {body}
            RETURN {written};
        END
        $write$;"
    )
}

/// The statement that calls `write`.
pub(super) fn call_write() -> String {
    let count = COMMON_PARAMETERS + FAMILY_PARAMETERS * Family::ALL.len();
    let parameters: Vec<String> = (1..=count).map(|number| format!("${number}")).collect();
    format!("SELECT write({})", parameters.join(", "))
}

/// Brings the schema up to date, creating it if it is not there. Only the holder of the lease may call this.
pub(super) async fn prepare(
    client: &mut Client,
    address: &Address,
    options: &PostgresOptions,
) -> Result<(), ConnectError> {
    let of = |error: tokio_postgres::Error| ConnectError::of(address, &error);
    let schema = options.quoted_schema();
    let there = "SELECT count(*) FROM pg_namespace WHERE nspname = $1";
    let count: i64 = client.query_one(there, &[&options.schema]).await.map_err(of)?.try_get(0).map_err(of)?;
    if count == 0 {
        client.batch_execute(&format!("CREATE SCHEMA {schema}")).await.map_err(of)?;
    }
    let steps = steps();
    let taken = steps_taken(client, address, &schema).await?;
    let known = steps.len();
    if taken > known {
        let message = format!(
            "the store at PostgreSQL {}, schema {schema}, has format {taken}; this govc knows {known} and older: use a \
             newer one",
            address.shown
        );
        return Err(BackendError::new(BackendErrorKind::Failed, message).into());
    }
    for (number, step) in (1_i32..).zip(&steps).skip(taken) {
        let transaction = client.transaction().await.map_err(of)?;
        transaction.batch_execute(step).await.map_err(of)?;
        transaction.execute("UPDATE version SET steps = $1", &[&number]).await.map_err(of)?;
        transaction.commit().await.map_err(of)?;
    }
    check_rights(client, address, &schema).await
}

/// Removes the schema, if it is there and no server has it open.
pub(super) async fn remove(address: &Address, options: &PostgresOptions) -> Result<(), ConnectError> {
    let session = super::lease::take(address, options).await?;
    let sql = format!("DROP SCHEMA IF EXISTS {} CASCADE", options.quoted_schema());
    session.link.drive(session.client.batch_execute(&sql)).await.map_err(|error| ConnectError::of(address, &error))
}

/// Makes sure that the schema holds a store that this version reads; changes nothing.
pub(super) async fn check(client: &Client, address: &Address, options: &PostgresOptions) -> Result<(), ConnectError> {
    let (schema, known) = (options.quoted_schema(), steps().len());
    let words = match steps_taken(client, address, &schema).await? {
        taken if taken == known => return Ok(()),
        0 => "there is no store",
        taken if taken > known => "the store has a newer format: use a newer govc",
        _ => "the store has an older format, which a server of this govc brings up to date when it starts",
    };
    let message = format!("cannot read PostgreSQL {}, schema {schema}: {words}", address.shown);
    Err(BackendError::new(BackendErrorKind::Failed, message).into())
}

async fn steps_taken(client: &Client, address: &Address, schema: &str) -> Result<usize, ConnectError> {
    let of = |error: tokio_postgres::Error| ConnectError::of(address, &error);
    let there = "SELECT to_regclass($1) IS NOT NULL";
    let there = client.query_one(there, &[&format!("{schema}.version")]).await.map_err(of)?;
    if !there.try_get::<_, bool>(0).map_err(of)? {
        return Ok(0);
    }
    let steps: i32 = client.query_one("SELECT steps FROM version", &[]).await.map_err(of)?.try_get(0).map_err(of)?;
    // A negative number is nobody's; as the greatest one it is refused like a newer format.
    Ok(usize::try_from(steps).unwrap_or(usize::MAX))
}

async fn check_rights(client: &Client, address: &Address, schema: &str) -> Result<(), ConnectError> {
    let of = |error: tokio_postgres::Error| ConnectError::of(address, &error);
    let tables: Vec<&str> = ["lease", "writes"].into_iter().chain(Family::ALL.map(Family::name)).collect();
    let sql = "SELECT string_agg(t, ', ') FROM unnest($1::text[]) AS t WHERE NOT (
        has_table_privilege($2 || '.' || t, 'SELECT') AND has_table_privilege($2 || '.' || t, 'INSERT') AND
        has_table_privilege($2 || '.' || t, 'UPDATE') AND has_table_privilege($2 || '.' || t, 'DELETE'))";
    let lacking: Option<String> =
        client.query_one(sql, &[&tables, &schema]).await.map_err(of)?.try_get(0).map_err(of)?;
    let Some(lacking) = lacking else { return Ok(()) };
    let message = format!(
        "the role \"{}\" may not read and write all tables of the store at PostgreSQL {}, schema {schema} ({lacking}): \
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO \"{}\"",
        address.user(),
        address.shown,
        address.user()
    );
    Err(BackendError::new(BackendErrorKind::Failed, message).into())
}

/// Makes this server the one that writes: the next epoch, with a row for each slot. Writes of earlier epochs that are
/// under way end first, because they share the lock that this takes alone.
pub(super) async fn take_epoch(client: &mut Client, lock_key: i64, slots: usize) -> Result<i64, tokio_postgres::Error> {
    let transaction = client.transaction().await?;
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&lock_key]).await?;
    let row = transaction.query_one("UPDATE lease SET epoch = epoch + 1 RETURNING epoch", &[]).await?;
    let epoch: i64 = row.try_get(0)?;
    transaction.execute("DELETE FROM writes WHERE epoch <= $1", &[&(epoch - EPOCHS_KEPT)]).await?;
    let last_slot = i32::try_from(slots).unwrap_or(i32::MAX) - 1;
    transaction
        .execute(
            "INSERT INTO writes SELECT $1, slot, 0, 0 FROM generate_series(0, $2::integer) AS slot",
            &[&epoch, &last_slot],
        )
        .await?;
    transaction.commit().await?;
    Ok(epoch)
}
