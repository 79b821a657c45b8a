//! The parser beside that of `oci_spec`.

use oci_spec::distribution as spec;

use super::*;

/// What `text` names in full by the grammar; `None` if it is not a name.
///
/// This is the answer of `oci_spec`, with three corrections:
/// - Only digests of SHA-256 in lower case are taken.
/// - Tags have letters of ASCII alone; `oci_spec` takes those of every script.
/// - A first part with an upper-case letter is a host, as in distribution's `normalize.go`;
///   `oci_spec` makes it a part of a name on Docker Hub, which cannot have such letters.
fn expected(text: &str) -> Option<String> {
    let name: spec::Reference = text.parse().ok()?;
    if name.digest().is_some_and(|digest| digest.parse::<Digest>().is_err()) {
        return None;
    }
    if name.tag().is_some_and(|tag| !tag.is_ascii()) {
        return None;
    }
    let has_upper = |text: &str| text.bytes().any(|byte| byte.is_ascii_uppercase());
    match name.repository().split_once('/') {
        Some((host, path)) if has_upper(host) => {
            let tail = &name.whole()[name.registry().len() + 1 + name.repository().len()..];
            Some(format!("{host}/{path}{tail}"))
        }
        _ => Some(name.whole()),
    }
}

/// Compares both parsers; says whether `text` is a name.
fn compare(text: &str) -> bool {
    let found = text.parse::<Reference>();
    let shown = found.as_ref().map(Reference::to_string).map_err(BadName::to_string);
    assert_eq!(shown.as_ref().ok(), expected(text).as_ref(), "{text:?}: {shown:?}");
    let Ok(found) = found else {
        return false;
    };
    // What it is called leads back to it.
    assert_eq!(found.to_string().parse::<Reference>(), Ok(found.clone()), "{text:?}");
    let theirs: spec::Reference = found.to_string().parse().unwrap();
    // A host that only an upper-case letter makes one.
    if !found.registry().contains(['.', ':']) && found.registry() != "localhost" {
        return true;
    }
    assert_eq!(found.host(), theirs.resolve_registry(), "{text:?}");
    assert_eq!(
        (found.registry(), found.repository(), found.tag()),
        (theirs.registry(), theirs.repository(), theirs.tag()),
        "{text:?}"
    );
    true
}

/// A generator of numbers (SplitMix64), which are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end as u64) as usize
    }

    fn one<'t>(&mut self, of: &[&'t str]) -> &'t str {
        of[self.below(of.len())]
    }
}

#[test]
fn a_table_of_names_reads_as_oci_spec_reads_it() {
    let hosts = "|a/|a.b/|localhost/|localhost:5000/|a:1/|a:/|a:b/|A/|aB:1/|127.0.0.1:5000/\
        |docker.io/|index.docker.io/|docker.io/library/|Docker.io/|index.docker.io:443/\
        |registry/|a-b.c/|-a.b/|a-.b/|a..b/|.a/|a./|a_b.c/|a_b.c:1/|xn--n3h.com/|a:1:2/\
        |ü.de/|a:99999999999999999999/| a.b/|/|//|http://|a.b//";
    let paths = "|a|a/b|a/b/c|a.b|a..b|a._b|a_b|a__b|a___b|a-b|a----b|a-_b|-a|a-|_a|a_|.a|a.|A|a/B\
        |a//b|a/|0|library|library/a|localhost|a b|ä|a\n|a\0\
        |0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    let tags = "|:|:1|:latest|:A_b.c-d|:-a|:.a|:_a|:a b|:a:b|:ü|:a/b|:5000|:1\n";
    let digits = "0123456789abcdef".repeat(4);
    let digests = [
        String::new(),
        "@".into(),
        "@sha256:".into(),
        format!("@sha256:{digits}"),
        format!("@sha256:{}", digits.to_uppercase()),
        format!("@sha256:{}", &digits[1..]),
        format!("@sha256:{digits}0"),
        format!("@sha256:{}g", &digits[1..]),
        format!("@sha512:{digits}{digits}"),
        format!("@other:{digits}"),
        format!("@sha256+b64:{digits}"),
        format!("@{digits}"),
        format!("@sha256:{digits}@sha256:{digits}"),
        format!("@sha256:{digits}:1"),
    ];
    let mut good = 0;
    for host in hosts.split('|') {
        for path in paths.split('|') {
            for tag in tags.split('|') {
                for digest in &digests {
                    good += usize::from(compare(&format!("{host}{path}{tag}{digest}")));
                }
            }
        }
    }
    assert!(good > 2000, "{good}");
    for len in [1, 246, 247, 248, 254, 255, 256, 300] {
        compare(&"a".repeat(len));
        compare(&format!("a.b/{}", "a".repeat(len)));
        compare(&format!("a.b/{}/c", "a".repeat(len)));
        compare(&format!("{}.b/c", "a".repeat(len)));
    }
    for len in [127, 128, 129] {
        compare(&format!("a:{}", "t".repeat(len)));
    }
}

