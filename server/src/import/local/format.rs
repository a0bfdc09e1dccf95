//! What the ids of a repository are, from its configuration: `extensions.objectFormat`, SHA-1 where that is absent.
//!
//! Of a folder without objects nothing else tells it. No other setting is looked at, and none is included from elsewhere.
//! Source: git's `Documentation/config.adoc`, `setup.c` (`check_repo_format`).

use std::path::Path;

use govc_engine::{Error, ObjectFormat, Result};

use super::read_small;

pub(super) fn read(path: &Path, common: &Path) -> Result<ObjectFormat> {
    let text = read_small(&common.join("config"))?.unwrap_or_default();
    let Some(word) = stated(&text) else { return Ok(ObjectFormat::default()) };
    let word = String::from_utf8_lossy(&word).into_owned();
    word.parse().map_err(|error: Error| error.context(format!("cannot import {}", path.display())))
}

/// The value of `extensions.objectFormat`.
fn stated(text: &[u8]) -> Option<Vec<u8>> {
    let (mut is_meant, mut stated) = (false, None);
    for line in text.split(|byte| *byte == b'\n') {
        let mut line = line.trim_ascii();
        if let Some(header) = line.strip_prefix(b"[") {
            let end = header.iter().position(|byte| *byte == b']').unwrap_or(header.len());
            let (section, rest) = header.split_at(end);
            is_meant = section.trim_ascii().eq_ignore_ascii_case(b"extensions");
            // A setting may stand behind the header of its section.
            line = rest.get(1..).unwrap_or_default().trim_ascii();
        }
        let mut halves = line.splitn(2, |byte| *byte == b'=');
        let (key, value) = (halves.next().unwrap_or_default(), halves.next());
        if let Some(value) = value.filter(|_| is_meant && key.trim_ascii().eq_ignore_ascii_case(b"objectformat")) {
            let value = value.split(|byte| matches!(byte, b'#' | b';')).next().unwrap_or_default();
            stated =
                Some(value.iter().copied().filter(|byte| *byte != b'"').collect::<Vec<u8>>().trim_ascii().to_vec());
        }
    }
    stated
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_found_as_git_finds_it() {
        let sha256 = |text: &str| stated(text.as_bytes()).as_deref() == Some(b"sha256");
        assert!(sha256("[core]\n\trepositoryformatversion = 1\n[extensions]\n\tobjectformat = sha256\n"));
        assert!(sha256("[EXTENSIONS]\r\nObjectFormat=\"sha256\" ; so it is\r\n[core]\nbare = true\n"));
        assert!(sha256("[extensions] objectFormat = sha256"));
        assert!(sha256("[extensions]\nobjectformat = sha1\nobjectformat = sha256\n"));
        for other in [
            "",
            "[core]\nobjectformat = sha256\n",
            "[extensions \"x\"]\nobjectformat = sha256\n",
            "[extensions]\n[core]\nobjectformat = sha256\n",
            "[extensions]\n# objectformat = sha256\nobjectformat\n",
            "[extensions",
            "[]=",
        ] {
            assert_eq!(stated(other.as_bytes()), None, "{other}");
        }
    }
}
