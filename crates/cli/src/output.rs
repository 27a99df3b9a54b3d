//! Results on standard output: one JSON value, or text for people. Bars on standard error, only on a terminal.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::failure::Failure;

/// Prints a value as JSON on one line.
pub fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(value).map_err(|e| Failure::because("cannot write JSON", e))?;
    println!("{text}");
    Ok(())
}

/// A bar of `len` steps with the given template; silent where standard error is no terminal.
pub fn bar(len: u64, template: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(len), ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// A line on standard error: above the bar, or alone where there is none.
pub fn say(bar: &ProgressBar, text: impl AsRef<str>) {
    if bar.is_hidden() { eprintln!("{}", text.as_ref()) } else { bar.println(text) }
}

/// Notes that come with many answers of a run: each kind is said the first time only. A kind is what stands before the colon.
#[derive(Debug, Default)]
pub struct Notes {
    said: RefCell<BTreeSet<String>>,
}

impl Notes {
    /// Says what is new; `when` says where in the run.
    pub fn say<'a>(&self, bar: &ProgressBar, when: &str, notes: impl IntoIterator<Item = &'a String>) {
        for note in notes {
            let kind = note.split(':').next().unwrap_or_default();
            if self.said.borrow_mut().insert(kind.to_owned()) {
                say(bar, format!("{when}: {note}"));
            }
        }
    }
}

/// Bytes for people.
pub fn bytes(count: u64) -> String {
    indicatif::HumanBytes(count).to_string()
}

/// Unix seconds as a date and time in UTC.
pub fn time(unix_s: f64) -> String {
    let total = unix_s as i64;
    let (days, seconds) = (total.div_euclid(86_400), total.rem_euclid(86_400));
    // Civil date from days (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let (day, month) = (day_of_year - (153 * shifted + 2) / 5 + 1, if shifted < 10 { shifted + 3 } else { shifted - 9 });
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}", seconds / 3600, seconds / 60 % 60)
}

#[cfg(test)]
mod tests {
    #[test]
    fn times_are_civil() {
        assert_eq!(super::time(0.0), "1970-01-01 00:00");
        assert_eq!(super::time(951_782_399.0), "2000-02-28 23:59");
        assert_eq!(super::time(1_709_164_800.0), "2024-02-29 00:00");
    }
}
