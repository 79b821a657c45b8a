//! Image configs as they occur in the wild.
//!
//! The specification's types are strict, the tools that read configs are not: they are
//! written in Go, whose JSON decoder takes null for an absent value. This module accepts
//! what Docker and containerd accept, and returns the specification's types.

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use oci_spec::image::{
    Arch, Config, ConfigBuilder, ImageConfiguration, ImageConfigurationBuilder, Os, RootFsBuilder,
};
use serde_json::Value;

use crate::document::Declared;
use crate::json::{self, field, kind, shown, text, texts};
use crate::platform::Platform;

/// A config, and what had to be guessed.
pub(crate) struct Read {
    pub config: ImageConfiguration,
    pub platform: Platform,
    pub warnings: Vec<String>,
}

/// The platform that the config `bytes` declares.
pub(crate) fn declared(bytes: &[u8]) -> Result<Declared> {
    let value: Value =
        crate::foreign_json::from_slice(bytes).context("the image config is not JSON")?;
    ensure!(value.is_object(), "the image config is {}, and not an object", kind(&value));
    Declared::parse(&value).context("the image config")
}

/// Reads the config of an image that was chosen for `wanted`. `by_index` is the platform
/// that the index gives for it.
pub(crate) fn read(bytes: &[u8], by_index: Option<&Platform>, wanted: &Platform) -> Result<Read> {
    let declared = declared(bytes)?;
    let mut warnings = Vec::new();
    let platform = platform(&declared, by_index, wanted, &mut warnings)?;
    let value = crate::foreign_json::from_slice(bytes).context("the image config is not JSON")?;
    let config = normal(&value, &platform).context("the image config")?;
    Ok(Read { config, platform, warnings })
}

/// Decides which platform the image is for. What an index says wins over the config, as
/// with containerd and Docker: configs of images that were built on another machine often
/// say too little.
fn platform(
    declared: &Declared,
    by_index: Option<&Platform>,
    wanted: &Platform,
    warnings: &mut Vec<String>,
) -> Result<Platform> {
    let own = declared.platform();
    if own.is_some() && !declared.variant.is_empty() {
        let plain = Platform::of_image("linux", "any", &declared.variant);
        if plain.is_some_and(|plain| plain.variant.is_none()) {
            let variant = shown(&declared.variant);
            warnings.push(format!(
                "the image config has the variant \"{variant}\", which is not valid; it is ignored"
            ));
        }
    }
    match (own, by_index) {
        (Some(own), Some(platform)) => {
            if !own.is_same_machine(platform) {
                warnings.push(format!(
                    "the index says that the image is for {platform}, and its config that it is for \
                     {own}; the index counts"
                ));
            }
            Ok(platform.clone())
        }
        (None, Some(platform)) => Ok(platform.clone()),
        (Some(own), None) => {
            if declared.os.is_empty() {
                warnings.push(format!(
                    "the image config does not name an operating system; it is taken for {own}"
                ));
            }
            // An image that stands alone is not refused for its variant.
            ensure!(own.is_same_machine(wanted), "the image is for {own}, not {wanted}");
            Ok(own)
        }
        (None, None) if declared.architecture.is_empty() => {
            warnings.push(format!(
                "the image config does not name an architecture; it is taken for {wanted}, which \
                 was asked for"
            ));
            let linux = declared.os.is_empty() || declared.os.eq_ignore_ascii_case(&wanted.os);
            ensure!(linux, "the image is for {}, not {wanted}", shown(&declared.os));
            Ok(wanted.clone())
        }
        (None, None) => bail!(
            "the image is for {}/{}, not {wanted}",
            shown(&declared.os),
            shown(&declared.architecture)
        ),
    }
}

