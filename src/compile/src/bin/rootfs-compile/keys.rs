//! `keygen`, `sign`, and the keys that other commands ask for.

use anyhow::Result;
use bundle::sign::{self, PASSWORD, SecretKey};
use bundle::signature::Key;

use crate::args::{KeyArgs, Keygen, Sign};
use crate::say;

fn password() -> Option<String> {
    std::env::var(PASSWORD).ok().filter(|password| !password.is_empty())
}

pub(crate) fn keygen(args: &Keygen) -> Result<u8> {
    let public = sign::generate(&args.output, password().as_deref())?;
    let (secret, public) = (args.output.display(), public.display());
    say(&format!("{secret} signs (keep it secret), {public} verifies"));
    Ok(0)
}

pub(crate) fn sign(args: &Sign) -> Result<u8> {
    let key = SecretKey::load(&args.key, password())?;
    sign::sign(args.read.bundle(&args.dir)?, &key)?;
    Ok(0)
}

/// The public keys that were named.
pub(crate) fn load(args: &KeyArgs) -> Result<Vec<Key>> {
    args.key.iter().map(|path| Key::load(path)).collect()
}
