//! Indexes and manifests, read as leniently as other tools read them: what is
//! wrong with one entry of an index says nothing of the others.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use fsimage::digest::Digest;
use serde_json::Value;

use crate::json::{self, field, kind, list, shown, text};
use crate::media_type::{DOCKER_LIST, DOCKER_MANIFEST, INDEX, MANIFEST};
use crate::platform::Platform;

/// Media types of an image's config. Docker and registries gave those from
/// `application/octet-stream` on to images in their first years; an absent media type is
/// taken for an image's as well.
const CONFIGS: [&str; 6] = [
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
    "application/octet-stream",
    "application/json",
    "text/html",
    "",
];

/// The annotation that marks an entry of an index as an attestation: what a builder says
/// about an image.
const DOCKER_REFERENCE: &str = "vnd.docker.reference.type";

/// The kind of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Index,
    Manifest,
}

impl Kind {
    /// The kind that `media_type` stands for.
    pub(crate) fn of(media_type: &str) -> Option<Self> {
        match media_type {
            INDEX | DOCKER_LIST => Some(Self::Index),
            MANIFEST | DOCKER_MANIFEST => Some(Self::Manifest),
            _ => None,
        }
    }
}

/// How many faults a message lists.
pub(crate) const FEW: usize = 5;

/// The entries of an index.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    pub good: Vec<Descriptor>,
    /// The number of entries that are not descriptors.
    pub bad: usize,
    /// The first few of these: their position in the index, from 1 on, and what is wrong
    /// with them. Not all, because an entry may have as few as two bytes: an index of
    /// 16 MiB could have millions.
    pub faults: Vec<(usize, String)>,
}

/// A document, with its kind.
pub(crate) struct Document {
    value: Value,
    /// The parser's error, if it is not JSON.
    fault: Option<serde_json::Error>,
    /// `None` if it is neither an index nor a manifest.
    pub kind: Option<Kind>,
}

impl Document {
    /// Parses a document.
    ///
    /// # Errors
    /// When one program could take the document for an image and another for an index
    /// (CVE-2021-41190). That stops a build even where there are good documents beside it.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        // Bytes that are not JSON are neither an index nor a manifest, which is not an error
        // yet: the blobs of artifacts need not be JSON.
        let (value, fault) = match crate::foreign_json::from_slice(bytes) {
            Ok(value) => (value, None),
            Err(error) => (Value::Null, Some(error)),
        };
        let own = field(&value, "mediaType")?.and_then(Value::as_str).and_then(Kind::of);
        let mut image = None;
        for name in ["config", "layers", "fsLayers"] {
            let is_there = field(&value, name)?.is_some();
            image = image.or(is_there.then_some(name));
        }
        let kind = match (field(&value, "manifests")?.is_some(), image) {
            (true, Some(name)) => bail!(
                "it has both `manifests` and `{name}`, so that some programs take it for an index \
                 and others for an image"
            ),
            (true, None) => Some(Kind::Index),
            (false, Some(_)) => Some(Kind::Manifest),
            (false, None) => own,
        };
        ensure!(
            own.is_none() || own == kind,
            "its own mediaType and its content differ on whether it is an index or a manifest"
        );
        Ok(Self { value, fault, kind })
    }

    /// Refuses a document that its descriptor calls something else.
    pub(crate) fn expect(&self, kind: Kind) -> Result<()> {
        ensure!(
            self.kind.is_none_or(|is| is == kind),
            "its descriptor and its content differ on whether it is an index or a manifest"
        );
        Ok(())
    }

    /// The entries of an index. Those that are not descriptors are counted apart.
    pub(crate) fn entries(&self) -> Result<Entries> {
        self.check()?;
        let mut entries = Entries::default();
        for (i, entry) in list(&self.value, "manifests")?.iter().enumerate() {
            match Descriptor::parse(entry) {
                Ok(entry) => entries.good.push(entry),
                Err(why) => {
                    entries.bad += 1;
                    if entries.faults.len() < FEW {
                        entries.faults.push((i + 1, format!("{why:#}")));
                    }
                }
            }
        }
        Ok(entries)
    }

    /// The document as a manifest. An error means that it does not have the form of one.
    pub(crate) fn manifest(&self) -> Result<Manifest> {
        self.check()?;
        let config = field(&self.value, "config")?.context("it has no config")?;
        let layers = list(&self.value, "layers")?.iter().enumerate();
        let layer = |(i, layer)| {
            Descriptor::parse(layer).with_context(|| format!("the descriptor of layer {}", i + 1))
        };
        Ok(Manifest {
            config: Descriptor::parse(config).context("the config's descriptor")?,
            layers: layers.map(layer).collect::<Result<_>>()?,
            artifact_type: text(&self.value, "artifactType")?.unwrap_or_default().to_owned(),
        })
    }

    fn check(&self) -> Result<()> {
        if let Some(fault) = &self.fault {
            bail!("it is not JSON: {fault}");
        }
        ensure!(self.value.is_object(), "it is {}, and not an object", kind(&self.value));
        match field(&self.value, "schemaVersion")? {
            None => Ok(()),
            Some(version) if version == 2 => Ok(()),
            Some(version) if version == 1 => bail!(
                "it is a manifest of Docker's schema 1, which has no config; pulling it with an old \
                 docker and pushing it again makes an image of it"
            ),
            Some(other) => bail!("its schemaVersion is {}, and not 2", shown(&other.to_string())),
        }
    }
}

