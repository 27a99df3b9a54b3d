//! Rewards as pictures of characters: a line of blocks while a run goes on, a chart with axes at its end. Plain text, no colours.

const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const ROWS: usize = 10;
const COLUMNS: usize = 60;

/// The last `width` values, from the least of them to the greatest.
pub fn sparkline(values: &[f64], width: usize) -> String {
    let shown = &values[values.len().saturating_sub(width)..];
    let (low, high) = range(shown.iter().copied());
    let block = |value: &f64| if high > low { BLOCKS[level(*value, (low, high), BLOCKS.len())] } else { BLOCKS[3] };
    shown.iter().map(block).collect()
}

/// Training rewards (`·`, means where there are more steps than columns) and rewards of held-out prompts (`o`) over steps.
pub fn chart(training: &[(u32, f64)], held_out: &[(u32, f64)]) -> String {
    let steps = || training.iter().chain(held_out);
    let (first, last) = steps().fold((u32::MAX, 0), |(low, high), (step, _)| (low.min(*step), high.max(*step)));
    if first > last {
        return String::new();
    }
    let scale = scale(range(steps().map(|(_, reward)| *reward)));
    let column = |step: u32| level(f64::from(step), (f64::from(first), f64::from(last)), COLUMNS);
    let mut cells = vec![[' '; COLUMNS]; ROWS];
    let mut at = 0;
    while at < training.len() {
        let same = training[at..].iter().take_while(|(step, _)| column(*step) == column(training[at].0)).count();
        let mean = training[at..at + same].iter().map(|(_, reward)| reward).sum::<f64>() / same as f64;
        cells[level(mean, scale, ROWS)][column(training[at].0)] = '·';
        at += same;
    }
    for (step, reward) in held_out {
        cells[level(*reward, scale, ROWS)][column(*step)] = 'o';
    }
    let mut text = String::new();
    for (row, cells) in cells.iter().enumerate().rev() {
        let value = scale.0 + (scale.1 - scale.0) * row as f64 / (ROWS - 1) as f64;
        let label = if row == 0 || row == ROWS - 1 || row == ROWS / 2 { format!("{value:>9.3}") } else { " ".repeat(9) };
        let line: String = cells.iter().collect();
        text.push_str(format!("{label} │{}", line.trim_end()).trim_end());
        text.push('\n');
    }
    let legend = if held_out.is_empty() { "" } else { ", o on held-out prompts" };
    let gap = COLUMNS.saturating_sub(first.to_string().len() + last.to_string().len());
    text.push_str(&format!("{:>9} └{}\n{:>9}  {first}{}{last}\n", "", "─".repeat(COLUMNS), "", " ".repeat(gap)));
    text.push_str(&format!("{:>9}  step; · mean reward of its answers{legend}\n", ""));
    text
}

fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
}

/// A range with some height.
fn scale((low, high): (f64, f64)) -> (f64, f64) {
    if high > low { (low, high) } else { (low - 0.5, high + 0.5) }
}

/// Which of `count` equal parts of the range a value is in.
fn level(value: f64, (low, high): (f64, f64), count: usize) -> usize {
    if high > low { (((value - low) / (high - low) * (count - 1) as f64).round() as usize).min(count - 1) } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_shows_the_last_values() {
        assert_eq!(sparkline(&[9.0, 0.0, 0.5, 1.0], 3), "▁▅█");
        assert_eq!(sparkline(&[2.0, 2.0], 60), "▄▄");
        assert_eq!(sparkline(&[], 60), "");
    }

    #[test]
    fn a_chart_has_its_points_where_they_belong() {
        let training: Vec<(u32, f64)> = (1..=120).map(|step| (step, f64::from(step) / 120.0)).collect();
        let chart = chart(&training, &[(0, 0.0), (120, 1.0)]);
        let lines: Vec<&str> = chart.lines().collect();
        assert_eq!(lines.len(), ROWS + 3);
        assert!(lines[0].starts_with("    1.000 │") && lines[0].ends_with("··o"), "{chart}");
        assert!(lines[ROWS - 1].starts_with("    0.000 │o··"), "{chart}");
        assert!(lines[ROWS + 1].trim_start().starts_with("0 ") && lines[ROWS + 1].ends_with(" 120"), "{chart}");
    }

    #[test]
    fn one_point_or_none_is_no_trouble() {
        assert!(chart(&[(1, 3.0)], &[]).contains('·'));
        assert_eq!(chart(&[], &[]), "");
    }
}
