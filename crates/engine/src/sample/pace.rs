//! What a step of one base costs by its number of rows, learnt from the clock, and how many drafted rows pay.
//! The clock decides only whether rows are drafted; results are the same with any number (the exactness rule).

/// Most rows of a step with drafts. A step so large is bound by arithmetic on every machine: a row more costs a row's share.
pub const MOST_ROWS: usize = 64;

/// Weight of the newest measurement of a number of rows.
const NEWEST: f64 = 0.125;

/// Steps for which a measurement counts. A number of rows that did not pay is measured again so seldom that the attempt costs nothing.
const FRESH_STEPS: u64 = 1024;

/// What a row more is thought to cost until it is measured, as a share of the step and of a row's even part of it: little, so that it is
/// tried.
const UNKNOWN_ROW: f64 = 0.05;
const UNKNOWN_PART: f64 = 0.5;

/// Gain in tokens a second below which no rows are drafted: less is noise of the clock.
const LEAST_GAIN: f64 = 1.03;

#[derive(Debug, Clone, Copy)]
struct Measured {
    seconds: f64,
    /// Step of the last measurement.
    at: u64,
}

/// Seconds of a step by its rows.
#[derive(Debug, Clone)]
pub struct Pace {
    /// `rows[n]`: steps of n rows that all give logits.
    rows: [Option<Measured>; MOST_ROWS + 1],
    steps: u64,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace { rows: [None; MOST_ROWS + 1], steps: 0 }
    }
}

impl Pace {
    /// A step of `rows` rows, all with logits, took so long.
    pub fn note(&mut self, rows: usize, seconds: f64) {
        self.steps += 1;
        let Some(slot) = self.rows.get_mut(rows) else { return };
        let fresh = slot.filter(|m| self.steps - m.at <= FRESH_STEPS);
        let seconds = fresh.map_or(seconds, |m| m.seconds + NEWEST * (seconds - m.seconds));
        *slot = Some(Measured { seconds, at: self.steps });
    }

    /// How many drafted rows to add to a step of `rows` rows that gives a token each. `odds`: the chance of each drafted row to give one
    /// more, falling. It is the number with the most tokens a second; 0 while the bare step was not measured.
    pub fn worth(&self, rows: usize, odds: impl Iterator<Item = f32> + Clone) -> usize {
        let certain = rows as f64;
        let free: f64 = odds.clone().map(f64::from).sum();
        if certain + free < LEAST_GAIN * certain {
            return 0;
        }
        let Some(bare) = self.fresh(rows) else { return 0 };
        let (mut below, mut above) = ((rows, bare), self.next(rows));
        let mut slope = UNKNOWN_ROW.min(UNKNOWN_PART / certain) * bare;
        let (mut best, mut best_rate, mut tokens) = (0, LEAST_GAIN * certain / bare, certain);
        for (i, odds) in odds.enumerate() {
            let count = rows + i + 1;
            if count > MOST_ROWS {
                break;
            }
            if let Some(reached) = above.filter(|(n, _)| *n == count) {
                slope = slope.max((reached.1 - below.1) / (reached.0 - below.0) as f64);
                (below, above) = (reached, self.next(count));
            }
            // Between two measurements a straight line; beyond the last one as steep as it ever was.
            let slope = above.map_or(slope, |above| (above.1 - below.1) / (above.0 - below.0) as f64);
            let seconds = below.1 + slope * (count - below.0) as f64;
            tokens += f64::from(odds);
            if tokens > best_rate * seconds {
                (best, best_rate) = (i + 1, tokens / seconds);
            }
        }
        best
    }

    /// What is known of this number of rows and not too old.
    fn fresh(&self, rows: usize) -> Option<f64> {
        self.rows.get(rows).copied().flatten().filter(|m| self.steps - m.at <= FRESH_STEPS).map(|m| m.seconds)
    }

    /// The next larger number of rows that is measured.
    fn next(&self, rows: usize) -> Option<(usize, f64)> {
        (rows + 1..=MOST_ROWS).find_map(|n| self.fresh(n).map(|seconds| (n, seconds)))
    }
}
