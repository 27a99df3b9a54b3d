//! `strftime_now` for templates that print today's date: the English, UTC subset of C's strftime.
//! Does not know what time it is.

use minijinja::{Error, ErrorKind};

const MONTHS: [&str; 12] =
    ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const DAY_S: i64 = 86_400;
/// Longest format, bytes: each byte may become nine.
const MAX_FORMAT_BYTES: usize = 1024;
/// Years 0001 to 9999, as Python's datetime; seconds since 1970.
const MIN_S: i64 = -62_135_596_800;
const MAX_S: i64 = 253_402_300_799;

/// Formats the moment `unix_s` (seconds since 1970, UTC; clamped to years 1 to 9999).
pub(super) fn strftime(format: &str, unix_s: i64) -> Result<String, Error> {
    if format.len() > MAX_FORMAT_BYTES {
        return Err(Error::new(ErrorKind::InvalidOperation, "strftime_now: the format is too long"));
    }
    let unix_s = unix_s.clamp(MIN_S, MAX_S);
    let (days, second) = (unix_s.div_euclid(DAY_S), unix_s.rem_euclid(DAY_S));
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let weekday = (days + 4).rem_euclid(7) as usize;
    let month_name = MONTHS[month as usize - 1];
    let hour12 = (hour + 11) % 12 + 1;
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut code = chars.next();
        // glibc's "-" leaves the leading zero out.
        let bare = code == Some('-');
        if bare {
            code = chars.next();
        }
        let number = |value: i64, width: usize| if bare { value.to_string() } else { format!("{value:0width$}") };
        let piece = match code {
            Some('Y') => year.to_string(),
            Some('y') => number(year % 100, 2),
            Some('m') => number(month, 2),
            Some('d') => number(day, 2),
            Some('e') => format!("{day:2}"),
            Some('j') => number(days - days_from_civil(year, 1, 1) + 1, 3),
            Some('B') => month_name.to_owned(),
            Some('b' | 'h') => month_name[..3].to_owned(),
            Some('A') => DAYS[weekday].to_owned(),
            Some('a') => DAYS[weekday][..3].to_owned(),
            Some('w') => weekday.to_string(),
            Some('H') => number(hour, 2),
            Some('I') => number(hour12, 2),
            Some('M') => number(minute, 2),
            Some('S') => number(second, 2),
            Some('p') => if hour < 12 { "AM" } else { "PM" }.to_owned(),
            Some('F') => format!("{year}-{month:02}-{day:02}"),
            Some('T') => format!("{hour:02}:{minute:02}:{second:02}"),
            Some('s') => unix_s.to_string(),
            Some('%') => "%".to_owned(),
            other => {
                let code = other.map_or("at the end".to_owned(), |c| format!("%{c}"));
                return Err(Error::new(ErrorKind::InvalidOperation, format!("strftime_now: {code} is not supported")));
            }
        };
        out.push_str(&piece);
    }
    Ok(out)
}

/// Year, month and day of a day number since 1970-01-01, in the Gregorian calendar. Years are counted from March, so
/// that the leap day is the last one.
fn civil(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

/// The inverse of [`civil`].
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let march_month = (month + 9) % 12;
    let year_of_era = year.rem_euclid(400);
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + (153 * march_month + 2) / 5 + day - 1;
    year.div_euclid(400) * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::strftime;

    #[test]
    fn formats_as_in_python() {
        let cases = [
            (0, "%d %b %Y", "01 Jan 1970"),
            (951_782_400, "%A, %-d %B %Y %j", "Tuesday, 29 February 2000 060"),
            (1_704_067_199, "%Y-%m-%d %H:%M:%S %I%p %y %a %w", "2023-12-31 23:59:59 11PM 23 Sun 0"),
            (1_735_689_600, "%F %T %e|%-m|100%%", "2025-01-01 00:00:00  1|1|100%"),
            (-1, "%d %b %Y", "31 Dec 1969"),
        ];
        for (unix_s, format, expected) in cases {
            assert_eq!(strftime(format, unix_s).unwrap(), expected);
        }
        assert!(strftime("%Q", 0).unwrap_err().to_string().contains("%Q"));
        assert!(strftime("%", 0).is_err());
        assert!(strftime("%d", i64::MAX).is_ok());
    }
}
