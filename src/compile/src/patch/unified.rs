//! The format of unified diffs, those of diff(1) and of git.
//!
//! Facts: POSIX `diff -u`, and git's extended headers.

use anyhow::{Result, anyhow, bail, ensure};

/// What a diff says of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FileDiff {
    /// Name before; `None` if there was no file.
    pub old: Option<Vec<u8>>,
    /// Name after; `None` if there is none any more.
    pub new: Option<Vec<u8>>,
    /// Permissions that git gives it.
    pub mode: Option<u16>,
    pub hunks: Vec<Hunk>,
}

/// Neighbouring lines of a file, before and after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hunk {
    /// Line of the diff, from 1.
    pub at: usize,
    /// Line of the file before, from 1; with no old lines, the one before them.
    pub old_start: usize,
    /// With their line ends.
    pub old: Vec<Vec<u8>>,
    pub new: Vec<Vec<u8>>,
    /// Lines of context at the start and at the end.
    pub prefix: usize,
    pub suffix: usize,
}

struct DiffLines<'d> {
    all: Vec<&'d [u8]>,
    at: usize,
}

impl<'d> DiffLines<'d> {
    fn peek(&self, ahead: usize) -> Option<&'d [u8]> {
        self.all.get(self.at + ahead).copied()
    }

    fn header(&self, ahead: usize, prefix: &[u8]) -> Option<&'d [u8]> {
        self.peek(ahead)?.trim_ascii_end().strip_prefix(prefix)
    }
}

/// The changes of files in `diff`; text between them is passed over.
pub(super) fn parse(diff: &[u8]) -> Result<Vec<FileDiff>> {
    let mut lines = DiffLines { all: diff.split_inclusive(|b| *b == b'\n').collect(), at: 0 };
    let mut files = Vec::new();
    while lines.peek(0).is_some() {
        let at = lines.at + 1;
        let file = if let Some(names) = lines.header(0, b"diff --git ") {
            lines.at += 1;
            git_file(&mut lines, names)
        } else if is_header(&lines) {
            let mut file = FileDiff::default();
            headers(&mut lines, &mut file).map(|()| Some(file))
        } else {
            lines.at += 1;
            continue;
        };
        let mut file = match file.map_err(|error| anyhow!("line {at} of the diff: {error}"))? {
            Some(file) => file,
            None => continue,
        };
        while lines.header(0, b"@@ -").is_some() {
            let hunk_at = lines.at + 1;
            let hunk = hunk(&mut lines);
            file.hunks.push(hunk.map_err(|error| anyhow!("line {hunk_at} of the diff: {error}"))?);
        }
        files.push(file);
    }
    Ok(files)
}

/// Whether the next lines name a file before and after, and a hunk follows.
fn is_header(lines: &DiffLines<'_>) -> bool {
    lines.header(0, b"--- ").is_some()
        && lines.header(1, b"+++ ").is_some()
        && lines.header(2, b"@@ -").is_some()
}

/// Takes `--- OLD` and `+++ NEW`.
fn headers(lines: &mut DiffLines<'_>, file: &mut FileDiff) -> Result<()> {
    let old = lines.header(0, b"--- ").unwrap_or_default();
    let new = lines.header(1, b"+++ ").unwrap_or_default();
    (file.old, file.new) = (name(old)?, name(new)?);
    ensure!(file.old.is_some() || file.new.is_some(), "it names no file");
    lines.at += 2;
    Ok(())
}

/// The name in a header; `None` for one that says that there is no file.
fn name(text: &[u8]) -> Result<Option<Vec<u8>>> {
    if let Some(quoted) = text.strip_prefix(b"\"") {
        return unquoted(quoted).map(|(name, _)| Some(name));
    }
    let mut parts = text.splitn(2, |b| *b == b'\t');
    let name = parts.next().unwrap_or_default();
    let time = parts.next().and_then(|text| std::str::from_utf8(text).ok());
    let time = time
        .and_then(|text| jiff::Timestamp::strptime("%Y-%m-%d %H:%M:%S%.f %z", text.trim()).ok());
    // diff -N tells of a missing file by the time at which 1970 began.
    let missing = name == b"/dev/null" || time == Some(jiff::Timestamp::UNIX_EPOCH);
    ensure!(!name.is_empty(), "a name is empty");
    Ok((!missing).then(|| name.to_vec()))
}

