//! Archives: the files of a commit as a tar or zip file, made piece by piece.
//!
//! | file | owns |
//! |---|---|
//! | `entries` | which files and directories go in, in which order |
//! | `attributes` | what `.gitattributes` say |
//! | `convert` | line ends and `$Id$` |
//! | `tar`, `zip` | the formats |
//! | `write` | an archive that is being written |
//!
//! The same commit always becomes the same bytes; a tar file has those of `git archive`. An archive that waits for its
//! client holds the directories on the way, the file that it is in, and of a zip file a few bytes an entry; for all of it
//! it asks for leave first. It holds no thread.
//!
//! Deliberately absent: `export-subst`, `working-tree-encoding` and filter programs.

mod attributes;
mod convert;
mod entries;
mod tar;
mod write;
mod zip;

pub use attributes::fuzz_attributes;
pub(crate) use write::{Archive, Contents, Step};

/// Of what kind an archive is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Tar,
    TarGzip,
    Zip,
}

impl Format {
    /// Splits a name such as `v1.0.tar.gz` into what it names and the format.
    pub(crate) fn split(name: &str) -> Option<(&str, Self)> {
        let formats = [(".tar.gz", Self::TarGzip), (".tgz", Self::TarGzip), (".tar", Self::Tar), (".zip", Self::Zip)];
        let (rev, format) = formats.iter().find_map(|(ending, format)| Some((name.strip_suffix(ending)?, *format)))?;
        (!rev.is_empty()).then_some((rev, format))
    }

    /// How names of such files end.
    pub(crate) fn ending(self) -> &'static str {
        match self {
            Self::Tar => "tar",
            Self::TarGzip => "tar.gz",
            Self::Zip => "zip",
        }
    }

    /// The media type.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Tar => "application/x-tar",
            Self::TarGzip => "application/gzip",
            Self::Zip => "application/zip",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Format;

    #[test]
    fn names_end_in_their_format() {
        let check = |name: &str, expected: Option<(&str, Format)>| assert_eq!(Format::split(name), expected, "{name}");
        check("main.tar.gz", Some(("main", Format::TarGzip)));
        check("main.tgz", Some(("main", Format::TarGzip)));
        check("topic/x.tar", Some(("topic/x", Format::Tar)));
        check("x.tar.zip", Some(("x.tar", Format::Zip)));
        for name in ["main", ".zip", "main.gz", "", "main.rar"] {
            check(name, None);
        }
    }
}
