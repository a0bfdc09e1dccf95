//! Moments for `before:` and `after:`: days, times, seconds since the epoch, and how long ago.
//!
//! All days begin at midnight UTC; months and years are those of the calendar.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, Unit};

/// What is accepted, for error messages.
const FORMS: &str = "write 2026-05-31, 2026-05-31T10:00:00Z, @1780000000, yesterday or 2weeks";

/// The units and their other names.
const UNITS: &[(Unit, &[&str])] = &[
    (Unit::Second, &["second", "seconds", "sec", "secs", "s"]),
    (Unit::Minute, &["minute", "minutes", "min", "mins"]),
    (Unit::Hour, &["hour", "hours", "h"]),
    (Unit::Day, &["day", "days", "d"]),
    (Unit::Week, &["week", "weeks", "w"]),
    (Unit::Month, &["month", "months"]),
    (Unit::Year, &["year", "years", "y"]),
];

/// The moment that `text` says, in seconds since the epoch, when it is `now_seconds`.
///
/// # Errors
/// A message for the user: the text has none of the forms, or is out of the range of the calendar.
pub(super) fn moment(text: &str, now_seconds: i64) -> Result<i64, String> {
    if let Some(seconds) = text.strip_prefix('@') {
        return seconds.parse().map_err(|_| format!("not a number of seconds: {FORMS}"));
    }
    let words = words(text);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["now"] => Ok(now_seconds),
        ["today"] => midnight(now_seconds, 0),
        ["yesterday"] => midnight(now_seconds, 1),
        ["last", unit] => ago(1, unit, now_seconds),
        [count, unit] | [count, unit, "ago"] => match count.parse() {
            Ok(count) => ago(count, unit, now_seconds),
            Err(_) => absolute(text),
        },
        _ => absolute(text),
    }
}

/// Lower-case words and numbers: `3.days.ago` and `3days ago` are `3`, `days`, `ago`.
fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut previous = ' ';
    for c in text.chars() {
        let separates = |c: char| c == '.' || c.is_whitespace();
        if !separates(c) {
            let joins = !separates(previous) && (previous.is_ascii_digit() == c.is_ascii_digit());
            match words.last_mut().filter(|_| joins) {
                Some(word) => word.push(c.to_ascii_lowercase()),
                None => words.push(c.to_ascii_lowercase().to_string()),
            }
        }
        previous = c;
    }
    words
}

/// A day or a time; without an offset it is UTC.
fn absolute(text: &str) -> Result<i64, String> {
    let unknown = || format!("not a date: {FORMS}");
    if text.len() > 64 || !text.get(1..).is_some_and(|rest| rest.contains('-')) {
        return Err(unknown());
    }
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Ok(timestamp.as_second());
    }
    let civil = text.parse::<DateTime>().map_err(|_| unknown())?;
    let zoned = civil.to_zoned(TimeZone::UTC).map_err(|_| unknown())?;
    Ok(zoned.timestamp().as_second())
}

fn ago(count: i64, unit: &str, now_seconds: i64) -> Result<i64, String> {
    let Some((unit, _)) = UNITS.iter().find(|(_, names)| names.contains(&unit)) else {
        return Err(format!("not a unit of time: {FORMS}"));
    };
    let far = || "too long ago for the calendar".to_owned();
    let span = match unit {
        Unit::Second => Span::new().try_seconds(count),
        Unit::Minute => Span::new().try_minutes(count),
        Unit::Hour => Span::new().try_hours(count),
        Unit::Day => Span::new().try_days(count),
        Unit::Week => Span::new().try_weeks(count),
        Unit::Month => Span::new().try_months(count),
        _ => Span::new().try_years(count),
    };
    let now = now(now_seconds)?.to_zoned(TimeZone::UTC);
    let then = span.and_then(|span| now.checked_sub(span)).map_err(|_| far())?;
    Ok(then.timestamp().as_second())
}

/// The beginning of the day that was `days_ago`, in UTC.
fn midnight(now_seconds: i64, days_ago: i64) -> Result<i64, String> {
    const DAY_SECONDS: i64 = 86_400;
    let now = now(now_seconds)?.as_second();
    Ok(now - now.rem_euclid(DAY_SECONDS) - days_ago * DAY_SECONDS)
}

fn now(now_seconds: i64) -> Result<Timestamp, String> {
    Timestamp::from_second(now_seconds).map_err(|_| "the clock is out of the range of the calendar".to_owned())
}
