//! The functions that fuzzers call, on the inputs that are committed: `ci/fuzz` goes on from these
//! for as long as it is told to.

use std::fs;
use std::path::Path;

#[allow(unreachable_pub, reason = "the functions are public for the programs in fuzz/")]
#[path = "../../../fuzz/src/lib.rs"]
mod targets;

type Target = fn(&[u8]);

#[test]
fn what_must_hold_holds_of_each_input() {
    let all: [(&str, Target); 10] = [
        ("diff", targets::diff),
        ("docker_archive", targets::docker_archive),
        ("erofs", targets::erofs),
        ("index", targets::index),
        ("layer", targets::layer),
        ("layout", targets::layout),
        ("manifest", targets::manifest),
        ("merge", targets::merge),
        ("reference", targets::reference),
        ("vmdk", targets::vmdk),
    ];
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    assert_eq!(fs::read_dir(&corpora).unwrap().count(), all.len());
    for (name, target) in all {
        let mut inputs = 0;
        for input in fs::read_dir(corpora.join(name)).unwrap() {
            target(&fs::read(input.unwrap().path()).unwrap());
            inputs += 1;
        }
        assert!(inputs > 0, "{name} has an empty corpus");
    }
}
