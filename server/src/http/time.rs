//! Times as text: RFC 3339 in answers; in requests also what git itself writes and understands.

use std::time::{SystemTime, UNIX_EPOCH};

use gix_date::{Time, time::format::ISO8601_STRICT};

use super::problem::Problem;

/// Longest accepted date, in bytes.
const DATE_BYTES_MAX: usize = 64;

/// Seconds since the Unix epoch, and minutes east of UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) seconds: i64,
    pub(crate) offset_minutes: i32,
}

impl Moment {
    /// The machine's time, in UTC.
    pub(crate) fn now() -> Self {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self { seconds: i64::try_from(seconds).unwrap_or(i64::MAX), offset_minutes: 0 }
    }

    /// Reads a date such as `2024-01-15T03:42:00Z` or `1705290120 +0100`.
    pub(crate) fn parse(text: &str) -> Result<Self, Problem> {
        let malformed = || Problem::invalid(format!("not a date: {text:?}; give one like 2024-01-15T03:42:00+01:00"));
        if text.len() > DATE_BYTES_MAX || !text.is_ascii() {
            return Err(Problem::invalid("not a date; give one like 2024-01-15T03:42:00+01:00"));
        }
        // Relative dates would mean another moment with each repetition of a request, hence no `now`.
        // The `@` makes git's own `seconds offset` unmistakable; without, digits may be read as a calendar's.
        let raw = gix_date::parse(&format!("@{text}"), None);
        let time = raw.or_else(|_| gix_date::parse(text, None)).map_err(|_| malformed())?;
        Ok(Self { seconds: time.seconds, offset_minutes: time.offset / 60 })
    }

    /// The moment in RFC 3339, or its seconds where a calendar has no such year.
    pub(crate) fn to_text(self) -> String {
        let offset = self.offset_minutes.saturating_mul(60);
        Time::new(self.seconds, offset).format_or_unix(ISO8601_STRICT)
    }
}

#[cfg(test)]
mod tests {
    use super::Moment;

    #[test]
    fn dates_are_read_and_written() {
        let check = |text: &str, seconds, offset_minutes, written: &str| {
            let moment = Moment::parse(text).expect("a date");
            assert_eq!(moment, Moment { seconds, offset_minutes }, "{text}");
            assert_eq!(moment.to_text(), written);
        };
        check("1970-01-01T00:00:00Z", 0, 0, "1970-01-01T00:00:00+00:00");
        check("2022-08-17T21:43:13+08:00", 1_660_743_793, 480, "2022-08-17T21:43:13+08:00");
        check("1660743793 -0130", 1_660_743_793, -90, "2022-08-17T12:13:13-01:30");
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for text in ["", "soon", "2022-13-01T00:00:00Z", "é", &"1".repeat(100)] {
            assert!(Moment::parse(text).is_err(), "{text}");
        }
        assert_eq!(Moment { seconds: i64::MAX, offset_minutes: 0 }.to_text(), i64::MAX.to_string());
    }
}
