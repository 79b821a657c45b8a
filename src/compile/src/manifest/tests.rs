//! Manifests as people write them, and their mistakes.

use std::fs;

use bundle::boot::lenient::Int;
use bundle::boot::{Boot, Publish, UpperSize};

use super::*;
use crate::patch::Patch;
use crate::patch::op::Op;

/// A directory with files of YAML, gone with its owner.
struct Files(tempfile::TempDir);

impl Files {
    fn new(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        Self(dir)
    }

    fn load(&self, set: &[(&str, &str)]) -> Result<Manifest, String> {
        let set = set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let manifest = Manifest::load(&self.0.path().join("m.yaml"), &set.collect());
        let dir = format!("{}/", self.0.path().display());
        manifest.map_err(|error| error.to_string().replace(&dir, ""))
    }
}

fn load(text: &str) -> Manifest {
    Files::new(&[("m.yaml", text)]).load(&[]).unwrap()
}

/// What is said of `text`, without the file's name.
fn error(text: &str) -> String {
    let error = Files::new(&[("m.yaml", text)]).load(&[]).unwrap_err();
    error.strip_prefix("m.yaml").unwrap_or(&error).to_owned()
}

#[test]
fn a_manifest_has_defaults() {
    let manifest = load("image: oci:a/b");
    assert_eq!((manifest.upper.size, manifest.platform), (None, None));
    assert!(manifest.patches.is_empty());
    let manifest = load("image: oci:a/b:c\nplatform: linux/arm/v7\nupper: { size: 16MiB }\n");
    assert_eq!(manifest.upper.size, Some(UpperSize(16 << 20)));
    assert_eq!(manifest.platform.unwrap().to_string(), "linux/arm/v7");
}

#[test]
fn a_check_that_was_asked_for_and_left_empty_is_an_error() {
    let comment = "verify-image:\n  # cosign-key: a.pub\n";
    let key = "verify-image: { cosign-key: ~ }\n";
    for empty in ["verify-image:\n", "verify-image: ~\n", comment, "verify-image: {}\n", key] {
        let error = error(&format!("image: example/image\n{empty}"));
        assert!(error.starts_with(":2:"), "{error}");
    }
}

#[test]
fn errors_tell_line_and_column_and_what_would_be_right() {
    let unknown = error("image: oci:a\nuper: { size: 1GiB }\n");
    assert!(unknown.starts_with(":2:1: ") && unknown.contains("uper"), "{unknown}");
    let known = "`image`, `verify-image`, `platform`, `vars`, `upper`, `boot`";
    assert!(unknown.contains(known), "{unknown}");
    let nested = error("image: oci:a\nupper:\n  sise: 1GiB\n");
    assert!(nested.starts_with(":3:3: ") && nested.contains("`size`"), "{nested}");
    let size = error("image: oci:a\nupper: { size: 1MiB }\n");
    assert!(size.starts_with(":2:") && size.contains("16 MiB"), "{size}");
    let image = error("\nimage: \"oci:\"\n");
    assert!(image.starts_with(":2:") && image.contains("oci-archive:FILE"), "{image}");
    let yaml = error("image: oci:a\n\tupper\n");
    assert!(yaml.starts_with(":2:"), "{yaml}");
    let twice = error("image: oci:a\nimage: oci:b\n");
    assert!(twice.contains("duplicate"), "{twice}");
    for (boot, line, word) in [
        ("  cpus: 0\n", 3, "a number that is in range"),
        ("  cpus: 255\n", 3, "254 at most"),
        ("  env: { A: a }\n  tmpfs: [tmp]\n", 4, "/PATH:SIZE"),
        ("  publish: [\"80:\"]\n", 3, "HOST:GUEST"),
        ("  memroy: 1GiB\n", 3, "`memory`"),
    ] {
        let text = error(&format!("image: oci:a\nboot:\n{boot}"));
        assert!(text.starts_with(&format!(":{line}:")) && text.contains(word), "{text}");
    }
    let missing = error("platform: linux/amd64\n");
    assert!(missing.contains("missing field `image`"), "{missing}");
}

