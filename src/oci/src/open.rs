//! Finds the [`Image`] that a reference means, wherever it is.

use anyhow::{Context as _, Result};
use fsimage::digest::Digest;

use crate::image::Image;
use crate::platform::Platform;
use crate::reference::{FileForm, ImageRef};
use crate::registry::access::Access;
use crate::registry::store::RegistryStore;
use crate::signed::{self, ImageKey};
use crate::store::{Counted, Key, RAISE, Store};
use crate::{daemon, docker, form, layout};

impl Image {
    /// Finds the image that `reference` means for `platform`. `access` says how registries
    /// are reached. Blocks.
    ///
    /// # Panics
    /// On a thread that drives an async runtime, if the image is in a registry.
    ///
    /// # Errors
    /// When there is no such image for `platform`, the name is that of more than one, or
    /// a document of it is missing, damaged, too large or of an unknown kind.
    pub fn open(reference: &ImageRef, platform: &Platform, access: &Access) -> Result<Self> {
        let counted = |store| -> Box<dyn Store> {
            Box::new(Counted::new(store, access.document_bytes(), RAISE))
        };
        let open = || match reference {
            ImageRef::Registry { name, .. } => {
                let store = RegistryStore::open(name, access)?;
                let named_digest = Some(store.named());
                let image = layout::open(counted(Box::new(store)), reference, platform)?;
                Ok(Self { named_digest, ..image })
            }
            ImageRef::Daemon { name, .. } => {
                let store = daemon::save(name, access)?;
                docker::open(counted(Box::new(store)), reference, platform)
            }
            ImageRef::Files(files) => {
                let store = counted(form::open(files, &access.spool())?);
                let is_dockers = match files.form {
                    FileForm::DockerArchive => true,
                    // Newer versions of `docker save` write both, for the same image.
                    FileForm::Archive => store.has(&Key::file("manifest.json"))?,
                    FileForm::Oci | FileForm::OciArchive | FileForm::Dir => false,
                };
                if is_dockers {
                    return docker::open(store, reference, platform);
                }
                if files.form != FileForm::Dir {
                    layout::version(&*store)?;
                }
                layout::open(store, reference, platform)
            }
        };
        open().with_context(|| match reference {
            ImageRef::Files(files) => files.path.display().to_string(),
            _ => reference.to_string(),
        })
    }

    /// Refuses the image, which `reference` led to, unless `key` signed it; returns the
    /// digest that is signed: the manifest's, or that of an index which lists it.
    ///
    /// # Errors
    /// When the image is in no registry, its signatures cannot be asked for, or none of
    /// them is by `key`.
    pub fn signed_by(
        &self,
        reference: &ImageRef,
        access: &Access,
        key: &ImageKey,
    ) -> Result<Digest> {
        let check = || -> Result<Digest> {
            let name = reference.registry_name().filter(|_| self.named_digest.is_some());
            let name = name.context("signatures are looked for in registries only")?;
            let digest = self.manifest_digest.context("the image has no manifest")?;
            // The registry is asked again, even where a cached answer about the tag would do
            // for the image: a signature may have been added since.
            let access = Access { known_tags: false, ..access.clone() };
            let pinned = name.with_digest(digest);
            let store = RegistryStore::open(&pinned, &access)?;
            let mut digests = vec![digest];
            digests.extend(self.named_digest.filter(|named| *named != digest));
            if let [_] = digests[..]
                && let Some(tag) = name.tag()
                && let Some(index) = store.index_with(tag, digest)?
            {
                // A lock file pins the manifest, but the signature may be that of the index.
                digests.push(index);
            }
            signed::check(&store, &digests, key, access.document_bytes())
        };
        check().with_context(|| format!("{reference}: verify-image"))
    }
}
