//! SQL over HTTP: a `SELECT` in, rows out.

use std::{sync::Arc, time::Instant};

use axum::{extract::State, response::Response};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use govc_search::{SQL_ROWS_MAX, SqlAnswer, SqlQuery, SqlValue};
use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::SerializeMap as _};
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    super::{
        answer,
        extract::JsonBody,
        problem::Problem,
        versions::{AtParams, View},
    },
    shapes::took_ms,
};
use crate::app::App;

/// A statement.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SqlRequest {
    /// One `SELECT` of SQLite's over `commits`, `files`, `branches`, `tags`, `symbols` and `changes`.
    #[schema(example = "SELECT author_name, count(*) FROM commits GROUP BY 1 ORDER BY 2 DESC LIMIT 10")]
    query: String,
    /// The values of `?1`, `?2`, ...: null, numbers, texts, booleans (as 0 and 1), or bytes as `{"base64": "..."}`.
    #[serde(default)]
    params: Vec<Parameter>,
    /// After how many rows to stop; 1000 if absent, at most 10000.
    limit: Option<usize>,
}

/// The value of a parameter.
#[derive(Debug, ToSchema)]
#[schema(value_type = Option<Value>)]
struct Parameter(SqlValue);

/// The rows.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SqlResponse {
    columns: Vec<String>,
    /// Each with a value for each column. Bytes are `{"base64": "..."}`; infinite numbers the texts `Infinity` and `-Infinity`.
    #[schema(value_type = Vec<Vec<Value>>)]
    rows: Vec<Vec<Cell>>,
    /// How many rows there are in `rows`; if `truncated`, there may be more.
    count: usize,
    /// Whether the statement was ended before it had given all.
    truncated: bool,
    /// Why: `limit`, `size` (the answer grew too large) or `deadline`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "limit")]
    reason: Option<&'static str>,
    /// How many times a file was too large for its `content` or symbols to be given, or its symbols could not be told.
    contents_left_out: u64,
    /// The version that was asked.
    version: u64,
    took_ms: f64,
}

/// A value as JSON.
#[derive(Debug)]
struct Cell(SqlValue);

/// Ask a repository in SQL
#[utoipa::path(
    post, path = "/api/v1/repos/{id}/search/sql", tag = "search", operation_id = "sql",
    params(("id" = String, Path, description = "The repository, percent-encoded"), AtParams),
    request_body = SqlRequest,
    responses((status = 200, description = "The rows", body = SqlResponse)),
)]
pub(in crate::http) async fn sql(
    State(app): State<Arc<App>>,
    View(snapshot): View,
    JsonBody(request, _held): JsonBody<SqlRequest>,
) -> Result<Response, Problem> {
    let begun = Instant::now();
    let query = SqlQuery { deadline: Some(app.work.deadline()), ..request.query()? };
    let corpus = app.search.corpus();
    let version = snapshot.version().number;
    let found = app.work.run_in_turn(move || govc_search::sql(&corpus, &snapshot, &query)).await??;
    Ok(answer::ok(&SqlResponse::new(found, version, begun)))
}

impl SqlRequest {
    fn query(self) -> Result<SqlQuery, Problem> {
        if self.limit == Some(0) {
            return Err(Problem::invalid("limit is at least 1"));
        }
        let defaults = SqlQuery::default();
        Ok(SqlQuery {
            text: self.query,
            params: self.params.into_iter().map(|parameter| parameter.0).collect(),
            rows_max: self.limit.unwrap_or(defaults.rows_max).min(SQL_ROWS_MAX),
            ..defaults
        })
    }
}

impl SqlResponse {
    fn new(found: SqlAnswer, version: u64, begun: Instant) -> Self {
        Self {
            columns: found.columns,
            count: found.rows.len(),
            rows: found.rows.into_iter().map(|row| row.into_iter().map(Cell).collect()).collect(),
            truncated: found.stopped.is_some(),
            reason: found.stopped.map(govc_search::Stop::as_str),
            contents_left_out: found.contents_left_out,
            version,
            took_ms: took_ms(begun),
        }
    }
}

impl<'de> Deserialize<'de> for Parameter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fails = |message: &str| Err(serde::de::Error::custom(message));
        Ok(Self(match Value::deserialize(deserializer)? {
            Value::Null => SqlValue::Null,
            Value::Bool(value) => SqlValue::Integer(i64::from(value)),
            Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(integer), _) => SqlValue::Integer(integer),
                (None, Some(real)) => SqlValue::Real(real),
                (None, None) => return fails("a number is out of range"),
            },
            Value::String(text) => SqlValue::Text(text),
            Value::Object(members) => match members.get("base64") {
                Some(Value::String(text)) if members.len() == 1 => match STANDARD.decode(text) {
                    Ok(bytes) => SqlValue::Blob(bytes),
                    Err(_) => return fails("a parameter is not Base64"),
                },
                _ => return fails("an object as a parameter has the one member base64, a text"),
            },
            Value::Array(_) => return fails("a parameter is null, a number, a text, a boolean or {\"base64\": ...}"),
        }))
    }
}

impl Serialize for Cell {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            SqlValue::Null => serializer.serialize_unit(),
            SqlValue::Integer(number) => serializer.serialize_i64(*number),
            SqlValue::Real(number) if number.is_infinite() && *number > 0.0 => serializer.serialize_str("Infinity"),
            SqlValue::Real(number) if number.is_infinite() => serializer.serialize_str("-Infinity"),
            SqlValue::Real(number) => serializer.serialize_f64(*number),
            SqlValue::Text(text) => serializer.serialize_str(text),
            SqlValue::Blob(bytes) => {
                let mut members = serializer.serialize_map(Some(1))?;
                members.serialize_entry("base64", &STANDARD.encode(bytes))?;
                members.end()
            }
        }
    }
}