/// Whatever rootfs-boot would refuse at every start is refused here.
#[test]
fn values_of_boot_are_those_that_a_machine_starts_with() {
    for (boot, line, word) in [
        ("  cpus: 256\n", 3, "in range"),
        ("  memory: 64MiB\n", 3, "80 MiB"),
        ("  memory: 1x\n", 3, "is not a size"),
        ("  net: true\n  hostname: a b\n", 4, "host name"),
        ("  workdir: srv\n", 3, "not absolute"),
        ("  user: a:b:c\n", 3, "USER[:GROUP]"),
        ("  user: 4294967295\n", 3, "USER[:GROUP]"),
        ("  env:\n    A: a\n    B=C: b\n", 5, "name of a variable"),
        ("  env: { \"\": b }\n", 3, "name of a variable"),
        ("  env: { A: \"a\\0b\" }\n", 3, "NUL"),
        ("  env: { V: 3.10 }\n", 3, "in quotes"),
        ("  command: [a, \"\\0\"]\n", 3, "NUL"),
        ("  entrypoint: [\"\"]\n", 3, "empty name"),
        ("  tmpfs: [/, /b]\n", 3, "/PATH:SIZE"),
        ("  tmpfs:\n    - /a\n    - /b:1q\n", 5, "/PATH:SIZE"),
        ("  publish:\n    - 70000\n", 4, "65535"),
        ("  publish: [\"53:53/udp\"]\n", 3, "TCP"),
        ("  add-host: [\"db\"]\n", 3, "NAME:IP"),
        ("  dns: [one.one]\n", 3, "IP address"),
        ("  timeout: 0\n", 3, "duration"),
        ("  timeout: 10x\n", 3, "duration"),
        ("  stop-signal: SIGFOO\n", 3, "is not a signal"),
    ] {
        let text = error(&format!("image: oci:a\nboot:\n{boot}"));
        assert!(text.starts_with(&format!(":{line}:")) && text.contains(word), "{boot}: {text}");
    }
}

#[test]
fn numbers_are_text_where_text_is_meant() {
    let boot = "boot:\n  user: 1000\n  env: { A: 1, B: true, C: -2 }\n  command: [sleep, 10]\n\
        \x20 entrypoint: [run, true]\n  publish: [90, \"80:8080\"]\n  hostname: 42\n  timeout: 1m30s\n\
        \x20 memory: 512m\n  tmpfs: [\"/a:64k\"]\n  stop-signal: 9\n  stop-timeout: 5\n  dns: [1.1.1.1]\n";
    let boot = load(&format!("image: oci:a\n{boot}")).boot;
    assert_eq!(boot.user.as_ref().unwrap().to_string(), "1000");
    let env: Vec<_> = boot.env.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(env, ["A=1", "B=true", "C=-2"]);
    assert_eq!(boot.command.as_ref().unwrap(), &["sleep", "10"]);
    assert_eq!(boot.entrypoint.as_ref().unwrap(), &["run", "true"]);
    assert_eq!(boot.publish, [Publish { host: 90, guest: 90 }, Publish { host: 80, guest: 8080 }]);
    assert_eq!(boot.hostname.as_ref().unwrap().as_str(), "42");
    assert_eq!(boot.timeout.unwrap().0.as_secs(), 90);
    assert_eq!(boot.memory.unwrap().mib(), 512);
    assert_eq!(boot.tmpfs[0].to_string(), "/a:65536");
    assert_eq!(boot.stop_signal.unwrap().number(), 9);
    // What travels in the bundle's index is read there as it was.
    let json = serde_json::to_string(&boot).unwrap();
    assert_eq!(serde_json::from_str::<Boot>(&json).unwrap(), boot, "{json}");
}

#[test]
fn errors_of_patches_tell_the_line() {
    for (patch, place, word) in [
        ("{ wrte: { path: /a } }", ":3:", "unknown variant `wrte`"),
        ("write: { path: /a, content: x, mod: \"1\" }", ":3:", "unknown field `mod`"),
        ("write:\n      path: /a\n      content: x\n      mode: 0o644", ":6:7: ", "in quotes"),
        ("write: { path: /a, content: x, mode: 644 }", ":3:", "in quotes"),
        ("chmod: { path: /a, mode: u+q }", ":3:", "is not a mode"),
        ("chown: { path: /a, owner: \"a:b:c\" }", ":3:", "is not an owner"),
        ("write: { path: a, content: x }", ":3: write a: ", "not absolute"),
        ("write: { path: /a }", ":3: write /a: ", "needs content"),
        ("write: { path: /a, content: x, from: y }", ":3: ", "both"),
        ("replace: { path: /a, find: \"(\", with: x }", ":3: ", "unclosed group"),
        ("replace: { path: /a, find: a, with: $1 }", ":3: ", "group \"1\""),
        ("replace: { path: /a, find: a, with: x, count: 0 }", ":3: ", "count is 0"),
        ("write: { path: /a/, content: x }", ":3: ", "ends in a slash"),
        (
            "xattr: { path: /a, set: { security.capability: \"base64:AAAA\" } }",
            ":3: ",
            "not as Linux stores",
        ),
        ("mknod: { path: /a, kind: char, major: 0, minor: 0 }", ":3: ", "whiteout"),
        ("mknod: { path: /a, kind: block, major: 1 }", ":3: ", "needs major and minor"),
        ("mknod: { path: /a, kind: fifo, major: 1 }", ":3: ", "has no major"),
        ("xattr: { path: /a, set: { security.capability: net_raw+ep } }", ":3: ", "cap_net_raw+ep"),
        ("xattr: { path: /a, set: { foo.bar: x } }", ":3: ", "not a name of an xattr"),
        ("xattr: { path: /a, set: { trusted.overlay.opaque: y } }", ":3: ", "overlayfs"),
        ("user: { name: \"a:b\" }", ":3: ", "not a name of a user"),
        ("user: { name: a, group: b, gid: 4 }", ":3: ", "give one"),
        ("include: none.yaml", ":3: include none.yaml: ", "No such file"),
        ("include: m.yaml", ":3: ", "include each other"),
    ] {
        let text = error(&format!("image: oci:a\npatches:\n  - {patch}\n"));
        assert!(text.starts_with(place) && text.contains(word), "{patch}: {text}");
    }
}

