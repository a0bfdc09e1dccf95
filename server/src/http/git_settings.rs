//! A repository's rules for Git's protocol, as the API has them.

use govc_engine::{GitRules, SignedPush};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What is refused of pushes over Git's protocol, and hidden there. The API itself is not bound by it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct GitSettings {
    /// Whether a push may only move a branch to what its commit leads to (`receive.denyNonFastForwards`).
    deny_non_fast_forwards: bool,
    /// Whether a push may not delete branches (`receive.denyDeletes`).
    deny_deletes: bool,
    /// The largest object of a push, in bytes; null for `storage.max_object` alone, which holds beside it.
    max_object_size: Option<u64>,
    /// Names of references, or their beginnings up to a slash, that are neither shown nor taken; with `!` in front, shown all
    /// the same. The last that fits decides (`transfer.hideRefs`).
    #[schema(example = json!(["refs/internal"]))]
    hidden_refs: Vec<String>,
    /// What a push must be signed with (`git push --signed`): `none` for nothing, `recorded` for a certificate that was made for
    /// it, `verified` for one that somebody has signed who may (`git.allowed_signers`).
    #[schema(value_type = String, example = "none")]
    require_signed_push: &'static str,
}

/// What is to be changed of that; what is absent stays.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct GitChange {
    deny_non_fast_forwards: Option<bool>,
    deny_deletes: Option<bool>,
    /// In bytes; 0 for none.
    max_object_size: Option<u64>,
    /// At most 100 patterns of at most 1024 bytes.
    hidden_refs: Option<Vec<String>>,
    /// `none`, `recorded` or `verified`.
    #[schema(value_type = Option<String>)]
    require_signed_push: Option<SignedPush>,
}

impl GitSettings {
    pub(super) fn of(rules: GitRules) -> Self {
        let GitRules { deny_non_fast_forwards, deny_deletes, object_bytes_max, hidden_refs, require_signed_push } =
            rules;
        Self {
            deny_non_fast_forwards,
            deny_deletes,
            max_object_size: object_bytes_max,
            hidden_refs,
            require_signed_push: require_signed_push.as_str(),
        }
    }
}

impl GitChange {
    pub(super) fn apply(self, rules: &mut GitRules) {
        let Self { deny_non_fast_forwards, deny_deletes, max_object_size, hidden_refs, require_signed_push } = self;
        rules.require_signed_push = require_signed_push.unwrap_or(rules.require_signed_push);
        rules.deny_non_fast_forwards = deny_non_fast_forwards.unwrap_or(rules.deny_non_fast_forwards);
        rules.deny_deletes = deny_deletes.unwrap_or(rules.deny_deletes);
        if let Some(bytes) = max_object_size {
            rules.object_bytes_max = (bytes > 0).then_some(bytes);
        }
        if let Some(patterns) = hidden_refs {
            rules.hidden_refs = patterns;
        }
    }
}
