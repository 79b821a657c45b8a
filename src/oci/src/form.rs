//! Opens images in files, and says which transport reads what is there if the reference
//! names another one.

use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Result, bail, ensure};
use fsimage::io::regular;

use crate::compression::Spool;
use crate::layout_file::{INDEX, LAYOUT};
use crate::reference::{FileForm, ImageFiles};
use crate::skopeo::SkopeoDir;
use crate::store::{DirStore, Store, TarStore};

/// Opens the file or directory that `files` names.
///
/// # Errors
/// When the path holds something other than what `files` says. The error tells what it is,
/// and which transport reads it.
pub(crate) fn open(files: &ImageFiles, spool: &Spool) -> Result<Box<dyn Store>> {
    let path = &files.path;
    let is_dir = match path.metadata() {
        Ok(metadata) => metadata.is_dir(),
        Err(error) if error.kind() == ErrorKind::NotFound => match files.form {
            FileForm::Oci | FileForm::Dir => bail!("there is no such directory"),
            _ => bail!("there is no such file"),
        },
        Err(error) => return Err(error.into()),
    };
    match (files.form, is_dir) {
        (FileForm::Oci, true) => {
            ensure!(path.join(LAYOUT).exists(), "{}", of_directory(path));
            Ok(Box::new(DirStore(path.clone())))
        }
        (FileForm::Dir, true) => {
            ensure!(path.join("manifest.json").exists(), "{}", of_directory(path));
            Ok(Box::new(SkopeoDir::open(path)?))
        }
        (_, true) => bail!(of_directory(path)),
        (FileForm::Oci | FileForm::Dir, false) => match archive(path, spool) {
            Ok(archive) => bail!(of_archive(&archive)?),
            Err(why) => Err(why.context("it is a file, and not a directory")),
        },
        (form, false) => {
            let archive = archive(path, spool)?;
            let (index, manifest) = (archive.has_file(INDEX)?, archive.has_file("manifest.json")?);
            let is_it = match form {
                FileForm::DockerArchive => manifest,
                FileForm::Archive => manifest || index,
                _ => index,
            };
            ensure!(is_it, "{}", of_archive(&archive)?);
            Ok(Box::new(archive))
        }
    }
}

/// Opens an archive. A fifo is refused at once, and not waited for.
fn archive(path: &Path, spool: &Spool) -> Result<TarStore> {
    let file = match regular::open_followed(path) {
        Err(error) if error.kind() == ErrorKind::InvalidInput => {
            bail!("it is neither a regular file nor a directory")
        }
        opened => opened?,
    };
    TarStore::open(&file, spool)
}

/// Says what the directory `dir` is, and which transport reads it.
fn of_directory(dir: &Path) -> String {
    let has = |name: &str| dir.join(name).exists();
    let is = match () {
        () if has(LAYOUT) => "an OCI layout in a directory: oci:DIR reads it",
        () if has(INDEX) => "an OCI layout without its file oci-layout, which it must have",
        () if has("manifest.json") => "a directory as skopeo writes it: dir:DIR reads it",
        () => {
            "a directory, and neither an OCI layout (it has no file oci-layout) nor one as skopeo \
             writes it (it has no manifest.json)"
        }
    };
    format!("it is {is}")
}

/// Says what `archive` is, and which transport reads it.
fn of_archive(archive: &TarStore) -> Result<&'static str> {
    Ok(if archive.has_file("manifest.json")? {
        "it is an archive as docker save writes it: docker-archive:FILE reads it"
    } else if archive.has_file(INDEX)? {
        "it is an OCI layout in an archive: oci-archive:FILE reads it"
    } else if archive.has_file("repositories")? {
        "it is an archive of a docker older than 1.10, a form that is not supported: load it into \
         a newer docker and save it there"
    } else if archive.holds_a_system() {
        "it is a tar of files, as docker export writes it, and not of an image: docker save writes \
         one"
    } else {
        "it is a tar without an image: it has neither manifest.json nor index.json"
    })
}