/// Converts a config to the specification's types.
fn normal(value: &Value, platform: &Platform) -> Result<ImageConfiguration> {
    let nothing = Value::Null;
    let rootfs = match json::object(value, "rootfs")? {
        Some(_) => field(value, "rootfs")?.unwrap_or(&nothing),
        None => &nothing,
    };
    // config.md: "MUST generate an error if they encounter a unknown value".
    match text(rootfs, "type").context("rootfs")? {
        None | Some("" | "layers") => {}
        Some(other) => bail!("rootfs.type is \"{}\"; only \"layers\" is known", shown(other)),
    }
    let diff_ids = texts(rootfs, "diff_ids").context("rootfs")?;
    let rootfs = RootFsBuilder::default().typ("layers").diff_ids(diff_ids).build()?;
    let mut builder = ImageConfigurationBuilder::default()
        .os(Os::from(&*platform.os))
        .architecture(Arch::from(&*platform.architecture))
        .rootfs(rootfs);
    if let Some(variant) = &platform.variant {
        builder = builder.variant(variant.clone());
    }
    if let Some(created) = text(value, "created")? {
        builder = builder.created(created);
    }
    if json::object(value, "config")?.is_some() {
        let config = field(value, "config")?.unwrap_or(&nothing);
        builder = builder.config(run(config).context("config")?);
    }
    builder.build().map_err(|error| anyhow!("{error}"))
}

/// Converts the field `config`, which says how to run the image.
fn run(value: &Value) -> Result<Config> {
    let mut builder = ConfigBuilder::default();
    if let Some(user) = text(value, "User")? {
        builder = builder.user(user);
    }
    if let Some(dir) = text(value, "WorkingDir")? {
        builder = builder.working_dir(dir);
    }
    if let Some(signal) = text(value, "StopSignal")? {
        builder = builder.stop_signal(signal);
    }
    if field(value, "Env")?.is_some() {
        builder = builder.env(texts(value, "Env")?);
    }
    if let Some(words) = words(value, "Entrypoint")? {
        builder = builder.entrypoint(words);
    }
    if let Some(words) = words(value, "Cmd")? {
        builder = builder.cmd(words);
    }
    // The values are empty objects or null: only the keys carry information.
    let names = |name| -> Result<Option<Vec<String>>> {
        Ok(json::object(value, name)?.map(|object| object.keys().cloned().collect()))
    };
    if let Some(ports) = names("ExposedPorts")? {
        builder = builder.exposed_ports(ports);
    }
    if let Some(volumes) = names("Volumes")? {
        builder = builder.volumes(volumes);
    }
    if let Some(labels) = json::object(value, "Labels")? {
        let label = |(key, value): (&String, &Value)| match value {
            Value::Null => Ok((key.clone(), String::new())),
            Value::String(text) => Ok((key.clone(), text.clone())),
            other => bail!("the label \"{}\" is {}, and not text", shown(key), kind(other)),
        };
        let labels = labels.iter().map(label).collect::<Result<Vec<_>>>()?;
        builder = builder.labels(labels.into_iter().collect::<std::collections::HashMap<_, _>>());
    }
    builder.build().map_err(|error| anyhow!("{error}"))
}