/// A name in C's notation up to its closing quote, and what follows.
fn unquoted(text: &[u8]) -> Result<(Vec<u8>, &[u8])> {
    let mut name = Vec::new();
    let mut rest = text;
    loop {
        let (byte, behind) = rest.split_first().ok_or_else(|| anyhow!("a quote is not closed"))?;
        rest = behind;
        match byte {
            b'"' => return Ok((name, rest)),
            b'\\' => {
                let octal = rest.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
                if let Some(byte) = octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
                    name.push(byte);
                    rest = &rest[3..];
                    continue;
                }
                let (letter, behind) =
                    rest.split_first().ok_or_else(|| anyhow!("a quote is not closed"))?;
                rest = behind;
                name.push(match letter {
                    b'a' => 7,
                    b'b' => 8,
                    b't' => b'\t',
                    b'n' => b'\n',
                    b'v' => 11,
                    b'f' => 12,
                    b'r' => b'\r',
                    other => *other,
                });
            }
            other => name.push(*other),
        }
    }
}

/// Takes git's headers of a file; `None` where they say nothing of it.
fn git_file(lines: &mut DiffLines<'_>, names: &[u8]) -> Result<Option<FileDiff>> {
    let mut file = FileDiff::default();
    let (mut made, mut deleted) = (false, false);
    let mode = |text: &[u8]| -> Result<u16> {
        let digits = std::str::from_utf8(text).ok();
        let mode = digits.and_then(|text| u32::from_str_radix(text, 8).ok());
        match mode.map(|mode| (mode & 0o170000, mode & 0o777)) {
            Some((0o100000, permissions)) => Ok(permissions as u16),
            _ => bail!("the mode {} is not a regular file's", text.escape_ascii()),
        }
    };
    while let Some(line) = lines.peek(0).map(<[u8]>::trim_ascii_end) {
        if is_header(lines) {
            headers(lines, &mut file)?;
            return Ok(Some(file));
        }
        if let Some(text) = line.strip_prefix(b"new file mode ") {
            (made, file.mode) = (true, Some(mode(text)?));
        } else if let Some(text) = line.strip_prefix(b"new mode ") {
            file.mode = Some(mode(text)?);
        } else if line.starts_with(b"deleted file mode ") {
            deleted = true;
        } else if line.starts_with(b"rename from ") || line.starts_with(b"copy from ") {
            bail!("it renames or copies a file; the patches rename and copy do that");
        } else if line.starts_with(b"Binary files ") || line.starts_with(b"GIT binary patch") {
            bail!("it changes a binary file; the patch copy does that");
        } else if ![&b"index "[..], b"old mode ", b"similarity "]
            .iter()
            .any(|p| line.starts_with(p))
        {
            break;
        }
        lines.at += 1;
    }
    // An empty file that is made or deleted has no lines to tell of, nor has a
    // change of permissions.
    if !made && !deleted && file.mode.is_none() {
        return Ok(None);
    }
    let (old, new) = git_names(names)?;
    file.old = (!made).then_some(old);
    file.new = (!deleted).then_some(new);
    Ok(Some(file))
}

