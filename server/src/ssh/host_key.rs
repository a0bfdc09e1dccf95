//! The key by which clients know the server: made at the first start and kept in the data folder, or the one of a setting.

use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::keys::{HashAlg, PrivateKey};

/// The key's file in the data folder.
const FILE_NAME: &str = "ssh_host_ed25519_key";

/// Far more than a key takes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The key in a file that somebody else has made. Blocks.
///
/// # Errors
/// When it cannot be read or used; the text names the file and the setting.
pub(super) fn own(path: &Path) -> Result<PrivateKey, String> {
    read(path).map_err(|error| format!("server.ssh_host_key: the file {} cannot be used: {error}", path.display()))
}

/// The key in the data folder, made now if there is none. Blocks.
///
/// # Errors
/// When it cannot be made, read or used; the text names the file.
pub(super) fn kept(folder: &Path) -> Result<PrivateKey, String> {
    let path = folder.join(FILE_NAME);
    let made = match path.try_exists() {
        Ok(true) => Ok(()),
        Ok(false) => make(folder, &path),
        Err(error) => Err(error),
    };
    made.map_err(|error| format!("the SSH host key {} cannot be made: {error}", path.display()))?;
    read(&path).map_err(|error| format!("the SSH host key {} cannot be used: {error}", path.display()))
}

/// A key for this start only.
///
/// # Errors
/// When there are no random numbers.
pub(super) fn fleeting() -> Result<PrivateKey, String> {
    generate().map_err(|error| format!("an SSH host key cannot be made: {error}"))
}

/// What people compare: `SHA256:...`.
pub(super) fn fingerprint(key: &PrivateKey) -> String {
    key.public_key().fingerprint(HashAlg::Sha256).to_string()
}

fn generate() -> io::Result<PrivateKey> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(io::Error::other)?;
    let mut key = PrivateKey::from(Ed25519Keypair::from_seed(&seed));
    key.set_comment("govc");
    Ok(key)
}

/// Makes a key that is there whole and durable, or not at all, and that only the server's user may read.
fn make(folder: &Path, path: &Path) -> io::Result<()> {
    let text = generate()?.to_openssh(LineEnding::LF).map_err(|error| io::Error::other(error.to_string()))?;
    // Made with mode 0600.
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    match file.persist_noclobber(path) {
        Ok(_) => std::fs::File::open(folder)?.sync_all(),
        // Another process that uses the folder was faster: its key is as good.
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error.error),
    }
}

fn read(path: &Path) -> io::Result<PrivateKey> {
    let file = std::fs::File::open(path)?;
    if file.metadata()?.permissions().mode() & 0o007 != 0 {
        tracing::warn!(path = %path.display(), "everybody on this machine may read the SSH host key");
    }
    let text = io::read_to_string(io::Read::take(file, FILE_BYTES_MAX))?;
    let key = russh::keys::decode_secret_key(&text, None).map_err(|error| io::Error::other(error.to_string()))?;
    if key.is_encrypted() {
        return Err(io::Error::other("it is encrypted; it must be stored without a passphrase"));
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_for_the_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let first = kept(folder.path()).unwrap();
        let path = folder.path().join(FILE_NAME);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fingerprint(&kept(folder.path()).unwrap()), fingerprint(&first));
        assert_eq!(fingerprint(&own(&path).unwrap()), fingerprint(&first));
        let entries = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(entries, 1, "nothing else is left in the folder");
        assert_ne!(fingerprint(&fleeting().unwrap()), fingerprint(&first));
    }

    #[test]
    fn a_file_that_is_no_key_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let missing = own(&path).unwrap_err();
        assert!(missing.contains("server.ssh_host_key") && missing.contains("key"), "{missing}");
        std::fs::write(&path, "nonsense").unwrap();
        assert!(own(&path).is_err());
        std::fs::write(folder.path().join(FILE_NAME), "nonsense").unwrap();
        assert!(kept(folder.path()).is_err(), "a damaged key is not replaced by another");
        assert_eq!(std::fs::read_to_string(folder.path().join(FILE_NAME)).unwrap(), "nonsense");
    }
}