/// A command: a list of words, or one word, as Docker's StrSlice has it.
fn words(value: &Value, name: &str) -> Result<Option<Vec<String>>> {
    match field(value, name)? {
        None => Ok(None),
        Some(Value::String(word)) if word.is_empty() => Ok(None),
        Some(Value::String(word)) => Ok(Some(vec![word.clone()])),
        Some(_) => texts(value, name).map(Some),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn wanted() -> Platform {
        "linux/amd64".parse().unwrap()
    }

    fn try_read(value: &Value) -> Result<Read> {
        read(value.to_string().as_bytes(), None, &wanted())
    }

    #[test]
    fn configs_of_the_wild_mean_something() {
        let read = try_read(&json!({
            "os": "linux", "architecture": "x86_64", "variant": "", "created": null, "history": 7,
            "config": {
                "entrypoint": "/bin/app", "Cmd": "one word", "Env": null, "User": null,
                "Volumes": { "/data": null }, "ExposedPorts": { "80/tcp": null, "81": {} },
                "Labels": { "a": null, "b": "c" }, "StopSignal": null, "OnBuild": null,
                "Healthcheck": { "Test": null },
            },
            "rootfs": { "diff_ids": null },
        }));
        let Read { config, platform, warnings } = read.unwrap();
        assert_eq!((platform, warnings), (wanted(), vec![]));
        assert!(config.rootfs().diff_ids().is_empty());
        let run = config.config().as_ref().unwrap();
        assert_eq!(run.entrypoint().as_ref().unwrap(), &["/bin/app"]);
        assert_eq!(run.cmd().as_ref().unwrap(), &["one word"]);
        assert_eq!(run.volumes().as_ref().unwrap(), &["/data"]);
        assert_eq!(run.exposed_ports().as_ref().unwrap().len(), 2);
        assert_eq!(run.labels().as_ref().unwrap()["a"], "");
        assert_eq!((run.env(), run.user()), (&None, &None));
        for rootfs in [json!(null), json!({}), json!({ "type": "" }), json!({ "type": null })] {
            let config = json!({ "os": "linux", "architecture": "amd64", "rootfs": rootfs });
            assert!(try_read(&config).is_ok(), "{config}");
        }
    }

    #[test]
    fn what_is_guessed_is_said() {
        for (config, by_index, is, warning) in [
            (json!({ "os": "linux" }), None, "linux/amd64", Some("architecture")),
            (json!({}), None, "linux/amd64", Some("architecture")),
            (json!({ "architecture": "amd64" }), None, "linux/amd64", Some("operating system")),
            (json!({}), Some("linux/arm/v6"), "linux/arm/v6", None),
            (json!({ "architecture": "arm" }), Some("linux/arm/v6"), "linux/arm/v6", None),
            (json!({ "architecture": "amd64" }), Some("linux/arm64"), "linux/arm64", Some("index")),
            (
                json!({ "os": "linux", "architecture": "amd64", "variant": "a b" }),
                None,
                "linux/amd64",
                Some("variant \"a b\""),
            ),
            (
                json!({ "os": "linux", "architecture": "amd64", "variant": "v3" }),
                None,
                "linux/amd64/v3",
                None,
            ),
        ] {
            let by_index: Option<Platform> = by_index.map(|text: &str| text.parse().unwrap());
            let read = read(config.to_string().as_bytes(), by_index.as_ref(), &wanted()).unwrap();
            assert_eq!(read.platform.to_string(), is, "{config}");
            match warning {
                None => assert_eq!(read.warnings, [""; 0]),
                Some(word) => assert!(read.warnings[0].contains(word), "{:?}", read.warnings),
            }
        }
    }

    #[test]
    fn what_no_tool_takes_is_refused() {
        let with = |key: &str, value: Value| {
            let mut config = json!({ "os": "linux", "architecture": "amd64", "rootfs": {} });
            config[key] = value;
            try_read(&config).err().map(|error| format!("{error:#}"))
        };
        for (key, value, says) in [
            ("rootfs", json!({ "type": "foo" }), "rootfs.type is \"foo\""),
            ("rootfs", json!({ "type": 7 }), "type is a number"),
            ("rootfs", json!([]), "rootfs is a list"),
            ("architecture", json!("arm64"), "the image is for linux/arm64, not linux/amd64"),
            ("architecture", json!("\u{1b}x"), "the image is for linux/\\u{1b}x"),
            ("os", json!("windows"), "the image is for windows/amd64"),
            ("os", json!(7), "os is a number"),
            ("config", json!({ "User": 7 }), "User is a number"),
            ("config", json!({ "Env": "A=1" }), "Env is text, and not a list"),
            ("config", json!({ "Labels": { "a": 1 } }), "label \"a\" is a number"),
            ("config", json!({ "Volumes": ["/a"] }), "Volumes is a list"),
        ] {
            let error = with(key, value).unwrap_or_default();
            assert!(error.contains(says), "{key}: {error}");
        }
    }
}
