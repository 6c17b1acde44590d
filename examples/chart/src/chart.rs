//! An SVG line chart of processor and memory use.

use std::fmt::Write;

use serde::Deserialize;

/// What `POST /chart` is given; more fields are ignored.
#[derive(Deserialize)]
pub struct Samples {
    samples: Vec<Sample>,
}

#[derive(Deserialize)]
struct Sample {
    cpu_percent: Option<f64>,
    memory_used: Option<f64>,
    memory_total: Option<f64>,
}

impl Sample {
    fn memory_percent(&self) -> Option<f64> {
        let total = self.memory_total.filter(|total| *total > 0.0)?;
        Some(self.memory_used? * 100.0 / total)
    }
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 56.0;
const BOTTOM: f64 = 40.0;
/// More points than the chart has pixels only make it larger.
const POINTS_MAX: usize = 600;

/// Label, color and value of one line.
type Series = (&'static str, &'static str, fn(&Sample) -> Option<f64>);

const SERIES: [Series; 2] =
    [("CPU", "#2563eb", |s| s.cpu_percent), ("Memory", "#d97706", Sample::memory_percent)];

fn x(index: usize, count: usize) -> f64 {
    LEFT + (WIDTH - LEFT - RIGHT) * index as f64 / (count.max(2) - 1) as f64
}

fn y(percent: f64) -> f64 {
    TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - percent.clamp(0.0, 100.0) / 100.0)
}

/// Draws the samples from left to right, 0 to 100 percent.
pub fn draw(samples: &Samples) -> String {
    let step = samples.samples.len().div_ceil(POINTS_MAX).max(1);
    let shown: Vec<&Sample> = samples.samples.iter().step_by(step).collect();
    let mut svg = String::with_capacity(16 << 10);
    // Writing to a String cannot fail.
    let _ = write!(
        svg,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" font-family="system-ui, sans-serif" font-size="12"><title>CPU and memory in percent</title><rect width="100%" height="100%" rx="8" fill="#ffffff"/><text x="{LEFT}" y="26" font-size="15" font-weight="600" fill="#111827">Node load</text>"##
    );
    axes(&mut svg, samples.samples.len());
    for (place, (label, color, value)) in SERIES.into_iter().enumerate() {
        let values: Vec<Option<f64>> = shown.iter().map(|s| value(s).filter(|v| v.is_finite())).collect();
        line(&mut svg, &values, color);
        legend(&mut svg, place, label, color, values.iter().rev().flatten().next().copied());
    }
    if shown.is_empty() {
        let _ = write!(
            svg,
            r##"<text x="{}" y="{}" text-anchor="middle" fill="#6b7280">no samples</text>"##,
            (LEFT + WIDTH - RIGHT) / 2.0,
            y(50.0)
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn axes(svg: &mut String, count: usize) {
    for percent in [0, 25, 50, 75, 100] {
        let y = y(f64::from(percent));
        let color = if percent == 0 { "#9ca3af" } else { "#e5e7eb" };
        let _ = write!(
            svg,
            r##"<line x1="{LEFT}" y1="{y}" x2="{}" y2="{y}" stroke="{color}"/><text x="{}" y="{}" text-anchor="end" fill="#6b7280">{percent} %</text>"##,
            WIDTH - RIGHT,
            LEFT - 8.0,
            y + 4.0
        );
    }
    let (left, right, base) = (LEFT, WIDTH - RIGHT, HEIGHT - BOTTOM);
    let _ = write!(
        svg,
        r##"<line x1="{left}" y1="{TOP}" x2="{left}" y2="{base}" stroke="#9ca3af"/><text x="{left}" y="{0}" fill="#6b7280">oldest</text><text x="{1}" y="{0}" text-anchor="middle" fill="#6b7280">{count} samples</text><text x="{right}" y="{0}" text-anchor="end" fill="#6b7280">newest</text>"##,
        base + 20.0,
        (left + right) / 2.0
    );
}

/// One line; where a sample lacks the value, the line has a gap.
fn line(svg: &mut String, values: &[Option<f64>], color: &str) {
    let runs = values.chunk_by(|a, b| a.is_some() == b.is_some());
    let mut index = 0;
    for run in runs {
        let points: Vec<(f64, f64)> = run
            .iter()
            .enumerate()
            .filter_map(|(i, v)| Some((x(index + i, values.len()), y((*v)?))))
            .collect();
        index += run.len();
        match points.as_slice() {
            [] => {}
            [(x, y)] => {
                let _ = write!(svg, r#"<circle cx="{x:.1}" cy="{y:.1}" r="3" fill="{color}"/>"#);
            }
            [(first, _), .., (last, _)] => {
                let path: String = points.iter().map(|(x, y)| format!(" {x:.1},{y:.1}")).collect();
                let path = path.trim_start();
                let base = HEIGHT - BOTTOM;
                let _ = write!(
                    svg,
                    r#"<polygon points="{first:.1},{base:.1} {path} {last:.1},{base:.1}" fill="{color}" fill-opacity="0.08"/><polyline points="{path}" fill="none" stroke="{color}" stroke-width="2" stroke-linejoin="round" stroke-linecap="round"/>"#
                );
            }
        }
    }
}

fn legend(svg: &mut String, place: usize, label: &str, color: &str, latest: Option<f64>) {
    let x = WIDTH - RIGHT - 270.0 + 140.0 * place as f64;
    let latest = latest.map_or("no data".to_owned(), |v| format!("{v:.1} %"));
    let _ = write!(
        svg,
        r##"<line x1="{x}" y1="22" x2="{}" y2="22" stroke="{color}" stroke-width="3" stroke-linecap="round"/><text x="{}" y="26" fill="#374151">{label} {latest}</text>"##,
        x + 18.0,
        x + 26.0
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw_text(text: &str) -> String {
        draw(&serde_json::from_str(text).expect("valid samples"))
    }

    #[test]
    fn both_lines_have_axes_labels_and_a_legend() {
        let svg = draw_text(
            r#"{"samples":[{"cpu_percent":0,"memory_used":1,"memory_total":4},{"cpu_percent":100,"memory_used":2,"memory_total":4}]}"#,
        );
        assert_eq!(svg.matches("<polyline").count(), 2);
        for text in ["0 %", "100 %", "2 samples", "CPU 100.0 %", "Memory 50.0 %"] {
            assert!(svg.contains(text), "{text} is missing in {svg}");
        }
        assert!(svg.contains(r#"<polyline points="52.0,280.0 700.0,56.0""#), "{svg}");
    }

    #[test]
    fn gaps_single_points_and_nothing_are_drawn() {
        let gap = draw_text(r#"{"samples":[{"cpu_percent":1},{"cpu_percent":2},{},{"cpu_percent":3}]}"#);
        assert_eq!((gap.matches("<polyline").count(), gap.matches("<circle").count()), (1, 1));
        assert!(gap.contains("Memory no data"));
        assert!(draw_text(r#"{"samples":[]}"#).contains("no samples"));
    }

    #[test]
    fn many_samples_are_thinned() {
        let samples = vec![r#"{"cpu_percent":5}"#; 50_000].join(",");
        let svg = draw_text(&format!(r#"{{"samples":[{samples}]}}"#));
        assert!(svg.len() < 20 << 10, "{}", svg.len());
        assert!(svg.contains("50000 samples"));
    }
}
