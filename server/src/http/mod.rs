//! REST: all routes on one page.
//!
//! A handler takes what it needs from the request ([`extract`]), makes one call to the engine or to `search`, and
//! turns the result into an answer ([`answer`]) or a problem ([`problem`]). What is in memory is called directly;
//! what walks, scans or waits for a disk runs on the pool of blocking threads. A write is answered only after its
//! ticket: what a client was told is as durable as the repository promises.
//!
//! Around all routes, [`body`] bounds what clients hold and how long they stall.
//!
//! Handlers carry their full paths, which are the routes as well as the OpenAPI document's, so that one search
//! finds all three.

pub(crate) mod answer;
mod archive;
pub(crate) mod body;
mod branches;
mod commits;
mod compaction;
pub(crate) mod conditional;
mod content;
pub(crate) mod download;
mod extract;
mod forks;
mod git_settings;
mod grep;
mod idempotency;
pub(crate) mod links;
mod openapi;
mod page;
mod people;
pub(crate) mod problem;
mod push_cert;
pub(crate) mod range;
mod realities;
mod repos;
mod revision;
mod search;
mod system;
mod tags;
pub(crate) mod time;
mod transactions;
pub(crate) mod versions;

use std::{future::ready, sync::Arc};

use axum::{Extension, Router, middleware, routing::get};
use utoipa_axum::{
    router::{OpenApiRouter, UtoipaMethodRouterExt},
    routes,
};

use crate::app::App;
use body::Bodies;

/// Who is noted as the author of a change of references: there are no users yet.
const ACTOR: &str = "anonymous";

/// Up to how many bytes are parsed or read where the request is served; more would hold up others.
const INLINE_BYTES_MAX: usize = 256 * 1024;

/// Everything but Git's own protocol, with problem documents for unknown paths and methods.
pub(crate) fn router(app: Arc<App>) -> Router {
    let (router, document) = api(app.bodies.clone()).merge(system::routes(&app)).split_for_parts();
    let document = openapi::finish(document);
    router
        .route("/api/v1/repos/{id}/tree/", get(content::root))
        .route("/api/v1/openapi.json", get(move || ready(openapi::serve(document.clone()))))
        .method_not_allowed_fallback(problem::method_not_allowed)
        .fallback(problem::route_not_found)
        .layer(middleware::from_fn_with_state(Arc::clone(&app), body::bounded))
        .with_state(app)
}

