//! Numbers as people read them.

/// Three significant digits, and whole numbers with groups of three digits from 100 on.
pub(crate) fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 99.95 => grouped(value),
        size if size >= 9.995 => format!("{value:.1}"),
        size if size >= 0.9995 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// Bytes in the unit that fits.
pub(crate) fn bytes(count: u64) -> String {
    let count = count as f64;
    match count {
        _ if count >= 1e9 => format!("{:.2} GB", count / 1e9),
        _ if count >= 1e6 => format!("{:.1} MB", count / 1e6),
        _ if count >= 1e3 => format!("{:.1} kB", count / 1e3),
        _ => format!("{count} bytes"),
    }
}

/// Microseconds in the unit that fits.
pub(crate) fn time(micros: f64) -> String {
    match micros {
        _ if micros >= 1e6 => format!("{} s", short(micros / 1e6)),
        _ if micros >= 1e3 => format!("{} ms", short(micros / 1e3)),
        _ if micros >= 1.0 => format!("{} µs", short(micros)),
        _ => format!("{:.0} ns", micros * 1e3),
    }
}

fn short(value: f64) -> String {
    match value {
        _ if value >= 99.5 => format!("{value:.0}"),
        _ if value >= 9.95 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    if value < 0.0 { format!("-{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::{bytes, figure, time};

    #[test]
    fn three_digits_and_groups() {
        let figures = [0.0, 0.1234, 1.234, 12.34, 99.97, 123.4, 1234.5, 1_234_567.0].map(figure);
        let expected = ["0.000", "0.123", "1.23", "12.3", "100", "123", "1\u{202f}234", "1\u{202f}234\u{202f}567"];
        assert_eq!(figures, expected);
    }

    #[test]
    fn units_fit() {
        assert_eq!([0.25, 2.5, 2500.0, 2.5e6].map(time), ["250 ns", "2.50 µs", "2.50 ms", "2.50 s"]);
        assert_eq!([12, 1200, 1_200_000, 1_200_000_000].map(bytes), ["12 bytes", "1.2 kB", "1.2 MB", "1.20 GB"]);
    }
}