#[test]
fn random_names_read_as_oci_spec_reads_them() {
    let pieces = "a|b0|Z|localhost|docker.io|index.docker.io|library|sha256:|latest|ü| |[|]\
        |0123456789abcdef|.|.|-|--|_|__|/|/|/|:|:|@|\n";
    let pieces: Vec<&str> = pieces.split('|').collect();
    let mut numbers = Numbers(18);
    let mut good = 0;
    for _ in 0..200_000 {
        let len = 1 + numbers.below(9);
        let text: String = (0..len).map(|_| numbers.one(&pieces)).collect();
        // Their grammar lacks addresses in brackets.
        if !text.starts_with('[') {
            good += usize::from(compare(&text));
        }
    }
    assert!(good > 10_000, "{good}");
    // Names that are right but for one byte, and many that stay right.
    let digest = format!("@sha256:{}", "0123456789abcdef".repeat(4));
    for whole in ["a/b:c", "registry.example.com:5000/a/b-c__d.e:1.0-x_y", "localhost/a"] {
        for text in [whole.to_owned(), format!("{whole}{digest}")] {
            for at in 0..text.len() {
                for byte in 0..128 {
                    let mut changed = text.clone().into_bytes();
                    changed[at] = byte;
                    compare(std::str::from_utf8(&changed).unwrap());
                }
            }
        }
    }
}

#[test]
fn addresses_in_brackets_are_hosts() {
    for (text, whole) in [
        ("[::1]:5000/a/b:1", "[::1]:5000/a/b:1"),
        ("[0:0::1]/a", "[::1]/a:latest"),
        ("[::1]/library/a", "[::1]/library/a:latest"),
    ] {
        assert_eq!(text.parse::<Reference>().unwrap().to_string(), whole);
    }
    for bad in [
        "[",
        "[]",
        "[::1",
        "[::1]",
        "[::1]:5000",
        "[::1]a/b",
        "[::1]:/b",
        "[1.2.3.4]/a",
        "[::1]:x/a",
    ] {
        assert!(bad.parse::<Reference>().is_err(), "{bad}");
    }
}

#[test]
fn a_message_names_the_part_and_its_fault() {
    for (text, says) in [
        ("", "the name is empty"),
        ("example.com/", "the name is empty"),
        ("example.com:x/a", "\"example.com:x\" is not a host"),
        ("[::g]/a", "\"::g\" is not an IPv6 address"),
        ("[::1]", "[::1] must be followed by"),
        ("Python", "\"Python\" cannot be a part of a name"),
        ("a//b", "\"\" cannot be a part of a name"),
        ("a:b:c", "\"b:c\" is not a tag"),
        ("a@sha512:12", "\"sha512:12\" is not a digest"),
        (&"a".repeat(300), "the name has 308 characters"),
    ] {
        let error = text.parse::<Reference>().unwrap_err().to_string();
        assert!(error.contains(says), "{text}: {error}");
    }
}
