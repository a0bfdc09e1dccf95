//! Which files people look for first: sources, then texts and settings, then tests, then what others or machines wrote.

/// How important a file is by its path alone; results come in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub(crate) enum Tier {
    /// Source code, and whatever is not below.
    Source,
    /// Texts, data and settings.
    Text,
    /// Tests and examples.
    Test,
    /// Copies of others' code, what machines made, minified files.
    Foreign,
}

impl Tier {
    /// In their order.
    pub(crate) const ALL: [Self; 4] = [Self::Source, Self::Text, Self::Test, Self::Foreign];

    /// What the files below a directory of this name are at best.
    pub(crate) fn of_dir(name: &[u8]) -> Self {
        match name.to_ascii_lowercase().as_slice() {
            b"vendor" | b"vendored" | b"third_party" | b"thirdparty" | b"third-party" | b"node_modules" | b"dist"
            | b"bower_components" | b"generated" | b"__generated__" | b"external" => Self::Foreign,
            b"test" | b"tests" | b"testing" | b"testdata" | b"test-data" | b"__tests__" | b"spec" | b"specs"
            | b"fixtures" | b"__fixtures__" | b"__snapshots__" | b"mocks" | b"__mocks__" | b"examples" | b"example"
            | b"samples" | b"benchmarks" | b"benches" => Self::Test,
            b"doc" | b"docs" | b"documentation" | b"man" | b"po" | b"locale" | b"locales" | b"i18n" => Self::Text,
            _ => Self::Source,
        }
    }

    /// What a file of this name is, in a directory that does not say more.
    pub(crate) fn of_file(name: &[u8]) -> Self {
        let name = name.to_ascii_lowercase();
        let ends = |with: &[&str]| with.iter().any(|end| name.ends_with(end.as_bytes()));
        let stem_end = name.iter().rposition(|byte| *byte == b'.').unwrap_or(name.len());
        let stem = name.get(..stem_end).unwrap_or_default();
        if ends(&[
            ".min.js",
            ".min.css",
            ".lock",
            ".map",
            ".snap",
            "-lock.json",
            "-lock.yaml",
            ".pb.go",
            "_pb2.py",
            ".sum",
        ]) {
            return Self::Foreign;
        }
        let is_test = [b"_test".as_slice(), b".test", b"-test", b"_spec", b".spec", b"_tests"]
            .iter()
            .any(|end| stem.ends_with(end));
        if is_test || stem.starts_with(b"test_") || stem == b"test" || stem == b"tests" {
            return Self::Test;
        }
        let texts = [
            ".md",
            ".txt",
            ".rst",
            ".adoc",
            ".asciidoc",
            ".org",
            ".html",
            ".htm",
            ".json",
            ".xml",
            ".yml",
            ".yaml",
            ".toml",
            ".ini",
            ".cfg",
            ".conf",
            ".csv",
            ".tsv",
            ".svg",
            ".po",
            ".pot",
            ".tex",
            ".log",
            ".1",
            ".5",
            ".7",
            ".8",
        ];
        if ends(&texts) || !name.contains(&b'.') && name.iter().all(|byte| !byte.is_ascii_lowercase()) {
            return Self::Text;
        }
        Self::Source
    }
}

/// A set of tiers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tiers(u8);

impl Tiers {
    /// Adds one.
    pub(crate) fn insert(&mut self, tier: Tier) {
        self.0 |= 1 << tier as u8;
    }

    /// Adds those of others.
    pub(crate) fn unite(&mut self, others: Self) {
        self.0 |= others.0;
    }

    /// Whether it has one.
    pub(crate) fn contains(self, tier: Tier) -> bool {
        self.0 >> tier as u8 & 1 == 1
    }

    /// What they become below a directory of this tier, above which nothing there is.
    pub(crate) fn below(self, tier: Tier) -> Self {
        let mut tiers = Self::default();
        Tier::ALL.into_iter().filter(|own| self.contains(*own)).for_each(|own| tiers.insert(own.max(tier)));
        tiers
    }
}

#[cfg(test)]
mod tests {
    use super::{Tier, Tiers};

    #[test]
    fn names_say_what_files_are() {
        for (name, tier) in [
            ("main.rs", Tier::Source),
            ("Makefile", Tier::Source),
            ("README.md", Tier::Text),
            ("package.json", Tier::Text),
            ("package-lock.json", Tier::Foreign),
            ("jquery.min.js", Tier::Foreign),
            ("server_test.go", Tier::Test),
            ("app.spec.ts", Tier::Test),
            ("test_parser.py", Tier::Test),
            ("contest.c", Tier::Source),
        ] {
            assert_eq!(Tier::of_file(name.as_bytes()), tier, "{name}");
        }
        assert_eq!(Tier::of_dir(b"Vendor"), Tier::Foreign);
        assert_eq!(Tier::of_dir(b"tests"), Tier::Test);
        assert_eq!(Tier::of_dir(b"src"), Tier::Source);
    }

    #[test]
    fn nothing_is_above_its_directories() {
        let mut tiers = Tiers::default();
        [Tier::Source, Tier::Test].into_iter().for_each(|tier| tiers.insert(tier));
        let below = |tier| Tier::ALL.map(|own| tiers.below(tier).contains(own));
        assert_eq!(below(Tier::Source), [true, false, true, false]);
        assert_eq!(below(Tier::Text), [false, true, true, false]);
        assert_eq!(below(Tier::Foreign), [false, false, false, true]);
        assert_eq!(Tiers::default().below(Tier::Text), Tiers::default());
    }
}