/// The two names of `a/NAME b/NAME`, which are the same behind their first slash.
fn git_names(names: &[u8]) -> Result<(Vec<u8>, Vec<u8>)> {
    if let Some(quoted) = names.strip_prefix(b"\"") {
        let (old, rest) = unquoted(quoted)?;
        let new = name(rest.trim_ascii_start())?;
        return Ok((old, new.ok_or_else(|| anyhow!("the new name is missing"))?));
    }
    let (old, new) = names.split_at(names.len() / 2);
    let new = new.strip_prefix(b" ").unwrap_or_default();
    let base = |name: &[u8]| name.iter().position(|b| *b == b'/').map(|at| name[at..].to_vec());
    ensure!(base(old).is_some() && base(old) == base(new), "git's two names of the file differ");
    Ok((old.to_vec(), new.to_vec()))
}

/// Takes `@@ -A,B +C,D @@` and its lines.
fn hunk(lines: &mut DiffLines<'_>) -> Result<Hunk> {
    let header = lines.header(0, b"@@ ").and_then(|text| std::str::from_utf8(text).ok());
    let mut words = header.unwrap_or_default().split(' ');
    let mut range = |sign: char| -> Option<(usize, usize)> {
        let range = words.next()?.strip_prefix(sign)?;
        let (start, count) = range.split_once(',').unwrap_or((range, "1"));
        let number = |text: &str| Some(text.parse::<u32>().ok()? as usize);
        Some((number(start)?, number(count)?))
    };
    let ranges = range('-').zip(range('+'));
    let ((old_start, old_count), (_, new_count)) =
        ranges.ok_or_else(|| anyhow!("a hunk's header is not \"@@ -A,B +C,D @@\""))?;
    let mut hunk = Hunk {
        at: lines.at + 1,
        old_start,
        old: Vec::new(),
        new: Vec::new(),
        prefix: 0,
        suffix: 0,
    };
    lines.at += 1;
    let mut changed = false;
    while hunk.old.len() < old_count || hunk.new.len() < new_count {
        let line = lines.peek(0).ok_or_else(|| anyhow!("the hunk ends too early"))?;
        let (sign, text) = match line.split_first() {
            // Mail programs take the space of an empty line of context away.
            Some((b'\n', _)) => (b' ', line),
            Some((sign, text)) => (*sign, text),
            None => bail!("the hunk ends too early"),
        };
        lines.at += 1;
        // "\ No newline at end of file"
        let bare = lines.peek(0).is_some_and(|line| line.starts_with(b"\\"));
        lines.at += usize::from(bare);
        let text = match text.strip_suffix(b"\n") {
            Some(text) if bare => text.to_vec(),
            // The diff's own last line may lack its end.
            Some(_) => text.to_vec(),
            None if bare => text.to_vec(),
            None => [text, b"\n"].concat(),
        };
        match sign {
            b' ' => {
                hunk.old.push(text.clone());
                hunk.new.push(text);
                if changed {
                    hunk.suffix += 1
                } else {
                    hunk.prefix += 1
                }
                continue;
            }
            b'-' => hunk.old.push(text),
            b'+' => hunk.new.push(text),
            _ => bail!(
                "the hunk has a line that begins with neither space, + nor - (line {})",
                lines.at
            ),
        }
        changed = true;
        hunk.suffix = 0;
    }
    ensure!(
        hunk.old.len() == old_count && hunk.new.len() == new_count,
        "the hunk has other lines than its header says"
    );
    Ok(hunk)
}

#[cfg(test)]
mod tests {
    use super::super::hunks::apply;
    use super::*;

    fn patched(text: &str, diff: &str) -> Result<String> {
        let files = parse(diff.as_bytes())?;
        assert_eq!(files.len(), 1);
        Ok(String::from_utf8(apply(text.as_bytes(), &files[0].hunks)?).unwrap())
    }

