//! What pushes are signed with, and who may sign them.

use std::path::PathBuf;
use std::time::Duration;

use super::sources::Layers;
use super::{ConfigError, values};

/// Settings `git.allowed_signers` and `git.cert_nonce_slop`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningConfig {
    /// The file of the SSH keys that may sign pushes.
    pub allowed_signers: Option<PathBuf>,
    /// How old a certificate's nonce may be that comes over another connection than it was given out on.
    pub nonce_slop: Duration,
}

impl Default for SigningConfig {
    fn default() -> Self {
        // Hooks of the client run between the two, and somebody may have to find a key.
        Self { allowed_signers: None, nonce_slop: Duration::from_secs(15 * 60) }
    }
}

/// Both settings.
pub(super) fn signing(layers: &Layers) -> Result<SigningConfig, ConfigError> {
    let mut signing = SigningConfig::default();
    layers.set("git.allowed_signers", &mut signing.allowed_signers, |text| values::path(text).map(Some))?;
    layers.set("git.cert_nonce_slop", &mut signing.nonce_slop, values::duration)?;
    Ok(signing)
}
