//! The time that templates print, and Python's `strftime` for it.

use std::fmt::Write;

/// A civil time without a zone, as Python's `datetime.now()` gives it to
/// `strftime_now`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    year: i64,
    /// 1 to 12
    month: u8,
    /// 1 to 31
    day: u8,
    hour: u8,
    minute: u8,
    second: u8,
    millisecond: u16,
    /// Days since 1970-01-01.
    days: i64,
    /// Seconds since the start of 1970, by this clock.
    seconds: i64,
}

const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 24 * 60 * MINUTE_MS;
/// The years 1 to 9999, which is what Python's `datetime` holds.
const RANGE_MS: std::ops::RangeInclusive<i64> = -62_135_596_800_000..=253_402_300_799_999;

const DAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

impl Now {
    /// The civil time at `unix_ms` milliseconds after the epoch, on a clock
    /// `utc_offset_minutes` ahead of UTC. Times outside the years 1 to 9999 are
    /// moved to the nearest one inside.
    pub fn from_unix_millis(unix_ms: i64, utc_offset_minutes: i32) -> Self {
        let local = unix_ms
            .saturating_add(i64::from(utc_offset_minutes) * MINUTE_MS)
            .clamp(*RANGE_MS.start(), *RANGE_MS.end());
        let days = local.div_euclid(DAY_MS);
        let in_day = local.rem_euclid(DAY_MS);
        let (year, month, day) = civil_from_days(days);
        Self {
            year,
            month,
            day,
            hour: (in_day / (60 * MINUTE_MS)) as u8,
            minute: (in_day / MINUTE_MS % 60) as u8,
            second: (in_day / 1000 % 60) as u8,
            millisecond: (in_day % 1000) as u16,
            days,
            seconds: local.div_euclid(1000),
        }
    }

    /// Milliseconds since 1970 began by this clock.
    pub(crate) fn millis(&self) -> i64 {
        self.seconds * 1000 + i64::from(self.millisecond)
    }

    /// Sunday is 0.
    fn weekday(&self) -> i64 {
        (self.days + 4).rem_euclid(7)
    }

    /// January 1st is 0.
    fn day_of_year(&self) -> i64 {
        self.days - days_from_civil(self.year, 1, 1)
    }

    /// The ISO 8601 year and week.
    fn iso_week(&self) -> (i64, i64) {
        let thursday = self.days - (self.weekday() + 6).rem_euclid(7) + 3;
        let (year, ..) = civil_from_days(thursday);
        (year, (thursday - days_from_civil(year, 1, 1)) / 7 + 1)
    }

    /// The time printed by `format` as Python does on Linux in the C locale,
    /// glibc's flags (`%-d`) and widths included. An unknown directive is
    /// printed as it stands.
    pub fn strftime(&self, format: &str) -> String {
        let mut out = String::with_capacity(format.len() + 16);
        let mut rest = format;
        while let Some(at) = rest.find('%') {
            out.push_str(&rest[..at]);
            rest = &rest[at..];
            let taken = self.directive(&mut out, rest);
            rest = &rest[taken..];
        }
        out.push_str(rest);
        out
    }

    /// Prints the directive that `text` starts with; gives its length.
    fn directive(&self, out: &mut String, text: &str) -> usize {
        let mut style = Style::default();
        let mut at = 1;
        let bytes = text.as_bytes();
        while let Some(&flag) = bytes.get(at) {
            match flag {
                b'-' | b'_' | b'0' => style.pad = Some(flag),
                b'^' => style.upper = true,
                b'#' => style.swap = true,
                _ => break,
            }
            at += 1;
        }
        while let Some(digit @ b'0'..=b'9') = bytes.get(at) {
            style.width = (style.width * 10 + usize::from(digit - b'0')).min(256);
            at += 1;
        }
        let Some(code) = text[at..].chars().next() else {
            out.push_str(text);
            return text.len();
        };
        let end = at + code.len_utf8();
        if !self.field(out, code, &style) {
            out.push_str(&text[..end]);
        }
        end
    }