    #[test]
    fn hunks_are_placed_as_patch_places_them() {
        // Each result is GNU patch 2.7.6's, with -F0.
        let diff = |hunk: &str| format!("--- a\n+++ b\n{hunk}");
        for (text, hunk, expected) in [
            ("a\nb\nc\n", "@@ -1,3 +1,3 @@\n a\n-b\n+B\n c\n", Some("a\nB\nc\n")),
            ("x\nx\na\nb\nc\nd\n", "@@ -2,3 +2,3 @@\n a\n-b\n+B\n c\n", Some("x\nx\na\nB\nc\nd\n")),
            ("k\n\nk\n", "@@ -3 +2,0 @@\n-k\n", Some("k\n\n")),
            ("a\nb\n", "@@ -1,0 +2 @@\n+new\n", Some("a\nnew\nb\n")),
            ("a\nb", "@@ -2 +2 @@\n-b\n\\ No newline at end of file\n+c\n", Some("a\nc\n")),
            ("a\nb\n", "@@ -2 +2 @@\n-b\n+c\n\\ No newline at end of file\n", Some("a\nc")),
            ("a\nb\n", "@@ -1 +1 @@\n-b\n\\ No newline at end of file\n+c\n", None),
            ("z\na\nb\n", "@@ -1,2 +1,3 @@\n+new\n a\n b\n", None),
            ("a\nb\nz\n", "@@ -1,2 +1,3 @@\n a\n b\n+new\n", None),
            ("", "@@ -0,0 +1,2 @@\n+a\n+b\n", Some("a\nb\n")),
            ("a\n\nb\n", "@@ -1,3 +1,3 @@\n a\n\n-b\n+c\n", Some("a\n\nc\n")),
        ] {
            let found = patched(text, &diff(hunk));
            assert_eq!(found.ok().as_deref(), expected, "{text:?} {hunk:?}");
        }
    }

    #[test]
    fn counts_are_kept_and_headers_are_read() {
        let two = "--- a/x\t2024-01-01 00:00:00 +0000\n+++ b/x\n@@ -1 +1 @@\n-0\n\\ No newline at end of file\n+1\n\
                   --- /dev/null\n+++ \"b/\\303\\244 y\"\n@@ -0,0 +1 @@\n+--- z\n";
        let files = parse(two.as_bytes()).unwrap();
        let names: Vec<_> = files.iter().map(|file| (file.old.clone(), file.new.clone())).collect();
        let text = |name: &str| Some(name.as_bytes().to_vec());
        assert_eq!(names, [(text("a/x"), text("b/x")), (None, text("b/ä y"))]);
        assert!(parse(b"--- a\n+++ b\n@@ -1 +1 @@\n-0\n-1\n+1\n").is_err());
        assert!(parse(b"--- a\n+++ b\n@@ -1 +1 @@\n-0\n").is_err());
        assert!(parse(b"--- a\n+++ b\n@@ -1 +99999999999999999999 @@\n-0\n").is_err());
        assert_eq!(parse(b"nothing\n").unwrap(), []);
    }

    #[test]
    fn git_has_headers_of_its_own() {
        let diff = b"diff --git a/run me b/run me\nold mode 100644\nnew mode 100755\n\
            diff --git a/e b/e\nnew file mode 100644\nindex 0000000..e69de29\n\
            diff --git a/g b/g\ndeleted file mode 100644\nindex e69de29..0000000\n\
            diff --git a/h b/h\nindex 1..2 100644\n--- a/h\n+++ b/h\n@@ -1 +1 @@\n-a\n+b\n";
        let files = parse(diff).unwrap();
        let shape =
            |file: &FileDiff| (file.old.is_some(), file.new.is_some(), file.mode, file.hunks.len());
        let shapes: Vec<_> = files.iter().map(shape).collect();
        let expected = [
            (true, true, Some(0o755), 0),
            (false, true, Some(0o644), 0),
            (true, false, None, 0),
            (true, true, None, 1),
        ];
        assert_eq!(shapes, expected);
        assert_eq!(files[0].new.as_deref(), Some(&b"b/run me"[..]));
        let renames = b"diff --git a/a b/b\nsimilarity index 100%\nrename from a\nrename to b\n";
        assert!(parse(renames).unwrap_err().to_string().contains("rename"));
        assert!(parse(b"diff --git a/a b/a\nnew file mode 120000\n").is_err());
    }
}