#[test]
fn included_patches_stand_in_place_and_name_their_own_lines() {
    let files = Files::new(&[
        (
            "m.yaml",
            "image: oci:a\nvars: { B: b }\npatches:\n- mkdir: { path: /1 }\n- include: more.yaml\n\
             - mkdir: { path: /3 }\n",
        ),
        ("more.yaml", "# a list\n- mkdir: { path: \"/${B}\" }\n- copy: { from: host, path: /2 }\n"),
    ]);
    let manifest = files.load(&[]).unwrap();
    let shown: Vec<String> = manifest.patches.iter().map(Patch::to_string).collect();
    let dir = files.0.path().display();
    let expected = [
        "m.yaml:4: mkdir /1",
        "more.yaml:2: mkdir /b",
        "more.yaml:3: copy /2",
        "m.yaml:6: mkdir /3",
    ];
    assert_eq!(shown, expected.map(|text| format!("{dir}/{text}")));
    let Op::Copy(copy) = &manifest.patches[2].op else { panic!("it is a copy") };
    assert_eq!(copy.from, files.0.path().join("host"));

    let files = Files::new(&[
        ("m.yaml", "image: oci:a\npatches: [include: a.yaml]\n"),
        ("a.yaml", "- include: b.yaml\n"),
        ("b.yaml", "\n- include: ./a.yaml\n"),
    ]);
    let error = files.load(&[]).unwrap_err();
    assert!(error.starts_with("b.yaml:2: include ./a.yaml: "), "{error}");
    assert!(error.contains("m.yaml -> a.yaml -> b.yaml"), "{error}");
}

#[test]
fn variables_stand_for_text_and_numbers_in_every_value() {
    let text = "image: oci:${DIR}:latest\nvars:\n  DIR: a\n  B: \"${DIR}-${N}\"\n  N: 2\nboot:\n  cpus: ${N}\n\
                \x20 env: { A: \"${B} $$ $HOME $${B}\" }\npatches:\n- mknod: { path: /x, kind: char, major: \"${N}\", \
                minor: 3 }\n- mkdir: { path: /a, parents: \"${YES}\" }\n";
    let files = Files::new(&[("m.yaml", text)]);
    let manifest = files.load(&[("YES", "true"), ("DIR", "b")]).unwrap();
    assert_eq!(manifest.image.to_string(), "oci:b:latest");
    assert_eq!(manifest.boot.cpus.unwrap().get(), 2);
    assert_eq!(manifest.boot.env["A"], "b-2 $ $HOME ${B}");
    let Op::Mknod(op) = &manifest.patches[0].op else { panic!("it is a mknod") };
    assert_eq!(op.major, Some(Int(2)));
    let error = files.load(&[]).unwrap_err();
    assert!(error.starts_with("m.yaml:11:") && error.contains("--set YES="), "{error}");
    let error = files.load(&[("YES", "true"), ("NOT", "x")]).unwrap_err();
    assert!(error.starts_with("--set NOT: nothing in m.yaml uses"), "{error}");
    let error = files.load(&[("1", "x")]).unwrap_err();
    assert!(error.contains("not a name of a variable"), "{error}");
    let circle = error_of_vars("A: \"${B}\"\n  B: \"${A}\"");
    assert!(circle.starts_with(":3:3: ") && circle.contains("not defined"), "{circle}");
    let float = error_of_vars("A: 3.10");
    assert!(float.starts_with(":3:3: ") && float.contains("text"), "{float}");
}

fn error_of_vars(vars: &str) -> String {
    error(&format!("image: oci:a\nvars:\n  {vars}\n"))
}

#[test]
fn the_schema_knows_every_operation_and_forbids_what_is_unknown() {
    let schema = manifest_schema();
    let text = schema.to_string();
    for op in ["write", "extract", "mknod", "user", "include"] {
        assert!(text.contains(&format!("\"{op}\":")), "{op}");
    }
    assert_eq!(schema["additionalProperties"], false);
    assert_eq!(schema["required"], serde_json::json!(["image"]));
    assert_eq!(patches_schema()["type"], "array");
}

/// The file that README names to editors is what `rootfs-compile schema` prints.
#[test]
fn the_schema_in_the_repository_is_the_program_s() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../manifests/schema.json");
    let kept = std::fs::read_to_string(path).unwrap();
    let kept: serde_json::Value = serde_json::from_str(&kept).unwrap();
    assert!(
        kept == manifest_schema(),
        "make it again: rootfs-compile schema > manifests/schema.json"
    );
}