/// A manifest: what an image or an artifact consists of.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The config's blob.
    pub config: Descriptor,
    /// The layers' blobs, the lowest layer first.
    pub layers: Vec<Descriptor>,
    /// The type of an artifact; empty if the manifest does not say one.
    pub artifact_type: String,
}

impl Manifest {
    /// Refuses a manifest that is an artifact's by the media type of its config.
    ///
    /// # Errors
    /// When that is not one of an image's config.
    pub fn is_of_image(&self) -> Result<()> {
        let media_type = &self.config.media_type;
        ensure!(
            CONFIGS.contains(&&**media_type),
            "its config has the media type {}, so it is an artifact",
            shown(media_type)
        );
        Ok(())
    }

    /// Whether it says that it is an artifact, though its config is an image's.
    pub fn claims_artifact(&self) -> bool {
        !CONFIGS.contains(&&*self.artifact_type)
    }
}

/// A descriptor, by which an index or a manifest refers to a blob.
#[derive(Clone, Debug)]
pub struct Descriptor {
    /// Media type of the blob; empty if the descriptor has none.
    pub media_type: String,
    /// Digest of the blob.
    pub digest: Digest,
    /// Bytes of the blob.
    pub size: u64,
    /// Annotations by name; those that are not text are left out.
    pub annotations: BTreeMap<String, String>,
    /// URLs at which the blob is as well.
    pub urls: Vec<String>,
    /// The platform that the blob is for; None if the descriptor does not say.
    pub platform: Option<Declared>,
}

impl Descriptor {
    fn parse(value: &Value) -> Result<Self> {
        ensure!(value.is_object(), "it is {}, and not an object", kind(value));
        let digest = text(value, "digest")?.context("it has no digest")?;
        let digest = digest.parse().map_err(|_| {
            anyhow!("its digest \"{}\" is not sha256: and 64 hex digits", shown(digest))
        })?;
        let size = field(value, "size")?.context("it has no size")?;
        let size =
            size.as_u64().with_context(|| format!("its size is {}", shown(&size.to_string())))?;
        let annotations = json::object(value, "annotations")?.into_iter().flatten();
        let annotations = annotations
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect();
        let platform = json::object(value, "platform")?.is_some();
        let platform = field(value, "platform")?.filter(|_| platform).map(Declared::parse);
        Ok(Self {
            media_type: text(value, "mediaType")?.unwrap_or_default().to_owned(),
            digest,
            size,
            annotations,
            urls: json::texts(value, "urls")?,
            platform: platform.transpose()?,
        })
    }

    /// Whether the descriptor marks its blob as an attestation.
    pub fn is_attestation(&self) -> bool {
        self.annotations.contains_key(DOCKER_REFERENCE)
            || self.platform.as_ref().is_some_and(Declared::is_unknown)
    }
}

/// What an image needs to run, as a descriptor or a config declares it. A text is empty if
/// it is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Declared {
    pub os: String,
    pub architecture: String,
    pub variant: String,
    /// `os.features`.
    pub features: Vec<String>,
}

impl Declared {
    pub fn parse(value: &Value) -> Result<Self> {
        let own = |name| text(value, name).map(|text| text.unwrap_or_default().to_owned());
        let mut features = json::texts(value, "os.features")?;
        features.retain(|feature| !feature.is_empty());
        Ok(Self {
            os: own("os")?,
            architecture: own("architecture")?,
            // A variant that is not text is ignored, as one of odd characters is.
            variant: own("variant").unwrap_or_default(),
            features,
        })
    }

    /// Whether it is the platform `unknown`, by which builders mark what they add to an index.
    pub fn is_unknown(&self) -> bool {
        [&self.os, &self.architecture].iter().any(|text| text.eq_ignore_ascii_case("unknown"))
    }

