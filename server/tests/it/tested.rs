//! The object format that the scenarios run in: SHA-1, or the one that `GOVC_TEST_OBJECT_FORMAT` names.
//!
//! `formats` runs a part of them a second time with SHA-256; with the variable, any can be.

use std::sync::OnceLock;

use govc_engine::{Kind, ObjectFormat, Oid, hash_object};

/// The variable that names another format.
pub(crate) const VARIABLE: &str = "GOVC_TEST_OBJECT_FORMAT";

/// What repositories are made with, by git and by the server.
pub(crate) fn format() -> ObjectFormat {
    static FORMAT: OnceLock<ObjectFormat> = OnceLock::new();
    *FORMAT.get_or_init(|| match std::env::var(VARIABLE) {
        Ok(word) => word.parse().expect("sha1 or sha256"),
        Err(_) => ObjectFormat::default(),
    })
}

/// The id that stands for no object.
pub(crate) fn null() -> Oid {
    format().null()
}

/// The id of these digits, over and over.
pub(crate) fn id_of(digits: &str) -> String {
    digits.repeat(format().hex_len() / digits.len())
}

/// The id of an object.
pub(crate) fn hash(kind: Kind, data: &[u8]) -> Oid {
    hash_object(format(), kind, data).expect("an ordinary object")
}

/// The versions of bundles that can hold such ids.
pub(crate) fn bundle_versions() -> &'static [&'static str] {
    match format() {
        ObjectFormat::Sha1 => &["2", "3"],
        ObjectFormat::Sha256 => &["3"],
    }
}

/// What a bundle of these ids begins with, as git writes it.
pub(crate) fn bundle_signature() -> &'static str {
    match format() {
        ObjectFormat::Sha1 => "# v2 git bundle\n",
        ObjectFormat::Sha256 => "# v3 git bundle\n@object-format=sha256\n",
    }
}

/// The capability that clients name the format by, after a blank.
pub(crate) fn capability() -> String {
    format!(" object-format={}", format())
}
