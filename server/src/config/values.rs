//! How values are written: sizes, durations, addresses, words. Every function takes a text and gives the
//! value or the reason why not, and is told nothing about where the text came from.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use govc_engine::ObjectFormat;
use tracing::level_filters::LevelFilter;

use super::LogFormat;

/// `512MiB`, `2G`, `1500MB`, `4096`: a whole number of bytes. `K`, `KiB` and so on are powers of 1024,
/// `KB` and so on powers of 1000; case does not matter.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = number_and_unit(text).ok_or(SIZE_FORM)?;
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return Err(SIZE_FORM.to_owned()),
    };
    number.checked_mul(factor).ok_or_else(|| "the size is too large".to_owned())
}

const SIZE_FORM: &str = "expected a size such as 512MiB, 2G or 4096 (bytes)";

/// As [`size`], but at least `bytes_min`.
pub(super) fn size_from(text: &str, bytes_min: u64) -> Result<u64, String> {
    let bytes = size(text)?;
    if bytes < bytes_min {
        return Err(format!("expected at least {bytes_min} bytes"));
    }
    Ok(bytes)
}

/// `30s`, `500ms`, `5m`, `1h`: a whole number above zero, with its unit.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = number_and_unit(text).ok_or(DURATION_FORM)?;
    let milliseconds: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(DURATION_FORM.to_owned()),
    };
    // A year: far beyond use, and far from overflowing a clock.
    match number.checked_mul(milliseconds) {
        Some(0) => Err("the duration must be above zero".to_owned()),
        Some(total) if total <= 365 * 24 * 3_600_000 => Ok(Duration::from_millis(total)),
        _ => Err("the duration is too long".to_owned()),
    }
}

/// As [`duration`], but also in days (`90d`), and for up to a century.
pub(super) fn age(text: &str) -> Result<Duration, String> {
    const DAY_SECONDS: u64 = 24 * 3600;
    match number_and_unit(text) {
        Some((days, "d")) if (1..=36_500).contains(&days) => Ok(Duration::from_secs(days * DAY_SECONDS)),
        Some((_, "d")) => Err("expected at least one day and at most 36500".to_owned()),
        _ => duration(text).map_err(|_| "expected an age such as 90d, 12h or 30m".to_owned()),
    }
}

/// As [`age`]; `never` is zero.
pub(super) fn age_or_never(text: &str) -> Result<Duration, String> {
    if text == "never" { Ok(Duration::ZERO) } else { age(text) }
}

const DURATION_FORM: &str = "expected a duration such as 30s, 500ms, 5m or 1h";

/// As [`duration`], but at most `max`.
pub(super) fn duration_up_to(text: &str, max: Duration) -> Result<Duration, String> {
    let given = duration(text)?;
    if given > max {
        return Err(format!("expected at most {} s", max.as_secs()));
    }
    Ok(given)
}

fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    Some((number.parse().ok()?, unit.trim_start()))
}

/// A whole number from 1 to a million.
pub(super) fn count(text: &str) -> Result<usize, String> {
    match text.trim().parse() {
        Ok(number) if (1..=1_000_000).contains(&number) => Ok(number),
        _ => Err("expected a whole number from 1 to 1000000".to_owned()),
    }
}

/// A whole number.
/// 1 to 100.
pub(super) fn percent(text: &str) -> Result<u32, String> {
    let percent = text.strip_suffix('%').unwrap_or(text).parse().ok();
    percent.filter(|percent| (1..=100).contains(percent)).ok_or_else(|| "expected 1 to 100".to_owned())
}

pub(super) fn number(text: &str) -> Result<u64, String> {
    text.trim().parse().map_err(|_| "expected a whole number".to_owned())
}

pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err("expected true or false".to_owned()),
    }
}

/// `sha1`, `sha256`.
pub(super) fn object_format(text: &str) -> Result<ObjectFormat, String> {
    text.trim().to_ascii_lowercase().parse().map_err(|_| "expected sha1 or sha256".to_owned())
}

/// `127.0.0.1:8080`, `[::1]:8080`, `localhost:8080`. Other names are refused: what they resolve to may
/// change, and with it whether the address is safe to listen on.
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    const FORM: &str = "expected an address and a port such as 127.0.0.1:8080 or [::1]:8080";
    let text = text.trim();
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let (name, number) = text.rsplit_once(':').ok_or(FORM)?;
    if name != "localhost" {
        return Err(FORM.to_owned());
    }
    Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port(number)?))
}

pub(super) fn host(text: &str) -> Result<IpAddr, String> {
    let text = text.trim();
    if text == "localhost" {
        return Ok(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse().map_err(|_| "expected an IP address such as 127.0.0.1 or ::1, or localhost".to_owned())
}

pub(super) fn port(text: &str) -> Result<u16, String> {
    text.trim().parse().map_err(|_| "expected a port from 0 to 65535".to_owned())
}

/// `https://git.example.org`, `http://host:8080/code`: where clients reach this server; without a slash at its end.
pub(super) fn url(text: &str) -> Result<String, String> {
    const FORM: &str = "expected an address such as https://git.example.org or http://host:8080/code";
    let text = text.trim().trim_end_matches('/');
    let url: http::Uri = text.parse().map_err(|_| FORM)?;
    let is_url = matches!(url.scheme_str(), Some("http" | "https"))
        && url.authority().is_some_and(|authority| !authority.host().is_empty() && !authority.as_str().contains('@'))
        && url.query().is_none()
        && !text.contains('#');
    if is_url { Ok(text.to_owned()) } else { Err(FORM.to_owned()) }
}

pub(super) fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() || text.contains('\0') {
        return Err("expected a path".to_owned());
    }
    Ok(PathBuf::from(text))
}

pub(super) fn level(text: &str) -> Result<LevelFilter, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "trace" => Ok(LevelFilter::TRACE),
        "debug" => Ok(LevelFilter::DEBUG),
        "info" => Ok(LevelFilter::INFO),
        "warn" | "warning" => Ok(LevelFilter::WARN),
        // Nothing is logged above error: what would be fatal ends the process with a message.
        "error" | "fatal" => Ok(LevelFilter::ERROR),
        "off" => Ok(LevelFilter::OFF),
        _ => Err("expected trace, debug, info, warn, error or off".to_owned()),
    }
}

pub(super) fn log_format(text: &str) -> Result<LogFormat, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "json" => Ok(LogFormat::Json),
        "text" => Ok(LogFormat::Text),
        _ => Err("expected json or text".to_owned()),
    }
}

/// A fixed path: plain segments, so that it can neither be a route's pattern nor need decoding, and not
/// one that other routes own.
pub(super) fn metrics_path(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let segments = text.strip_prefix('/').ok_or("expected a path that starts with /")?;
    let sound = segments
        .split('/')
        .all(|segment| !segment.is_empty() && !segment.starts_with('.') && segment.bytes().all(plain));
    if !sound || text.len() > 200 {
        return Err("expected a path of letters, digits and -_. such as /metrics".to_owned());
    }
    let taken = ["/health", "/health/live", "/health/ready", "/version"];
    if taken.contains(&text) || text == "/api" || text.starts_with("/api/") {
        return Err("the path is taken by another part of the server".to_owned());
    }
    Ok(text.to_owned())
}