    /// The platform, where an absent operating system means Linux; `None` if the architecture
    /// is absent, or one of the two is not a valid name.
    pub fn platform(&self) -> Option<Platform> {
        let os = if self.os.is_empty() { "linux" } else { &self.os };
        Platform::of_image(os, &self.architecture, &self.variant)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(value: &Value) -> Result<Document> {
        Document::parse(value.to_string().as_bytes())
    }

    fn descriptor() -> Value {
        json!({ "mediaType": MANIFEST, "digest": Digest::of(b"").to_string(), "size": 0 })
    }

    #[test]
    fn what_two_programs_would_take_for_two_things_is_refused() {
        // CVE-2021-41190; containerd and Docker refuse the same.
        for (value, says) in [
            (
                json!({ "manifests": [], "layers": [], "config": {} }),
                "both `manifests` and `config`",
            ),
            (json!({ "manifests": [], "layers": [] }), "both `manifests` and `layers`"),
            (json!({ "manifests": [], "fsLayers": [] }), "both `manifests` and `fsLayers`"),
            (json!({ "mediaType": INDEX, "layers": [] }), "its own mediaType"),
            (json!({ "mediaType": MANIFEST, "manifests": [] }), "its own mediaType"),
        ] {
            let error = parse(&value).err().unwrap().to_string();
            assert!(error.contains(says), "{error}");
        }
        let manifest = parse(&json!({ "layers": null, "manifests": null, "config": {} })).unwrap();
        assert_eq!(manifest.kind, Some(Kind::Manifest));
        assert!(manifest.expect(Kind::Index).is_err());
        assert_eq!(Document::parse(b"\x00 no JSON").unwrap().kind, None);
    }

    #[test]
    fn one_key_in_two_spellings_is_refused() {
        // Go's decoder takes the later one, another the exact one.
        let image = json!({ "config": descriptor(), "layers": [] });
        for (key, other) in [
            ("manifests", "Manifests"),
            ("config", "Config"),
            ("config", "CONFIG"),
            ("layers", "layerS"),
            ("layers", "layer\u{17f}"),
            ("mediaType", "mediatype"),
            ("fsLayers", "fslayers"),
        ] {
            for (first, second) in [(json!(null), json!([])), (json!([]), json!(null))] {
                let mut value = image.clone();
                value[key] = first;
                value[other] = second;
                let error = parse(&value).err().map(|error| format!("{error:#}"));
                let error = error.unwrap_or_default();
                assert!(error.contains("two spellings"), "{value}: {error}");
            }
        }
        for (key, other) in [("digest", "Digest"), ("size", "SIZE"), ("mediaType", "mediatype")] {
            let mut entry = descriptor();
            entry[other] = entry[key].clone();
            let index = parse(&json!({ "manifests": [entry, descriptor()] })).unwrap();
            let entries = index.entries().unwrap();
            assert_eq!((entries.good.len(), entries.bad), (1, 1), "{key}");
        }
        // One spelling is enough, whichever.
        let odd = json!({ "Config": descriptor(), "LAYERS": [descriptor()] });
        assert_eq!(parse(&odd).unwrap().manifest().unwrap().layers.len(), 1);
    }

    #[test]
    fn entries_are_judged_one_by_one() {
        let mut odd = descriptor();
        odd["digest"] = "sha512:12".into();
        let mut huge = descriptor();
        huge["size"] = (-1).into();
        let index = json!({ "manifests": [odd, null, 7, huge, {}, descriptor()] });
        let entries = parse(&index).unwrap().entries().unwrap();
        assert_eq!((entries.good.len(), entries.bad), (1, 5));
        let places: Vec<usize> = entries.faults.iter().map(|(place, _)| *place).collect();
        assert_eq!(places, [1, 2, 3, 4, 5]);
        let none = parse(&json!({ "manifests": null })).unwrap().entries().unwrap();
        assert_eq!((none.good.len(), none.bad), (0, 0));
        let many = parse(&json!({ "manifests": vec![0; 1000] })).unwrap().entries().unwrap();
        assert_eq!((many.bad, many.faults.len()), (1000, FEW));
        assert!(parse(&json!({ "manifests": 7 })).unwrap().entries().is_err());
    }

    #[test]
    fn manifests_may_lack_what_is_empty() {
        let manifest = json!({ "config": descriptor(), "layers": null, "annotations": null });
        assert!(parse(&manifest).unwrap().manifest().unwrap().layers.is_empty());
        let of_artifact = parse(&manifest).unwrap().manifest().unwrap();
        assert!(of_artifact.is_of_image().is_err());
        for (version, says) in [(1, "schema 1"), (3, "its schemaVersion is 3")] {
            let value = json!({ "schemaVersion": version, "config": descriptor() });
            let error = parse(&value).unwrap().manifest().unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
