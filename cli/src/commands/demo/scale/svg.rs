//! The picture: what waits, who serves and who is there, over time.

use std::fmt::Write;

use super::watch::{Event, Sample};

const WIDTH: f64 = 960.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 24.0;
/// Top and bottom of what waits, and of what is counted.
const WAITS: (f64, f64) = (96.0, 300.0);
const COUNTS: (f64, f64) = (384.0, 524.0);
const HEIGHT: f64 = 624.0;
/// More points than the picture has pixels only make it larger.
const POINTS_MAX: usize = 900;

const BACKLOG: &str = "#b45309";
const REPLICAS: &str = "#1d4ed8";
const NODES: &str = "#047857";

/// What is marked by a line, with its letter.
const MARKS: [(Event, &str); 7] = [
    (Event::Mark, "A"),
    (Event::Claim, "B"),
    (Event::Won, "C"),
    (Event::Serving, "D"),
    (Event::LoadEnded, "E"),
    (Event::Going, "F"),
    (Event::Destroyed, "G"),
];

struct Scale {
    from: f64,
    to: f64,
}

impl Scale {
    fn x(&self, at: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * ((at - self.from) / (self.to - self.from).max(0.1)).clamp(0.0, 1.0)
    }
}

fn y((top, bottom): (f64, f64), value: f64, most: f64) -> f64 {
    bottom - (bottom - top) * (value / most.max(1.0)).clamp(0.0, 1.0)
}