/// The API. Each line is one path with its methods.
fn api(bodies: Bodies) -> OpenApiRouter<Arc<App>> {
    // Changes of repositories share one turn.
    let settings_turn = Extension(repos::SettingsTurn::default());
    OpenApiRouter::with_openapi(openapi::base())
        // /api/v1/repos
        .routes(routes!(repos::list, repos::create))
        // /api/v1/repos/{id}
        .routes(routes!(repos::show, repos::update, repos::remove).layer(settings_turn))
        // /api/v1/repos/{id}/fork
        .routes(routes!(forks::create))
        // /api/v1/repos/{id}/compact
        .routes(routes!(compaction::begin))
        // /api/v1/repos/{id}/compaction
        .routes(routes!(compaction::show, compaction::cancel))
        // /api/v1/compaction
        .routes(routes!(compaction::overview, compaction::pause))
        // /api/v1/repos/{id}/commits
        .routes(routes!(commits::list, commits::create))
        // /api/v1/repos/{id}/commits/{rev}
        .routes(routes!(commits::show))
        // /api/v1/repos/{id}/branches
        .routes(routes!(branches::list, branches::create))
        // /api/v1/repos/{id}/branches/{*name}
        .routes(routes!(branches::show, branches::remove))
        // /api/v1/repos/{id}/tags
        .routes(routes!(tags::list, tags::create))
        // /api/v1/repos/{id}/tags/{*name}
        .routes(routes!(tags::show, tags::remove))
        // /api/v1/repos/{id}/tree
        .routes(routes!(content::root))
        // /api/v1/repos/{id}/tree/{*path}
        .routes(routes!(content::tree))
        // /api/v1/repos/{id}/read/{*path}
        .routes(routes!(content::read))
        // /api/v1/repos/{id}/raw/{*path}
        .routes(routes!(content::raw))
        // /api/v1/repos/{id}/archive/{*name}
        .routes(routes!(archive::archive))
        // /api/v1/repos/{id}/grep
        .routes(routes!(grep::grep))
        // /api/v1/search
        .routes(routes!(search::everywhere))
        // /api/v1/search/aggregate
        .routes(routes!(search::aggregate::everywhere))
        // /api/v1/search/fulltext
        .routes(routes!(search::fulltext::everywhere))
        // /api/v1/search/suggestions
        .routes(routes!(search::suggestions::everywhere))
        // /api/v1/search/statistics
        .routes(routes!(search::statistics))
        // /api/v1/search/rebuild
        .routes(routes!(search::rebuild))
        // /api/v1/repos/{id}/search/content
        .routes(routes!(search::content))
        // /api/v1/repos/{id}/search/files
        .routes(routes!(search::files))
        // /api/v1/repos/{id}/search/commits
        .routes(routes!(search::commits))
        // /api/v1/repos/{id}/search/fulltext
        .routes(routes!(search::fulltext::within))
        // /api/v1/repos/{id}/search/suggestions
        .routes(routes!(search::suggestions::within))
        // /api/v1/repos/{id}/search/history
        .routes(routes!(search::history::history))
        // /api/v1/repos/{id}/search/aggregate
        .routes(routes!(search::aggregate::within))
        // /api/v1/repos/{id}/search/sql
        .routes(routes!(search::sql::sql))
        // /api/v1/repos/{id}/versions
        .routes(routes!(versions::list))
        // /api/v1/repos/{id}/versions/{n}
        .routes(routes!(versions::show))
        // /api/v1/repos/{id}/versions/{n}/restore
        .routes(routes!(versions::restore))
        // /api/v1/repos/{id}/versions/{n}/push-cert
        .routes(routes!(push_cert::show))
        // /api/v1/repos/{id}/time-travel/{timestamp}
        .routes(routes!(versions::time_travel))
        // /api/v1/repos/{id}/parallel-realities
        .routes(routes!(realities::list, realities::create))
        // /api/v1/repos/{id}/parallel-realities/{name}
        .routes(routes!(realities::show, realities::remove))
        // /api/v1/repos/{id}/parallel-realities/{name}/apply
        .routes(routes!(realities::apply))
        // /api/v1/repos/{id}/parallel-realities/{name}/compare
        .routes(routes!(realities::compare))
        // /api/v1/repos/{id}/parallel-realities/{name}/promote
        .routes(routes!(realities::promote))
        // /api/v1/repos/{id}/transaction
        .routes(routes!(transactions::begin))
        // /api/v1/repos/{id}/transaction/{tx}
        .routes(routes!(transactions::show))
        // /api/v1/repos/{id}/transaction/{tx}/add
        .routes(routes!(transactions::add))
        // /api/v1/repos/{id}/transaction/{tx}/remove
        .routes(routes!(transactions::remove))
        // /api/v1/repos/{id}/transaction/{tx}/move
        .routes(routes!(transactions::rename))
        // /api/v1/repos/{id}/transaction/{tx}/validate
        .routes(routes!(transactions::validate))
        // /api/v1/repos/{id}/transaction/{tx}/commit
        .routes(routes!(transactions::commit))
        // /api/v1/repos/{id}/transaction/{tx}/rollback
        .routes(routes!(transactions::rollback))
        .route_layer(idempotency::IdempotencyLayer::new(bodies))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::Bodies;
    use crate::config::Config;

    /// The document of the API's own routes.
    fn document() -> Value {
        let (_, document) = super::api(Bodies::new(&Config::default().server)).split_for_parts();
        serde_json::from_slice(&super::openapi::finish(document)).expect("JSON")
    }

    #[test]
    fn every_route_is_described() {
        let document = document();
        let paths = document["paths"].as_object().expect("paths");
        let mut found: Vec<String> = Vec::new();
        for (path, item) in paths {
            for method in item.as_object().expect("an item").keys() {
                let path = path.strip_prefix("/api/v1").expect("in the API");
                found.push(format!("{method} {}", path.strip_prefix("/repos").unwrap_or(path)));
            }
        }
        found.sort();
        let mut expected = vec![
            "get ",
            "post ",
            "get /{id}",
            "patch /{id}",
            "delete /{id}",
            "post /{id}/fork",
            "post /{id}/compact",
            "get /{id}/compaction",
            "delete /{id}/compaction",
            "get /compaction",
            "put /compaction",
            "get /{id}/commits",
            "post /{id}/commits",
            "get /{id}/commits/{rev}",
            "get /{id}/branches",
            "post /{id}/branches",
            "get /{id}/branches/{name}",
            "delete /{id}/branches/{name}",
            "get /{id}/tags",
            "post /{id}/tags",
            "get /{id}/tags/{name}",
            "delete /{id}/tags/{name}",
            "get /{id}/tree",
            "get /{id}/tree/{path}",
            "get /{id}/read/{path}",
            "get /{id}/raw/{path}",
            "get /{id}/archive/{name}",
            "post /{id}/grep",
            "get /search",
            "get /search/aggregate",
            "get /search/fulltext",
            "get /search/suggestions",
            "get /search/statistics",
            "post /search/rebuild",
            "get /{id}/search/content",
            "get /{id}/search/files",
            "get /{id}/search/commits",
            "get /{id}/search/fulltext",
            "get /{id}/search/suggestions",
            "get /{id}/search/aggregate",
            "get /{id}/search/history",
            "post /{id}/search/sql",
            "get /{id}/parallel-realities",
            "post /{id}/parallel-realities",
            "get /{id}/parallel-realities/{name}",
            "delete /{id}/parallel-realities/{name}",
            "post /{id}/parallel-realities/{name}/apply",
            "get /{id}/parallel-realities/{name}/compare",
            "post /{id}/parallel-realities/{name}/promote",
            "post /{id}/transaction",
            "get /{id}/transaction/{tx}",
            "post /{id}/transaction/{tx}/add",
            "post /{id}/transaction/{tx}/remove",
            "post /{id}/transaction/{tx}/move",
            "post /{id}/transaction/{tx}/validate",
            "post /{id}/transaction/{tx}/commit",
            "post /{id}/transaction/{tx}/rollback",
            "get /{id}/versions",
            "get /{id}/versions/{n}",
            "post /{id}/versions/{n}/restore",
            "get /{id}/versions/{n}/push-cert",
            "get /{id}/time-travel/{timestamp}",
        ];
        expected.sort_unstable();
        assert_eq!(found, expected);
    }

    #[test]
    fn references_and_problems_are_complete() {
        let document = document();
        let schemas = document["components"]["schemas"].as_object().expect("schemas");
        let text = document.to_string();
        let mut names = 0;
        for reference in text.split("#/components/schemas/").skip(1) {
            let name = reference.split('"').next().expect("a name");
            assert!(schemas.contains_key(name), "schema {name} is missing");
            names += 1;
        }
        assert!(names > 20, "schemas are used");
        let commit = &document["paths"]["/api/v1/repos/{id}/commits"]["post"];
        for status in ["201", "400", "404", "408", "409", "412", "413", "415", "422", "503", "507", "default"] {
            assert!(commit["responses"][status].is_object(), "status {status}: {commit}");
        }
    }
}
