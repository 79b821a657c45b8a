//! The floor under a build: every layer of an image inflated, its SHA-256
//! taken and compared with the config, nothing written.
//!
//! ```text
//! cargo bench --bench floor -- DIR[:TAG] [--layer N] [--no-digest]
//! ```
//!
//! One line of JSON on standard output: `ms`, `bytes` (uncompressed), `layers`,
//! `threads`. `--layer` takes one layer alone (0 is the lowest); `--no-digest`
//! only inflates.

use std::io::{self, BufReader, Read};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use fsimage::digest::HashingReader;
use oci::{Access, Image, ImageRef, Platform};
use rayon::prelude::*;

const USAGE: &str = "usage: cargo bench --bench floor -- DIR[:TAG] [--layer N] [--no-digest]   (DIR is an OCI layout)";

struct Args {
    layout: String,
    layer: Option<usize>,
    digest: bool,
}

fn main() -> ExitCode {
    // `cargo bench` without a name of a bench starts every one with this alone.
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if args.is_empty() {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let Some(args) = parse(&args) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("floor: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn parse(words: &[String]) -> Option<Args> {
    let mut args = Args { layout: String::new(), layer: None, digest: true };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--no-digest" => args.digest = false,
            "--layer" => args.layer = Some(words.next()?.parse().ok()?),
            _ if word.starts_with('-') || !args.layout.is_empty() => return None,
            _ => args.layout.clone_from(word),
        }
    }
    (!args.layout.is_empty()).then_some(args)
}

fn run(args: &Args) -> Result<()> {
    let started = Instant::now();
    let reference: ImageRef = format!("oci:{}", args.layout).parse()?;
    let image = Image::open(&reference, &Platform::host(), &Access::default())?;
    let mut order: Vec<usize> = match args.layer {
        Some(layer) => {
            let count = image.layers.len();
            ensure!(layer < count, "there is no layer {layer}: the image has {count}");
            vec![layer]
        }
        None => (0..image.layers.len()).collect(),
    };
    // A large layer that came last would leave the other threads idle.
    order.sort_by_key(|i| std::cmp::Reverse(image.layers[*i].size));

    let (layers, queue) = (order.len(), Mutex::new(order.into_iter()));
    let next = || queue.lock().expect("no holder panics").next();
    let sizes = (0..rayon::current_num_threads()).into_par_iter().with_max_len(1).map(|_| {
        let mut bytes = 0;
        while let Some(i) = next() {
            bytes += layer(&image, i, args.digest).with_context(|| format!("layer {}", i + 1))?;
        }
        anyhow::Ok(bytes)
    });
    let bytes: u64 = sizes.collect::<Result<Vec<_>>>()?.into_iter().sum();
    let ms = started.elapsed().as_secs_f64() * 1e3;
    let threads = rayon::current_num_threads().min(layers);
    println!(r#"{{"ms": {ms:.3}, "bytes": {bytes}, "layers": {layers}, "threads": {threads}}}"#);
    Ok(())
}

/// Inflates layer `i`; returns its uncompressed size.
fn layer(image: &Image, i: usize, digest: bool) -> Result<u64> {
    let mut blob = BufReader::with_capacity(1 << 17, image.blob(i)?);
    let is = &image.layers[i].media_type;
    let mut tar: Box<dyn Read + '_> = if is.ends_with("gzip") {
        Box::new(flate2::bufread::MultiGzDecoder::new(&mut blob))
    } else if is.ends_with("zstd") {
        Box::new(zstd::Decoder::with_buffer(&mut blob)?)
    } else {
        Box::new(&mut blob)
    };
    if !digest {
        return drain(&mut tar);
    }
    let mut tar = HashingReader::new(tar);
    let bytes = drain(&mut tar)?;
    let (is, expected) = (tar.digest(), image.layers[i].diff_id.digest());
    ensure!(is == expected, "its content has the diff ID {is}, not {expected} as the config says");
    Ok(bytes)
}

/// Reads to the end in pieces as large as those of a build.
fn drain(from: &mut impl Read) -> Result<u64> {
    let mut buffer = vec![0; 1 << 18];
    let mut bytes = 0;
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(bytes),
            Ok(n) => bytes += n as u64,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}
