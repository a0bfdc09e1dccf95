//! Conditional requests (RFC 9110, section 13): entity tags, `If-None-Match` for reads, `If-Match` for writes.
//!
//! The tag of a content is its object's id, so it never changes without the content and costs nothing to know.
//! A write's `If-Match` names the commit that a branch must still have; it is checked again where the branch is
//! moved, so nothing can come between.

use axum::{
    http::{
        HeaderMap, HeaderName,
        header::{IF_MATCH, IF_NONE_MATCH, IF_RANGE},
    },
    response::Response,
};
use govc_engine::{EntryMode, Expected, Kind, ObjectFormat, Oid, RefConflict, RefName, hash_object};

use super::{
    answer,
    problem::{Code, Problem},
};

/// A strong entity tag, with its quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ETag(String);

impl ETag {
    /// The tag of an object.
    pub(crate) fn of(oid: &Oid) -> Self {
        Self(format!("\"{oid}\""))
    }

    /// The tag of a content that goes by another name than an object's id: letters and digits.
    pub(crate) fn of_text(name: &str) -> Self {
        Self(format!("\"{name}\""))
    }

    /// The tag of a file whose mode is part of the answer.
    pub(crate) fn of_file(oid: &Oid, mode: EntryMode) -> Self {
        if mode == EntryMode::BLOB { Self::of(oid) } else { Self(format!("\"{oid}-{}\"", mode.to_octal())) }
    }

    /// The tag of an answer that is no object's, from its bytes.
    pub(crate) fn of_bytes(bytes: &[u8]) -> Result<Self, Problem> {
        Ok(Self::of(&hash_object(ObjectFormat::Sha1, Kind::Blob, bytes)?))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The tag without its quotes.
    fn opaque(&self) -> &str {
        self.0.trim_matches('"')
    }
}

/// The answer for a client that has the representation of `etag` already, if it says so.
pub(crate) fn not_modified(headers: &HeaderMap, etag: &ETag) -> Option<Response> {
    let known = Tags::read(headers, &IF_NONE_MATCH)?;
    // Weak comparison: for a read it is enough that the content is the same.
    known.names(etag.opaque(), true).then(|| answer::not_modified(etag))
}

/// Whether a `Range` may be answered with a part: `If-Range` is absent or names this very content.
pub(crate) fn range_applies(headers: &HeaderMap, etag: &ETag) -> bool {
    headers.get(IF_RANGE).is_none_or(|value| value.as_bytes() == etag.as_str().as_bytes())
}

/// Refuses a write whose `If-Match` does not name the representation of `etag`.
pub(crate) fn require_match(headers: &HeaderMap, etag: &ETag) -> Result<(), Problem> {
    match Tags::read(headers, &IF_MATCH) {
        Some(wanted) if !wanted.names(etag.opaque(), false) => {
            Err(Problem::new(Code::PreconditionFailed, "the resource is not what If-Match names"))
        }
        _ => Ok(()),
    }
}

/// What a write's headers demand of a reference that holds `current`; `None` if they demand nothing.
///
/// `If-Match: "<id>"` demands that id, `If-Match: *` that the reference exists, `If-None-Match: *` that it does
/// not.
pub(crate) fn demanded(headers: &HeaderMap, name: &RefName, current: Option<Oid>) -> Result<Option<Expected>, Problem> {
    if let Some(Tags::Any) = Tags::read(headers, &IF_NONE_MATCH) {
        return match current {
            None => Ok(Some(Expected::Absent)),
            Some(_) => Err(failed(name, None, current)),
        };
    }
    let Some(wanted) = Tags::read(headers, &IF_MATCH) else { return Ok(None) };
    match current {
        Some(oid) if wanted.names(&oid.to_string(), false) => Ok(Some(Expected::Is(oid))),
        _ => Err(failed(name, wanted.only_id(), current)),
    }
}

fn failed(name: &RefName, expected: Option<Oid>, actual: Option<Oid>) -> Problem {
    let conflict = RefConflict { name: name.as_str().into_owned(), expected, actual, paths: Vec::new() };
    Problem::conflict(Code::PreconditionFailed, conflict)
}

/// The entity tags of a header.
#[derive(Debug, PartialEq, Eq)]
enum Tags {
    /// `*`.
    Any,
    /// Opaque texts, and whether each is weak.
    These(Vec<(bool, String)>),
}

impl Tags {
    /// The tags of a header, `None` if there is no such header. What is malformed names nothing, so that a
    /// read is answered in full and a write is refused.
    fn read(headers: &HeaderMap, name: &HeaderName) -> Option<Self> {
        let mut tags = Vec::new();
        let mut seen = false;
        for value in headers.get_all(name) {
            seen = true;
            let text = value.to_str().unwrap_or_default();
            if text.trim() == "*" {
                return Some(Self::Any);
            }
            read_list(text, &mut tags);
        }
        seen.then_some(Self::These(tags))
    }

    fn names(&self, opaque: &str, weak_counts: bool) -> bool {
        match self {
            Self::Any => true,
            Self::These(tags) => tags.iter().any(|(weak, tag)| tag == opaque && (weak_counts || !weak)),
        }
    }

