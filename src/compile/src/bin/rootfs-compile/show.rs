//! Progress for eyes and programs, on standard error.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Mutex;

use fsimage::io::ending::{self, Undo};
use fsimage::io::printable;
use indicatif::{HumanBytes, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use rootfs_compile::progress::{Event, LayerName, Reporter, Silent};
use serde_json::json;

use crate::args::Progress;
use crate::say;

/// The reporter for `progress`; `verbose` says more.
pub(crate) fn reporter(progress: Progress, quiet: bool, verbose: bool) -> Box<dyn Reporter> {
    let bars = || Bars::new(verbose);
    match progress {
        _ if quiet => Box::new(Silent),
        Progress::None => Box::new(Silent),
        Progress::Json => Box::new(Json),
        Progress::Tty => Box::new(bars()),
        Progress::Auto if std::io::stderr().is_terminal() => Box::new(bars()),
        Progress::Auto | Progress::Plain => Box::new(Plain { verbose, ..Plain::default() }),
    }
}

/// Writes `value` as a line, as [`say`] does.
pub(crate) fn say_json(value: &serde_json::Value) {
    let line = printable::json_line(value).expect("a value has no keys but strings");
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

#[derive(Default)]
struct Plain {
    verbose: bool,
    layers: Mutex<Vec<LayerName>>,
}

impl Reporter for Plain {
    fn event(&self, event: Event) {
        let mut layers = self.layers.lock().expect("no holder panics");
        match event {
            Event::Layers(names) => *layers = names,
            Event::Layer { layer, cached, bytes } => {
                let (count, name) = (layers.len(), &layers[layer]);
                let how = if cached { "cached" } else { "compiled" };
                let (from, to) = (HumanBytes(name.bytes), HumanBytes(bytes));
                say(&format!("layer {}/{count} {} {how}, {from} -> {to}", layer + 1, name.digest));
            }
            Event::Warning(text) => say(&format!("warning: {text}")),
            Event::Note(text) if self.verbose => say(&format!("note: {text}")),
            Event::Read { .. } | Event::Stage(_) | Event::Note(_) => {}
        }
    }
}

struct Json;

impl Reporter for Json {
    fn event(&self, event: Event) {
        let value = match event {
            Event::Layers(names) => {
                let all = names.iter().map(|n| json!({ "digest": n.digest, "bytes": n.bytes }));
                json!({ "event": "layers", "layers": all.collect::<Vec<_>>() })
            }
            Event::Layer { layer, cached, bytes } => {
                json!({ "event": "layer", "layer": layer, "cached": cached, "bytes": bytes })
            }
            Event::Stage(stage) => json!({ "event": "stage", "stage": stage }),
            Event::Warning(text) => json!({ "event": "warning", "text": text }),
            Event::Note(text) => json!({ "event": "note", "text": text }),
            Event::Read { .. } => return,
        };
        say_json(&value);
    }
}

struct Bars {
    verbose: bool,
    all: MultiProgress,
    bars: Mutex<Vec<ProgressBar>>,
    _undo: Undo,
}

impl Bars {
    fn new(verbose: bool) -> Self {
        let all = MultiProgress::new();
        let at_signal = all.clone();
        let undo = ending::undo(move || {
            // The terminal is somebody else's from now on.
            let _ = at_signal.clear();
            at_signal.set_draw_target(ProgressDrawTarget::hidden());
        });
        Self { verbose, all, bars: Mutex::default(), _undo: undo }
    }
}

impl Bars {
    /// Prints above the bars; what cannot be printed there is lost with the terminal.
    fn above(&self, text: &str) {
        drop(self.all.println(printable::line(text)));
    }
}

impl Reporter for Bars {
    fn event(&self, event: Event) {
        let mut bars = self.bars.lock().expect("no holder panics");
        match event {
            Event::Layers(names) => {
                let template = "{prefix:.dim} {bar:30} {bytes:>10}/{total_bytes:<10} {bytes_per_sec:>12} {msg}";
                let style = ProgressStyle::with_template(template).expect("a fixed template");
                *bars = names
                    .iter()
                    .map(|name| {
                        let bar = self.all.add(ProgressBar::new(name.bytes));
                        bar.set_style(style.clone());
                        bar.set_prefix(name.digest.chars().skip(7).take(12).collect::<String>());
                        bar
                    })
                    .collect();
            }
            Event::Read { layer, bytes } => bars[layer].inc(bytes),
            Event::Layer { layer, cached, .. } => {
                bars[layer].finish_with_message(if cached { "cached" } else { "done" });
            }
            Event::Note(text) if self.verbose => self.above(&format!("note: {text}")),
            Event::Stage(_) | Event::Note(_) => {}
            Event::Warning(text) => self.above(&format!("warning: {text}")),
        }
    }
}
