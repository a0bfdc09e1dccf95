//! How clients reach this server: the beginning of the links that answers of Git LFS and of fetches hold.

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderName, header::HOST},
};

use super::problem::Problem;
use crate::telemetry::IsSecure;

const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Where the settings say, else the host that the client asked for, over TLS if this server or a proxy in front of it
/// speaks it.
///
/// # Errors
/// If the settings say nothing and the request names no host.
pub(crate) fn base_url(public_url: Option<&str>, request: &Request) -> Result<String, Problem> {
    if let Some(url) = public_url {
        return Ok(url.to_owned());
    }
    let (headers, uri) = (request.headers(), request.uri());
    let host = first(headers, FORWARDED_HOST).or_else(|| headers.get(HOST)?.to_str().ok());
    let host = host.or_else(|| uri.authority().map(|host| host.as_str()));
    let is_plain = |host: &&str| host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~:[]".contains(&byte));
    let host = host.filter(|host| !host.is_empty()).filter(is_plain);
    let host = host.ok_or_else(|| Problem::invalid("the request does not say which host it is for"))?;
    let is_secure = match request.extensions().get::<IsSecure>() {
        Some(IsSecure(true)) => true,
        _ => first(headers, FORWARDED_PROTO).is_some_and(|proto| proto.eq_ignore_ascii_case("https")),
    };
    Ok(format!("{}://{host}", if is_secure { "https" } else { "http" }))
}

/// What the proxy that is nearest to the client says.
fn first(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    let all = headers.get(name)?.to_str().ok()?;
    all.split(',').next().map(str::trim).filter(|first| !first.is_empty())
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, extract::Request};

    use super::{IsSecure, base_url};

    #[test]
    fn links_lead_where_the_client_came_from() {
        let of = |is_secure: bool, headers: &[(&str, &str)]| {
            let mut request = Request::post("/x").extension(IsSecure(is_secure));
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            base_url(None, &request.body(Body::empty()).expect("a request")).ok()
        };
        let found = |is_secure, headers: &[(&str, &str)], expected: Option<&str>| {
            assert_eq!(of(is_secure, headers).as_deref(), expected, "{headers:?}");
        };
        found(false, &[("host", "git.example.org:8080")], Some("http://git.example.org:8080"));
        found(true, &[("host", "git.example.org")], Some("https://git.example.org"));
        found(true, &[("host", "git.example.org"), ("x-forwarded-proto", "http")], Some("https://git.example.org"));
        found(false, &[("host", "[::1]:8080"), ("x-forwarded-proto", "https")], Some("https://[::1]:8080"));
        let proxies = [("host", "inside:8080"), ("x-forwarded-proto", "HTTPS, http"), ("x-forwarded-host", "a.org, b")];
        found(false, &proxies, Some("https://a.org"));
        found(false, &[], None);
        found(false, &[("host", "a/b")], None);
        found(false, &[("host", "a\"b")], None);
        let request = Request::post("/x").header("host", "inside").body(Body::empty()).expect("a request");
        assert_eq!(base_url(Some("https://a.org/code"), &request).ok().as_deref(), Some("https://a.org/code"));
    }

    #[test]
    fn http_2_names_the_host_in_the_address() {
        let request = Request::post("https://a.org/x").extension(IsSecure(true)).body(Body::empty());
        assert_eq!(base_url(None, &request.expect("a request")).ok().as_deref(), Some("https://a.org"));
    }
}
