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

    /// The machine's time, in milliseconds since the Unix epoch.
    pub(crate) fn now_millis() -> i64 {
        let millis = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        i64::try_from(millis).unwrap_or(i64::MAX)
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

    /// Milliseconds since the Unix epoch in RFC 3339, in UTC and to the millisecond.
    pub(crate) fn text_of_millis(millis: i64) -> String {
        let moment = Self { seconds: millis.div_euclid(1000), offset_minutes: 0 };
        let text = moment.to_text();
        match text.strip_suffix("+00:00") {
            Some(local) => format!("{local}.{:03}+00:00", millis.rem_euclid(1000)),
            None => text,
        }
    }

    /// The moment in RFC 3339, or its seconds where a calendar has no such year.
    pub(crate) fn to_text(self) -> String {
        let offset = self.offset_minutes.saturating_mul(60);
        Time::new(self.seconds, offset).format_or_unix(ISO8601_STRICT)
    }
}

/// Milliseconds since the Unix epoch of seconds since then (`1705290120`) or a date (`2024-01-15T03:42:00Z`), either of
/// which may have a fraction; finer ones are cut off.
pub(crate) fn millis(text: &str) -> Result<i64, Problem> {
    // A plus sign that stands as it is in a query means a space.
    let text = text.replace(' ', "+");
    let malformed = || {
        let forms = "give seconds since 1970 or a date like 2024-01-15T03:42:00Z";
        Problem::invalid(format!("not a time: {:?}; {forms}", text.chars().take(DATE_BYTES_MAX).collect::<String>()))
    };
    let (whole, fraction, zone) = match text.split_once('.') {
        Some((whole, rest)) => {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (fraction, zone) = rest.split_at(digits);
            (whole, fraction, zone)
        }
        None => (&*text, "0", ""),
    };
    if fraction.is_empty() {
        return Err(malformed());
    }
    let thousandths: i64 = format!("{fraction:0<3}").get(..3).unwrap_or_default().parse().map_err(|_| malformed())?;
    let seconds = match whole.parse::<i64>() {
        Ok(seconds) if zone.is_empty() && !whole.starts_with(['-', '+']) => seconds,
        _ if whole.contains('T') => Moment::parse(&format!("{whole}{zone}")).map_err(|_| malformed())?.seconds,
        _ => return Err(malformed()),
    };
    seconds.checked_mul(1000).and_then(|millis| millis.checked_add(thousandths)).ok_or_else(malformed)
}

#[cfg(test)]
mod tests {
    use super::{Moment, millis};

    #[test]
    fn times_have_thousandths() {
        for (text, expected) in [
            ("0", 0),
            ("1660743793", 1_660_743_793_000),
            ("1660743793.5", 1_660_743_793_500),
            ("1660743793.1239", 1_660_743_793_123),
            ("2022-08-17T13:43:13Z", 1_660_743_793_000),
            ("2022-08-17T21:43:13.042+08:00", 1_660_743_793_042),
            ("2022-08-17T21:43:13 08:00", 1_660_743_793_000),
            ("1969-12-31T23:59:59.250Z", -750),
        ] {
            assert_eq!(millis(text).expect(text), expected, "{text}");
        }
        for text in
            ["", ".", "5.", "1.x", "-5", "soon", "2022-08-17", "9223372036854775807", "1e3", "2022-13-17T00:00:00Z"]
        {
            assert!(millis(text).is_err(), "{text}");
        }
        for wanted in [0, 1_660_743_793_042, -750] {
            assert_eq!(millis(&Moment::text_of_millis(wanted)).expect("its own form"), wanted);
        }
    }

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