    fn field(&self, out: &mut String, code: char, style: &Style) -> bool {
        let twelve = match self.hour % 12 {
            0 => 12,
            hour => i64::from(hour),
        };
        let weekday = self.weekday();
        let name = DAYS[weekday as usize];
        let month = MONTHS[usize::from(self.month - 1)];
        let yday = self.day_of_year();
        let (iso_year, iso_week) = self.iso_week();
        let am_pm = if self.hour < 12 { "AM" } else { "PM" };
        match code {
            'a' => style.text(out, &name[..3]),
            'A' => style.text(out, name),
            'b' | 'h' => style.text(out, &month[..3]),
            'B' => style.text(out, month),
            'c' => style.text(out, &self.strftime("%a %b %e %H:%M:%S %Y")),
            'C' => style.number(out, self.year / 100, b'0', 2),
            'd' => style.number(out, self.day.into(), b'0', 2),
            'D' | 'x' => style.text(out, &self.strftime("%m/%d/%y")),
            'e' => style.number(out, self.day.into(), b'_', 2),
            'f' => out.push_str(&format!("{:06}", u32::from(self.millisecond) * 1000)),
            'F' => style.text(out, &self.strftime("%Y-%m-%d")),
            'g' => style.number(out, iso_year % 100, b'0', 2),
            'G' => style.number(out, iso_year, b'0', 1),
            'H' => style.number(out, self.hour.into(), b'0', 2),
            'I' => style.number(out, twelve, b'0', 2),
            'j' => style.number(out, yday + 1, b'0', 3),
            'k' => style.number(out, self.hour.into(), b'_', 2),
            'l' => style.number(out, twelve, b'_', 2),
            'm' => style.number(out, self.month.into(), b'0', 2),
            'M' => style.number(out, self.minute.into(), b'0', 2),
            'n' => style.text(out, "\n"),
            'p' if style.swap => out.push_str(&am_pm.to_lowercase()),
            'p' => style.text(out, am_pm),
            'P' => style.text(out, &am_pm.to_lowercase()),
            'r' => style.text(out, &self.strftime("%I:%M:%S %p")),
            'R' => style.text(out, &self.strftime("%H:%M")),
            's' => style.number(out, self.seconds, b'0', 1),
            'S' => style.number(out, self.second.into(), b'0', 2),
            't' => style.text(out, "\t"),
            'T' | 'X' => style.text(out, &self.strftime("%H:%M:%S")),
            'u' => style.number(out, if weekday == 0 { 7 } else { weekday }, b'0', 1),
            'U' => style.number(out, (yday + 7 - weekday) / 7, b'0', 2),
            'V' => style.number(out, iso_week, b'0', 2),
            'w' => style.number(out, weekday, b'0', 1),
            'W' => style.number(out, (yday + 7 - (weekday + 6) % 7) / 7, b'0', 2),
            'y' => style.number(out, self.year % 100, b'0', 2),
            'Y' => style.number(out, self.year, b'0', 1),
            // A time without a zone prints nothing for it.
            'z' | 'Z' => {}
            '%' => style.text(out, "%"),
            _ => return false,
        }
        true
    }
}

/// The flags and width of one directive.
#[derive(Default)]
struct Style {
    pad: Option<u8>,
    upper: bool,
    swap: bool,
    width: usize,
}

impl Style {
    fn text(&self, out: &mut String, text: &str) {
        if self.pad != Some(b'-') {
            let fill = if self.pad == Some(b'0') { '0' } else { ' ' };
            out.extend(std::iter::repeat_n(
                fill,
                self.width.saturating_sub(text.len()),
            ));
        }
        let upper = self.upper || (self.swap && text.chars().any(char::is_lowercase));
        out.push_str(&if upper {
            text.to_uppercase()
        } else {
            text.into()
        });
    }

    fn number(&self, out: &mut String, value: i64, pad: u8, digits: usize) {
        let width = digits.max(self.width);
        // Writing to a String cannot fail.
        let _ = match self.pad.unwrap_or(pad) {
            b'-' => write!(out, "{value}"),
            b'_' => write!(out, "{value:>width$}"),
            _ => write!(out, "{value:0width$}"),
        };
    }
}

/// The proleptic Gregorian date of a day, counted from 1970-01-01 (Howard
/// Hinnant's algorithm: years start in March, in eras of 400 years).
fn civil_from_days(days: i64) -> (i64, u8, u8) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month as u8, day as u8)
}

/// The inverse of [`civil_from_days`].
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strftime_prints_what_python_prints() {
        // 2024-02-05 03:07:09.045
        let now = Now::from_unix_millis(1_707_102_429_045, 0);
        for (format, want) in [
            ("%d %b %Y", "05 Feb 2024"),
            ("%-d %B %y", "5 February 24"),
            (
                "%A %a %w %u %j %U %W %V %G",
                "Monday Mon 1 1 036 05 06 06 2024",
            ),
            ("%H:%M:%S.%f %I %p %-I %P", "03:07:09.045000 03 AM 3 am"),
            (
                "%c|%x|%X|%D|%F|%T|%R|%r",
                "Mon Feb  5 03:07:09 2024|02/05/24|03:07:09|02/05/24|2024-02-05|03:07:09|03:07|03:07:09 AM",
            ),
            ("%e|%_d|%3d|%^a|%#p|%-H|%k|%l", " 5| 5|005|MON|am|3| 3| 3"),
            ("%%|%n|%t|%z|%Z|%q|é%", "%|\n|\t|||%q|é%"),
        ] {
            assert_eq!(now.strftime(format), want, "{format}");
        }
    }

    #[test]
    fn civil_dates_count_forth_and_back() {
        for (ms, offset, want) in [
            (0, 0, "1970-01-01 00:00"),
            (-1, 0, "1969-12-31 23:59"),
            (951_782_400_000, 0, "2000-02-29 00:00"),
            (1_735_689_599_000, 60, "2025-01-01 00:59"),
            (i64::MIN, 0, "1-01-01 00:00"),
            (i64::MAX, 0, "9999-12-31 23:59"),
        ] {
            let now = Now::from_unix_millis(ms, offset);
            assert_eq!(now.strftime("%Y-%m-%d %H:%M"), want);
        }
        for days in (-800_000..2_900_000).step_by(97) {
            let (year, month, day) = civil_from_days(days);
            assert_eq!(days_from_civil(year, month.into(), day.into()), days);
        }
    }
}