/// Draws the samples; `zero` is the moment that the time axis counts from, `mark` how many may wait for each replica.
pub(super) fn draw(samples: &[Sample], events: &[(Event, f64)], zero: f64, mark: u64) -> String {
    let step = samples.len().div_ceil(POINTS_MAX).max(1);
    let shown: Vec<Sample> = samples.iter().step_by(step).copied().collect();
    let scale = Scale {
        from: samples.first().map_or(0.0, |sample| sample.at),
        to: samples.last().map_or(1.0, |sample| sample.at),
    };
    let most_waits = samples.iter().map(|s| s.backlog.max(mark * s.replicas)).max().unwrap_or(1);
    let most_waits = (most_waits.div_ceil(5) * 5).max(5) as f64;
    let most_counted = (samples.iter().map(|s| s.nodes.max(s.replicas)).max().unwrap_or(1) + 1) as f64;
    let mut svg = String::with_capacity(64 << 10);
    // Writing to a String cannot fail.
    let _ = write!(
        svg,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" font-family="DejaVu Sans, system-ui, sans-serif" font-size="13" fill="#1f2937"><title>A load makes a machine, and its end takes it away</title><rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/><text x="{LEFT}" y="30" font-size="17" font-weight="600">From a load to a machine and back</text>"##
    );
    axis(&mut svg, WAITS, most_waits, most_waits / 5.0, "calls that wait");
    axis(&mut svg, COUNTS, most_counted, 1.0, "count");
    times(&mut svg, &scale, zero);
    for (event, letter) in MARKS {
        let Some((_, at)) = events.iter().find(|(seen, _)| *seen == event) else { continue };
        let x = scale.x(*at);
        let _ = write!(
            svg,
            r##"<line x1="{x:.1}" y1="{}" x2="{x:.1}" y2="{}" stroke="#9ca3af" stroke-dasharray="3 3"/>"##,
            WAITS.0, COUNTS.1
        );
        letter_at(&mut svg, x, letter);
    }
    line(&mut svg, &shown, &scale, "#6b7280", true, |s| y(WAITS, (mark * s.replicas) as f64, most_waits));
    line(&mut svg, &shown, &scale, BACKLOG, false, |s| y(WAITS, s.backlog as f64, most_waits));
    line(&mut svg, &shown, &scale, NODES, false, |s| y(COUNTS, s.nodes as f64, most_counted));
    line(&mut svg, &shown, &scale, REPLICAS, false, |s| y(COUNTS, s.replicas as f64, most_counted));
    let legend = [
        (0.0, BACKLOG, "", "calls that wait"),
        (150.0, "#6b7280", "6 4", "mark: 4 for each replica"),
        (360.0, NODES, "", "nodes connected"),
        (520.0, REPLICAS, "", "replicas that serve"),
    ];
    for (x, color, dashes, label) in legend {
        let x = LEFT + x;
        let _ = write!(
            svg,
            r##"<line x1="{x}" y1="52" x2="{}" y2="52" stroke="{color}" stroke-width="3" stroke-dasharray="{dashes}"/><text x="{}" y="56">{label}</text>"##,
            x + 24.0,
            x + 30.0
        );
    }
    let named = MARKS.iter().filter(|(event, _)| events.iter().any(|(seen, _)| seen == event));
    let named: Vec<_> = named.map(|(event, letter)| format!("{letter} {}", event.says())).collect();
    for (row, part) in named.chunks(4).enumerate() {
        let y = HEIGHT - 32.0 + 20.0 * row as f64;
        let _ = write!(svg, r##"<text x="{LEFT}" y="{y}" font-size="12">{}</text>"##, part.join(" · "));
    }
    svg.push_str("</svg>\n");
    svg
}

/// A letter above its line; where two would cover each other, the second stands lower.
fn letter_at(svg: &mut String, x: f64, letter: &str) {
    let y = if matches!(letter, "A" | "C" | "E" | "G") { WAITS.0 - 4.0 } else { WAITS.1 + 18.0 };
    let _ =
        write!(svg, r##"<text x="{x:.1}" y="{y}" text-anchor="middle" font-weight="600">{letter}</text>"##);
}

fn axis(svg: &mut String, place: (f64, f64), most: f64, step: f64, label: &str) {
    let mut value = 0.0;
    while value <= most + 1e-9 {
        let y = y(place, value, most);
        let color = if value == 0.0 { "#6b7280" } else { "#e5e7eb" };
        let _ = write!(
            svg,
            r##"<line x1="{LEFT}" y1="{y:.1}" x2="{}" y2="{y:.1}" stroke="{color}"/><text x="{}" y="{:.1}" text-anchor="end">{value:.0}</text>"##,
            WIDTH - RIGHT,
            LEFT - 8.0,
            y + 4.0
        );
        value += step;
    }
    let middle = f64::midpoint(place.0, place.1);
    let _ = write!(
        svg,
        r##"<line x1="{LEFT}" y1="{}" x2="{LEFT}" y2="{}" stroke="#6b7280"/><text x="18" y="{middle}" text-anchor="middle" transform="rotate(-90 18 {middle})">{label}</text>"##,
        place.0, place.1
    );
}

/// The axis of time, in seconds from `zero`.
fn times(svg: &mut String, scale: &Scale, zero: f64) {
    let span = scale.to - scale.from;
    let step =
        [5.0, 10.0, 20.0, 30.0, 60.0, 120.0].into_iter().find(|step| span / step <= 14.0).unwrap_or(300.0);
    // Without the sum, the first may be shown as -0.
    let mut at = ((scale.from - zero) / step).ceil() * step + 0.0;
    while at + zero <= scale.to {
        let x = scale.x(at + zero);
        let base = COUNTS.1;
        let _ = write!(
            svg,
            r##"<line x1="{x:.1}" y1="{base}" x2="{x:.1}" y2="{}" stroke="#6b7280"/><text x="{x:.1}" y="{}" text-anchor="middle">{at:.0}</text>"##,
            base + 5.0,
            base + 20.0
        );
        at += step;
    }
    let _ = write!(
        svg,
        r##"<text x="{}" y="{}" text-anchor="middle">seconds since more waited than the mark</text>"##,
        f64::midpoint(LEFT, WIDTH - RIGHT),
        COUNTS.1 + 40.0
    );
}

/// Steps, since what is counted does not change between two looks.
fn line(
    svg: &mut String,
    samples: &[Sample],
    scale: &Scale,
    color: &str,
    dashed: bool,
    y: impl Fn(&Sample) -> f64,
) {
    let mut points = String::new();
    let mut last = None;
    for sample in samples {
        let (x, y) = (scale.x(sample.at), y(sample));
        if let Some(last) = last.replace(y) {
            let _ = write!(points, "{x:.1},{last:.1} ");
        }
        let _ = write!(points, "{x:.1},{y:.1} ");
    }
    let dashes = if dashed { r#" stroke-dasharray="6 4""# } else { "" };
    let _ = write!(
        svg,
        r#"<polyline points="{}" fill="none" stroke="{color}" stroke-width="2"{dashes}/>"#,
        points.trim_end()
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_drawn_and_named_and_stays_inside() {
        let sample = |at: f64, backlog, nodes| Sample { at, backlog, replicas: 3, nodes, machines: 0 };
        let samples = [sample(0.0, 0, 3), sample(10.0, 40, 3), sample(20.0, 2, 4)];
        let svg = draw(&samples, &[(Event::Mark, 5.0), (Event::Serving, 15.0)], 5.0, 4);
        assert_eq!(svg.matches("<polyline").count(), 4);
        for text in ["calls that wait", "nodes connected", "seconds since", "A more wait", "D it serves"] {
            assert!(svg.contains(text), "{text}");
        }
        let ends = svg.split("points=\"").skip(1).flat_map(|rest| rest.split('"').next());
        for point in ends.flat_map(|points| points.split(' ')) {
            let (x, y) = point.split_once(',').expect("a point");
            let (x, y): (f64, f64) = (x.parse().expect("x"), y.parse().expect("y"));
            assert!((LEFT..=WIDTH - RIGHT).contains(&x) && (WAITS.0..=COUNTS.1).contains(&y), "{point}");
        }
    }
}
