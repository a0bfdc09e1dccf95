//! Paths and methods, and which repository a request is about.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderValue, Method, header::ALLOW},
    response::Response,
    routing::any,
};
use govc_engine::{ErrorKind, Repo, RepoName};

use super::{answer, batch, lock, transfer};
use crate::{
    app::App,
    git,
    http::problem::{Code, Problem, Thing, about},
};

/// What stands between a repository and the rest of a path.
const MARK: &str = "/info/lfs/";
const ACTOR: &str = "anonymous";

/// All routes of Git LFS.
pub(crate) fn router(app: Arc<App>) -> Router {
    let mut router = Router::new();
    for repo in ["/{a}", "/{a}/{b}", "/{a}/{b}/{c}"] {
        for rest in ["objects/batch", "objects/{oid}", "verify", "locks", "locks/verify", "locks/{id}/unlock"] {
            router = router.route(&format!("{repo}{MARK}{rest}"), any(serve));
        }
    }
    router.with_state(app)
}

/// A repository, or the name of one that an upload makes.
#[derive(Debug, Clone)]
pub(super) enum Target {
    There(Repo),
    ToBeMade(RepoName),
}

/// What handlers need to know of a request beside its body.
pub(super) struct Call {
    pub(super) app: Arc<App>,
    pub(super) target: Target,
}

impl Target {
    /// The repository, if it is there.
    pub(super) fn repo(&self) -> Option<&Repo> {
        match self {
            Self::There(repo) => Some(repo),
            Self::ToBeMade(_) => None,
        }
    }

    /// Its name.
    pub(super) fn name(&self) -> RepoName {
        match self {
            Self::There(repo) => repo.name(),
            Self::ToBeMade(name) => name.clone(),
        }
    }

    /// The repository, which must be there.
    pub(super) fn required(&self) -> Result<&Repo, Problem> {
        match self {
            Self::There(repo) => Ok(repo),
            Self::ToBeMade(name) => Err(missing(name)),
        }
    }

    /// The repository, which is made if it is not there. Blocks.
    pub(super) fn make(self, app: &App) -> Result<Repo, Problem> {
        let name = match self {
            Self::There(repo) => return Ok(repo),
            Self::ToBeMade(name) => name,
        };
        match app.store.create(&name, app.config.new_repo_settings(), ACTOR) {
            Err(error) if *error.kind() == ErrorKind::Exists => app.store.repo(&name).map_err(about(Thing::Repo)),
            made => made.map_err(about(Thing::Repo)),
        }
    }
}

async fn serve(State(app): State<Arc<App>>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let Some((repo, rest)) = path.rsplit_once(MARK) else {
        answer::discard(request);
        return answer::refuse(Problem::new(Code::RouteNotFound, "there is no such route"));
    };
    let method = match request.method() {
        &Method::HEAD => Method::GET,
        method => method.clone(),
    };
    let segments: Vec<&str> = rest.split('/').collect();
    let allowed = match segments.as_slice() {
        ["objects", "batch"] | ["verify"] | ["locks", "verify"] | ["locks", _, "unlock"] => "POST",
        ["objects", _] => "GET, HEAD, PUT",
        _ => "GET, HEAD, POST",
    };
    if !allowed.split(", ").any(|allowed| allowed == method.as_str()) {
        let mut response =
            answer::refuse(Problem::new(Code::MethodNotAllowed, format!("{method} is not allowed here")));
        response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
        answer::discard(request);
        return response;
    }
    let target = match target(&app, repo) {
        Ok(target) => target,
        Err(problem) => {
            answer::discard(request);
            return answer::refuse(problem);
        }
    };
    let call = Call { app, target };
    let served = match (segments.as_slice(), method == Method::GET) {
        (["objects", "batch"], _) => batch::batch(call, request).await,
        (["verify"], _) => transfer::verify(call, request).await,
        (["locks", "verify"], _) => lock::verify(call, request).await,
        (["locks", id, "unlock"], _) => lock::unlock(call, id, request).await,
        (["objects", oid], true) => transfer::download(call, oid, request).await,
        (["objects", oid], false) => transfer::upload(call, oid, request).await,
        (_, true) => lock::list(call, request).await,
        (_, false) => lock::create(call, request).await,
    };
    served.unwrap_or_else(answer::refuse)
}

/// The repository of a path; where a push may make one, also a name that nothing has.
fn target(app: &App, path: &str) -> Result<Target, Problem> {
    let name = git::repo_name(path, "").map_err(|error| {
        Problem::new(Code::RepoNotFound, format!("there is no such repository: {}", error.message()))
    })?;
    match app.store.repo(&name) {
        Ok(repo) => Ok(Target::There(repo)),
        Err(error) if *error.kind() != ErrorKind::NotFound => Err(about(Thing::Repo)(error)),
        Err(_) if app.config.git.create_on_push => Ok(Target::ToBeMade(name)),
        Err(_) => Err(missing(&name)),
    }
}

fn missing(name: &RepoName) -> Problem {
    Problem::new(Code::RepoNotFound, format!("repository '{name}' does not exist"))
}
