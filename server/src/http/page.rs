//! Lists in pages: a limit, an opaque cursor to what follows, and the `Link` header that carries it.
//!
//! A cursor says behind what to go on, never how many to skip, so a page neither repeats nor misses what was there
//! all along while others write. It is opaque to clients and checked like any other input.

use axum::{
    http::{HeaderValue, Uri, header::LINK},
    response::Response,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::problem::Problem;

/// How many items a page has unless the request says otherwise.
pub(crate) const LIMIT_DEFAULT: usize = 50;
/// How many items a page has at most; a larger wish gets this many.
pub(crate) const LIMIT_MAX: usize = 1000;

/// The number of items that a request may have.
pub(crate) fn limit(wanted: Option<usize>) -> Result<usize, Problem> {
    match wanted {
        None => Ok(LIMIT_DEFAULT),
        Some(0) => Err(Problem::invalid("limit is at least 1")),
        Some(wanted) => Ok(wanted.min(LIMIT_MAX)),
    }
}

/// The cursor to what follows the item of this key.
pub(crate) fn cursor(key: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(key)
}

/// The key of a cursor, if there is one.
pub(crate) fn key(cursor: Option<&str>) -> Result<Option<Vec<u8>>, Problem> {
    let decode = |cursor| URL_SAFE_NO_PAD.decode(cursor).map_err(|_| malformed());
    cursor.map(decode).transpose()
}

/// A cursor that this server never gave.
pub(crate) fn malformed() -> Problem {
    Problem::invalid("the cursor is not one that this server gave")
}

/// The same answer with the way to the next page, if there is one.
pub(crate) fn with_next(mut response: Response, uri: &Uri, next: Option<&str>) -> Response {
    if let Some(link) = next.and_then(|cursor| HeaderValue::from_str(&link(uri, cursor)).ok()) {
        response.headers_mut().insert(LINK, link);
    }
    response
}

/// `<same path and query, with this cursor>; rel="next"`. Cursors need no escaping.
fn link(uri: &Uri, cursor: &str) -> String {
    let kept = uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    let kept: String = kept.filter(|pair| !is_cursor(pair)).flat_map(|pair| [pair, "&"]).collect();
    format!("<{}?{kept}cursor={cursor}>; rel=\"next\"", uri.path())
}

fn is_cursor(pair: &str) -> bool {
    pair.split('=').next() == Some("cursor")
}

/// Splits what was read one item too far into the page's items and whether there are more.
pub(crate) fn cut<T>(mut items: Vec<T>, limit: usize) -> (Vec<T>, bool) {
    let more = items.len() > limit;
    items.truncate(limit);
    (items, more)
}

#[cfg(test)]
mod tests {
    use axum::http::Uri;

    use super::{LIMIT_DEFAULT, LIMIT_MAX, cursor, cut, key, limit, link};

    #[test]
    fn limits_have_bounds() {
        assert_eq!(limit(None).ok(), Some(LIMIT_DEFAULT));
        assert_eq!(limit(Some(7)).ok(), Some(7));
        assert_eq!(limit(Some(usize::MAX)).ok(), Some(LIMIT_MAX));
        assert!(limit(Some(0)).is_err());
    }

    #[test]
    fn cursors_carry_any_key_and_nothing_else() {
        for bytes in [&b""[..], b"refs/heads/main", b"\xff\x00?&"] {
            assert_eq!(key(Some(&cursor(bytes))).ok().flatten().as_deref(), Some(bytes));
        }
        assert_eq!(key(None).ok(), Some(None));
        assert!(key(Some("not a cursor!")).is_err());
    }

    #[test]
    fn the_next_page_keeps_the_query() {
        let check = |uri: &str, expected: &str| {
            let uri: Uri = uri.parse().expect("a URI");
            assert_eq!(link(&uri, "Zm9v"), expected);
        };
        check("/a%2Fb", "</a%2Fb?cursor=Zm9v>; rel=\"next\"");
        check("/a?limit=2&cursor=old&path=x%26y", "</a?limit=2&path=x%26y&cursor=Zm9v>; rel=\"next\"");
        check("/a?cursor", "</a?cursor=Zm9v>; rel=\"next\"");
        check("/a?cursors=1", "</a?cursors=1&cursor=Zm9v>; rel=\"next\"");
    }

    #[test]
    fn a_page_is_full_only_if_something_follows() {
        assert_eq!(cut(vec![1, 2, 3], 2), (vec![1, 2], true));
        assert_eq!(cut(vec![1, 2], 2), (vec![1, 2], false));
    }
}
