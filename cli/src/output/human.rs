//! Sizes, spans and times as people read them, and back.

use std::time::Duration;

pub(crate) use osiris_fleet::date::utc as date;

/// `512 B`, `1.5 MiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    // 1023.95 would be printed as 1024.0.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// `45 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`.
pub(crate) fn seconds(count: u64) -> String {
    let (minutes, hours, days) = (count / 60, count / 3600, count / 86_400);
    match count {
        0..60 => format!("{count} s"),
        60..3600 => format!("{minutes} min {} s", count % 60),
        3600..86_400 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

/// `850 µs`, `12.3 ms`, `1.20 s`.
pub(crate) fn micros(count: u64) -> String {
    match count {
        0..1_000 => format!("{count} µs"),
        1_000..1_000_000 => format!("{:.1} ms", count as f64 / 1e3),
        _ => format!("{:.2} s", count as f64 / 1e6),
    }
}

/// `5 s`, `1500 ms`.
pub(crate) fn span(span: Duration) -> String {
    match span.subsec_millis() {
        0 => seconds(span.as_secs()),
        _ => format!("{} ms", span.as_millis()),
    }
}

/// The start of a hexadecimal id: enough to tell apart, short enough to read.
pub(crate) fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// `1 node`, `2 nodes`.
pub(crate) fn count(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// `a, b`, or `-` where there is none.
pub(crate) fn list(items: &[String]) -> String {
    if items.is_empty() { "-".to_owned() } else { items.join(", ") }
}

/// Reads `500ms`, `5s`, `2m`, `1h`, or a number of seconds.
pub(crate) fn parse_span(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor = match unit.trim() {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("`{}` is no unit of time; use ms, s, m or h", unit.trim())),
    };
    let wrong = || format!("`{text}` is no span of time; write for example 500ms, 5s or 2m");
    let seconds = number.parse::<f64>().map_err(|_| wrong())? * factor;
    let span = Duration::try_from_secs_f64(seconds).map_err(|_| wrong())?;
    if span.is_zero() || span > Duration::from_secs(86_400) {
        return Err(format!("`{text}` is out of range; give 1ms to 24h"));
    }
    Ok(span)
}

/// A time in milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment(u64);

impl Moment {
    pub(crate) fn ms(self) -> u64 {
        self.0
    }
}

/// Reads a span that has passed until now, such as `90m`, `24h` or `30d`, or a time as in RFC 3339.
pub(crate) fn parse_moment(text: &str) -> Result<Moment, String> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    let wrong = || format!("`{text}` is no time; write for example 90m, 24h, 30d or 2026-11-25T16:00:00Z");
    if let Some(days) = text.strip_suffix('d') {
        let days: u64 = days.parse().map_err(|_| wrong())?;
        return Ok(Moment(now.saturating_sub(days.saturating_mul(86_400_000))));
    }
    if let Ok(span) = parse_span(text) {
        return Ok(Moment(now.saturating_sub(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))));
    }
    since_1970(text).ok_or_else(wrong)
}

/// TOML's offset date-times are those of RFC 3339. Days: Howard Hinnant's `days_from_civil`.
fn since_1970(text: &str) -> Option<Moment> {
    let read: toml::value::Datetime = text.parse().ok()?;
    let (date, time, offset) = (read.date?, read.time?, read.offset?);
    let minutes = match offset {
        toml::value::Offset::Z => 0,
        toml::value::Offset::Custom { minutes } => i64::from(minutes),
    };
    let (month, day) = (i64::from(date.month), i64::from(date.day));
    let year = i64::from(date.year) - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year - era * 400;
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_era =
        year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + (153 * shifted_month + 2) / 5 + day - 1;
    let days = era * 146_097 + day_of_era - 719_468;
    let seconds = i64::from(time.second.unwrap_or(0));
    let seconds = days * 86_400 + i64::from(time.hour) * 3600 + i64::from(time.minute) * 60 + seconds;
    let ms = (seconds - minutes * 60) * 1000 + i64::from(time.nanosecond.unwrap_or(0) / 1_000_000);
    u64::try_from(ms).ok().map(Moment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_as_dates_are_written() {
        for ms in [0, 951_782_400_000, 1_795_455_166_000, 4_107_542_399_000] {
            assert_eq!(parse_moment(&date(ms).replace(' ', "T")), Ok(Moment(ms)));
        }
        assert_eq!(parse_moment("1970-01-01T01:30:00.250+01:00"), Ok(Moment(1_800_250)));
        let day = parse_moment("24h").expect("a span").0 - parse_moment("2d").expect("a span").0;
        assert!((86_400_000..86_460_000).contains(&day), "{day}");
        for wrong in ["", "yesterday", "2026-11-25", "2026-11-25T16:00:00", "-1d", "1969-12-31T23:59:59Z"] {
            assert!(parse_moment(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_read_well() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (3 << 29, "1.5 GiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
        assert_eq!(bytes(u64::MAX), "16384.0 PiB");
    }

    #[test]
    fn spans_read_well_both_ways() {
        assert_eq!(seconds(59), "59 s");
        assert_eq!(seconds(200), "3 min 20 s");
        assert_eq!(seconds(100_000), "1 d 3 h");
        assert_eq!(micros(12_345), "12.3 ms");
        for (text, ms) in [("500ms", 500), ("5s", 5_000), ("5", 5_000), ("1.5s", 1_500), ("2m", 120_000)] {
            assert_eq!(parse_span(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for bad in ["", "s", "5 years", "-1s", "0", "1e9", "1..2s", "25h"] {
            assert!(parse_span(bad).is_err(), "{bad}");
        }
    }
}
