//! The file `state`, line by line:
//!
//! ```text
//! govc import 1
//! url https://example.org/x.git
//! format sha256          what the ids are; absent for sha1
//! head refs/heads/main | @ID
//! depth 1000             how deep the history is here
//! step 1000              how much deeper the next slice goes
//! slice 123456 2048      bytes and objects of 1.pack, and so on
//! shallow ID             a border
//! ref ID refs/heads/main
//! ```

use std::collections::BTreeSet;
use std::path::Path;

use govc_engine::{ObjectFormat, RefName};

use super::{Slice, Slices};
use crate::import::source::{Head, References};

const MAGIC: &str = "govc import 1";

impl Slices {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut text = format!("{MAGIC}\nurl {}\n", self.url).into_bytes();
        let mut line = |words: &[&[u8]]| {
            text.extend_from_slice(&words.join(&b' '));
            text.push(b'\n');
        };
        if self.references.format != ObjectFormat::default() {
            line(&[b"format", self.references.format.as_str().as_bytes()]);
        }
        match &self.references.head {
            Head::Unknown => {}
            Head::Branch(branch) => line(&[b"head", branch.as_bytes()]),
            Head::Detached(oid) => line(&[b"head", format!("@{oid}").as_bytes()]),
        }
        line(&[b"depth", self.depth.to_string().as_bytes()]);
        line(&[b"step", self.step.to_string().as_bytes()]);
        for Slice { bytes, objects } in &self.slices {
            line(&[b"slice", bytes.to_string().as_bytes(), objects.to_string().as_bytes()]);
        }
        for oid in &self.shallow {
            line(&[b"shallow", oid.to_string().as_bytes()]);
        }
        for (name, oid) in &self.references.all {
            line(&[b"ref", oid.to_string().as_bytes(), name.as_bytes()]);
        }
        text
    }

    /// Reads a state; `None` for what is none.
    pub(super) fn parse(folder: &Path, text: &[u8]) -> Option<Self> {
        let mut lines = text.strip_suffix(b"\n")?.split(|byte| *byte == b'\n');
        if lines.next()? != MAGIC.as_bytes() {
            return None;
        }
        let mut slices = Self {
            folder: folder.to_owned(),
            url: String::new(),
            references: References::default(),
            depth: 0,
            step: 0,
            shallow: BTreeSet::new(),
            slices: Vec::new(),
            wants: Vec::new(),
            reserve_bytes: 0,
        };
        for line in lines {
            let mut words = line.splitn(2, |byte| *byte == b' ');
            let (word, rest) = (words.next()?, words.next()?);
            let format = slices.references.format;
            match word {
                b"url" => slices.url = String::from_utf8(rest.to_vec()).ok()?,
                b"format" => slices.references.format = str::from_utf8(rest).ok()?.parse().ok()?,
                b"head" => {
                    slices.references.head = match rest.strip_prefix(b"@") {
                        Some(hex) => Head::Detached(format.oid_from_hex(hex).ok()?),
                        None => Head::Branch(RefName::new(rest).ok()?),
                    };
                }
                b"depth" => slices.depth = number(rest)?,
                b"step" => slices.step = number(rest)?,
                b"slice" => {
                    let mut numbers = rest.splitn(2, |byte| *byte == b' ');
                    let (bytes, objects) = (number(numbers.next()?)?, number(numbers.next()?)?);
                    slices.slices.push(Slice { bytes, objects });
                }
                b"shallow" => {
                    slices.shallow.insert(format.oid_from_hex(rest).ok()?);
                }
                b"ref" => {
                    let (hex, name) = rest.split_at_checked(format.hex_len())?;
                    let name = RefName::new(name.strip_prefix(b" ")?).ok()?;
                    slices.references.all.insert(name, format.oid_from_hex(hex).ok()?);
                }
                _ => return None,
            }
        }
        slices.find_wants();
        (slices.step > 0).then_some(slices)
    }
}

fn number<N: std::str::FromStr>(text: &[u8]) -> Option<N> {
    std::str::from_utf8(text).ok()?.parse().ok()
}
