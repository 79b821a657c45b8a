//! Machines, started and looked into: one list of cases for every engine and
//! for wherever it runs.
//!
//! ```text
//! boot --binary ROOTFS_BOOT --engine ENGINE --bundles DIR --out DIR [WORD...]
//! ```
//!
//! `DIR` holds the bundles `hello` and `python-slim`, for each `NAME.sums`, the
//! sha256 of every file as somebody else read it, the bundles of `image`, and `broken.so`, a libkrunfw whose
//! kernel does not run. Needs no root and no tools, so
//! that it also runs inside an emulated machine. Uppers that someone has to check
//! afterwards are left in `--out`. It is started by tests/e2e/checks/boot.py.

mod files;
mod image;
mod life;
mod network;
mod process;
mod terminal;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use process::World;

type Case = (&'static str, fn(&World) -> Result<(), String>);

const CASES: &[Case] = &[
    ("hello-as-it-is", files::hello_as_it_is),
    ("exit-codes", life::exit_codes),
    ("streams", life::streams),
    ("closed-stdout", life::closed_stdout),
    ("stdout-that-takes-nothing", life::stdout_that_takes_nothing),
    ("timings-and-console", life::timings_and_console),
    ("options", life::options),
    ("users", life::users),
    ("stop-signal", life::stop_signal),
    ("broken-kernel", life::broken_kernel),
    ("beside-busy-loops", life::beside_busy_loops),
    ("finding-is-forgotten", life::finding_is_forgotten),
    ("a-hang-is-reported", |_| process::a_hang_is_reported()),
    ("shell-on-a-terminal", terminal::shell),
    ("terminal-comes-back", terminal::comes_back),
    ("clone-is-gone", files::clone_is_gone),
    ("upper-is-kept", files::upper_is_kept),
    ("upper-grows", files::upper_grows),
    ("upper-after-kill-9", files::upper_after_kill),
    ("read-only", files::read_only),
    ("ephemeral", files::ephemeral),
    ("etc-files", image::etc_files),
    ("odd-places", image::odd_places),
    ("fifos", image::fifos),
    ("programs", image::programs),
    ("init-systems", image::init_systems),
    ("overlay", files::overlay),
    ("python-slim", files::python_slim),
    ("metadata-alone-is-copied", files::metadata_alone_is_copied),
    ("metadata-stays", files::metadata_stays),
    ("volume", network::volume),
    ("net-and-publish", network::net_and_publish),
];

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let mut world = World::default();
    let mut words = Vec::new();
    while let Some(arg) = args.next() {
        let mut value = || args.next().unwrap_or_else(|| panic!("{arg} needs a value"));
        match arg.as_str() {
            "--binary" => world.binary = PathBuf::from(value()),
            "--engine" => world.engine = value(),
            "--bundles" => world.bundles = PathBuf::from(value()),
            "--out" => world.out = PathBuf::from(value()),
            word => words.push(word.to_owned()),
        }
    }
    std::fs::create_dir_all(&world.out).expect("the directory for uppers can be made");
    let chosen = CASES.iter().filter(|(name, _)| {
        words.is_empty() || words.iter().any(|word| name.contains(word.as_str()))
    });
    let (mut ran, mut failed) = (0, 0);
    for (name, case) in chosen {
        let started = Instant::now();
        let result = case(&world);
        ran += 1;
        let seconds = started.elapsed().as_secs_f64();
        match result {
            Ok(()) => println!("ok    {:<8} {name:<24} {seconds:6.1} s", world.engine),
            Err(why) => {
                failed += 1;
                println!("FAIL  {:<8} {name:<24} {seconds:6.1} s\n    {why}", world.engine);
            }
        }
    }
    println!("{ran} cases, {failed} failed");
    if ran == 0 || failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