    /// The id that the tags name, if they name exactly one.
    fn only_id(&self) -> Option<Oid> {
        match self {
            Self::These(tags) if tags.len() == 1 => tags.first().and_then(|(_, tag)| tag.parse().ok()),
            _ => None,
        }
    }
}

/// Reads `W/"a", "b"` up to the first thing that is no entity tag.
fn read_list(text: &str, tags: &mut Vec<(bool, String)>) {
    let mut rest = text.trim_start_matches([' ', '\t', ',']);
    while !rest.is_empty() {
        let (weak, quoted) = match rest.strip_prefix("W/") {
            Some(quoted) => (true, quoted),
            None => (false, rest),
        };
        let Some((opaque, behind)) = quoted.strip_prefix('"').and_then(|inner| inner.split_once('"')) else { return };
        tags.push((weak, opaque.to_owned()));
        rest = behind.trim_start_matches([' ', '\t', ',']);
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, HeaderValue, header::IF_MATCH, header::IF_NONE_MATCH, header::IF_RANGE};
    use govc_engine::{EntryMode, Expected, Oid, RefName};

    use super::{ETag, demanded, not_modified, range_applies, require_match};
    use crate::http::problem::Code;

    fn oid(digit: &str) -> Oid {
        digit.repeat(40).parse().expect("an id")
    }

    fn with(name: axum::http::HeaderName, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name.clone(), HeaderValue::from_str(value).expect("a value"));
        }
        headers
    }

    #[test]
    fn a_read_is_spared_only_for_a_known_tag() {
        let etag = ETag::of(&oid("a"));
        let known = |values: &[&str]| not_modified(&with(IF_NONE_MATCH, values), &etag).is_some();
        let (this, other) = (etag.as_str().to_owned(), ETag::of(&oid("b")).as_str().to_owned());
        assert!(known(&[&this]));
        assert!(known(&[&format!("W/{this}")]), "weak comparison");
        assert!(known(&[&format!("\"x,y\", {other} ,{this}")]), "commas inside a tag do not end it");
        assert!(known(&[&other, &this]), "several header lines are one list");
        assert!(known(&["*"]));
        assert!(!known(&[&other]));
        assert!(!known(&[]));
        assert!(!known(&[this.trim_matches('"')]), "a tag has quotes");
        assert!(!known(&[""]));
    }

    #[test]
    fn the_mode_of_a_file_is_part_of_its_tag() {
        assert_eq!(ETag::of_file(&oid("a"), EntryMode::BLOB), ETag::of(&oid("a")));
        assert_ne!(ETag::of_file(&oid("a"), EntryMode::EXECUTABLE), ETag::of(&oid("a")));
    }

    #[test]
    fn if_range_needs_the_exact_tag() {
        let etag = ETag::of(&oid("a"));
        assert!(range_applies(&HeaderMap::new(), &etag));
        assert!(range_applies(&with(IF_RANGE, &[etag.as_str()]), &etag));
        assert!(!range_applies(&with(IF_RANGE, &[&format!("W/{}", etag.as_str())]), &etag));
        assert!(!range_applies(&with(IF_RANGE, &["Mon, 01 Jan 2024 00:00:00 GMT"]), &etag));
    }

    #[test]
    fn a_write_needs_what_if_match_names() {
        let etag = ETag::of(&oid("a"));
        assert!(require_match(&HeaderMap::new(), &etag).is_ok());
        assert!(require_match(&with(IF_MATCH, &["*"]), &etag).is_ok());
        assert!(require_match(&with(IF_MATCH, &[etag.as_str()]), &etag).is_ok());
        assert!(
            require_match(&with(IF_MATCH, &[&format!("W/{}", etag.as_str())]), &etag).is_err(),
            "strong comparison"
        );
        assert!(require_match(&with(IF_MATCH, &["malformed"]), &etag).is_err());
    }

    #[test]
    fn headers_become_expectations() {
        let main = RefName::branch("main").expect("a name");
        let (a, b) = (oid("a"), oid("b"));
        let tag = ETag::of(&a);
        let found = |headers: &HeaderMap, current| demanded(headers, &main, current).map_err(|problem| problem.code());
        assert_eq!(found(&HeaderMap::new(), Some(a)), Ok(None));
        assert_eq!(found(&with(IF_MATCH, &[tag.as_str()]), Some(a)), Ok(Some(Expected::Is(a))));
        assert_eq!(found(&with(IF_MATCH, &[tag.as_str()]), Some(b)), Err(Code::PreconditionFailed));
        assert_eq!(found(&with(IF_MATCH, &[tag.as_str()]), None), Err(Code::PreconditionFailed));
        assert_eq!(found(&with(IF_MATCH, &["*"]), Some(b)), Ok(Some(Expected::Is(b))));
        assert_eq!(found(&with(IF_MATCH, &["*"]), None), Err(Code::PreconditionFailed));
        assert_eq!(found(&with(IF_NONE_MATCH, &["*"]), None), Ok(Some(Expected::Absent)));
        assert_eq!(found(&with(IF_NONE_MATCH, &["*"]), Some(a)), Err(Code::PreconditionFailed));
    }
}
