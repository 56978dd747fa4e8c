//! Plots of what the applications measure.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context as _, Result, anyhow};
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;

const SIZE: (u32, u32) = (800, 440);

/// Colours that are told apart without red and green, too.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0x00, 0x5f, 0xa3),
    RGBColor(0xd9, 0x6b, 0x00),
    RGBColor(0x6a, 0x3d, 0x9a),
    RGBColor(0x55, 0x55, 0x55),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0xd8, 0xb4, 0x00),
];

/// The directory that the runner takes results from, or the current one.
pub fn results() -> PathBuf {
    env::var_os("XTASK_RESULTS").map_or_else(|| ".".into(), PathBuf::from)
}

/// How numbers are spread over an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// From 0 on.
    Linear,
    /// By powers of ten; for numbers above 0.
    Log,
}

/// What an axis shows.
#[derive(Debug, Clone, Copy)]
pub struct Axis<'a> {
    /// What the numbers are of, with their unit.
    pub name: &'a str,
    /// How they are spread.
    pub scale: Scale,
}

/// A line of a plot: its name, and its points.
pub type Line<'a> = (&'a str, Vec<(f64, f64)>);

/// Writes lines as an SVG.
///
/// # Errors
///
/// If there is no point, or the file cannot be written.
pub fn plot(path: &Path, title: &str, x: Axis<'_>, y: Axis<'_>, lines: &[Line<'_>]) -> Result<()> {
    let points = || lines.iter().flat_map(|(_, points)| points);
    let xs = span(x.scale, points().map(|point| point.0)).context("nothing to plot")?;
    let ys = span(y.scale, points().map(|point| point.1)).context("nothing to plot")?;
    let mut svg = String::new();
    // The axes are of four types.
    let drawn = match (x.scale, y.scale) {
        (Scale::Linear, Scale::Linear) => draw(&mut svg, title, (x, y), xs, ys, lines),
        (Scale::Log, Scale::Linear) => draw(&mut svg, title, (x, y), xs.log_scale(), ys, lines),
        (Scale::Linear, Scale::Log) => draw(&mut svg, title, (x, y), xs, ys.log_scale(), lines),
        (Scale::Log, Scale::Log) => {
            draw(&mut svg, title, (x, y), xs.log_scale(), ys.log_scale(), lines)
        }
    };
    drawn.map_err(|error| anyhow!("cannot plot {title}: {error}"))?;
    fs::write(path, svg).with_context(|| format!("cannot write {}", path.display()))
}

fn span(scale: Scale, numbers: impl Iterator<Item = f64>) -> Option<Range<f64>> {
    let (least, most) = numbers.fold(None, |span, number| {
        let (least, most): (f64, f64) = span.unwrap_or((number, number));
        Some((least.min(number), most.max(number)))
    })?;
    match scale {
        Scale::Linear => Some(0.0..if most > 0.0 { most * 1.05 } else { 1.0 }),
        Scale::Log => Some(least * 0.8..most * 1.25),
    }
}

fn draw<X, Y>(
    svg: &mut String,
    title: &str,
    (x, y): (Axis<'_>, Axis<'_>),
    xs: X,
    ys: Y,
    lines: &[Line<'_>],
) -> Result<(), Box<dyn std::error::Error>>
where
    X: AsRangedCoord<Value = f64>,
    Y: AsRangedCoord<Value = f64>,
    X::CoordDescType: ValueFormatter<f64> + Ranged<ValueType = f64>,
    Y::CoordDescType: ValueFormatter<f64> + Ranged<ValueType = f64>,
{
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(72)
        .build_cartesian_2d(xs, ys)?;
    let mesh = &mut chart.configure_mesh();
    mesh.x_desc(x.name).y_desc(y.name).light_line_style(TRANSPARENT);
    mesh.x_label_formatter(&|number| short(*number));
    mesh.y_label_formatter(&|number| short(*number)).draw()?;
    for ((name, points), colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        let line = LineSeries::new(points.iter().copied(), colour.stroke_width(2)).point_size(2);
        let key = move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2));
        chart.draw_series(line)?.label(*name).legend(key);
    }
    let labels = &mut chart.configure_series_labels();
    labels.background_style(WHITE.mix(0.85)).border_style(BLACK.mix(0.3)).draw()?;
    area.present()?;
    Ok(())
}

/// Such as 20k, or 0.5.
fn short(number: f64) -> String {
    match number.abs() {
        n if n >= 1e6 => format!("{}M", round(number / 1e6)),
        n if n >= 1e3 => format!("{}k", round(number / 1e3)),
        _ => round(number),
    }
}

fn round(number: f64) -> String {
    let text = format!("{number:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let shown = [0.0, 0.5, 12.0, 20_000.0, 1_500_000.0].map(short);
        assert_eq!(shown, ["0", "0.5", "12", "20k", "1.5M"]);
    }

    #[test]
    fn a_plot_has_its_words_and_nothing_is_no_plot() {
        let file = env::temp_dir().join(format!("figures-{}.svg", std::process::id()));
        let axis = |name, scale| Axis { name, scale };
        for scale in [Scale::Linear, Scale::Log] {
            let (x, y) = (axis("entries", Scale::Log), axis("ns", scale));
            let lines = [("inline", vec![(1.0, 10.0), (1000.0, 300.0)])];
            plot(&file, "exit", x, y, &lines).expect("it is written");
            let svg = fs::read_to_string(&file).expect("it is there");
            for word in ["entries", "ns", "inline", "exit", "polyline"] {
                assert!(svg.contains(word), "{word}: {svg}");
            }
        }
        fs::remove_file(&file).expect("it is there");
        let axes = (axis("x", Scale::Linear), axis("y", Scale::Linear));
        assert!(plot(&file, "nothing", axes.0, axes.1, &[]).is_err());
    }
}
