//! `branches` and `tags`: the references of the snapshot.

use std::{cell::OnceCell, ffi::CStr, hash::Hasher, sync::Arc};

use govc_engine::{Kind, Oid, RefName, Result, Snapshot, Tag};

use super::{
    run::Run,
    table::{Estimate, Given, Rows, Slot, Table, Test, Tests},
    value::{Argument, Cell},
};

const BRANCHES: &[u8] = b"refs/heads/";
const TAGS: &[u8] = b"refs/tags/";

const NAME: usize = 0;
const HASH: usize = 1;

const BY_NAME: usize = 0;
const SLOTS: &[Slot] = &[Slot { column: NAME, test: Test::Equal }];

pub(super) struct Branches;

impl Table for Branches {
    const DECLARATION: &'static CStr = c"CREATE TABLE branches(name TEXT, hash TEXT, is_default INTEGER)";
    const SLOTS: &'static [Slot] = SLOTS;
    type Rows = BranchRows;

    fn estimate(run: &Run, given: Given) -> Estimate {
        estimate(run.snapshot.branch_count(), given)
    }

    fn scan(run: &Arc<Run>, tests: &Tests) -> Result<Option<BranchRows>> {
        Ok(Some(BranchRows { run: Arc::clone(run), scan: ReferenceScan::new(BRANCHES, tests.get(BY_NAME)) }))
    }
}

pub(super) struct BranchRows {
    run: Arc<Run>,
    scan: ReferenceScan,
}

impl Rows for BranchRows {
    fn advance(&mut self) -> Result<bool> {
        Ok(self.scan.advance(&self.run.snapshot))
    }

    fn cell(&self, column: usize) -> Result<Cell<'_>> {
        let Some((name, oid)) = &self.scan.current else { return Ok(Cell::Null) };
        Ok(match column {
            NAME => Cell::text(self.scan.short()),
            HASH => Cell::string(oid),
            2 => Cell::Integer(i64::from(name == self.run.snapshot.head())),
            _ => Cell::Null,
        })
    }

    fn identify(&self, hasher: &mut dyn Hasher) {
        hasher.write(self.scan.short());
    }
}

pub(super) struct Tags;

impl Table for Tags {
    const DECLARATION: &'static CStr = c"CREATE TABLE tags(
        name TEXT, hash TEXT, target TEXT, target_kind TEXT, message TEXT,
        tagger_name TEXT, tagger_email TEXT, tagger_date INTEGER)";
    const SLOTS: &'static [Slot] = SLOTS;
    type Rows = TagRows;

    fn estimate(run: &Run, given: Given) -> Estimate {
        estimate(run.snapshot.reference_count() - run.snapshot.branch_count(), given)
    }

    fn scan(run: &Arc<Run>, tests: &Tests) -> Result<Option<TagRows>> {
        let scan = ReferenceScan::new(TAGS, tests.get(BY_NAME));
        Ok(Some(TagRows { run: Arc::clone(run), scan, tag: OnceCell::new() }))
    }
}

pub(super) struct TagRows {
    run: Arc<Run>,
    scan: ReferenceScan,
    /// The tag object, if there is one.
    tag: OnceCell<Option<Tag>>,
}

impl Rows for TagRows {
    fn advance(&mut self) -> Result<bool> {
        self.tag.take();
        Ok(self.scan.advance(&self.run.snapshot))
    }

    fn cell(&self, column: usize) -> Result<Cell<'_>> {
        let Some((_, oid)) = &self.scan.current else { return Ok(Cell::Null) };
        match column {
            NAME => return Ok(Cell::text(self.scan.short())),
            HASH => return Ok(Cell::string(oid)),
            2 => return Ok(Cell::string(self.run.snapshot.peel(*oid)?.0)),
            3 => return Ok(Cell::string(self.run.snapshot.peel(*oid)?.1)),
            _ => {}
        }
        let Some(tag) = self.tag(oid)? else { return Ok(Cell::Null) };
        let tagger = tag.tagger.as_ref();
        Ok(match column {
            4 => Cell::text(&tag.message),
            5 => Cell::maybe(tagger, |tagger| Cell::text(&tagger.name)),
            6 => Cell::maybe(tagger, |tagger| Cell::text(&tagger.email)),
            7 => Cell::maybe(tagger, |tagger| Cell::Integer(tagger.seconds)),
            _ => Cell::Null,
        })
    }

    fn identify(&self, hasher: &mut dyn Hasher) {
        hasher.write(self.scan.short());
    }
}

impl TagRows {
    fn tag(&self, oid: &Oid) -> Result<Option<&Tag>> {
        if let Some(tag) = self.tag.get() {
            return Ok(tag.as_ref());
        }
        let is_tag = self.run.snapshot.header(oid)?.is_some_and(|(kind, _)| kind == Kind::Tag);
        let tag = is_tag.then(|| self.run.snapshot.tag(oid)).transpose()?;
        Ok(self.tag.get_or_init(|| tag).as_ref())
    }
}

fn estimate(count: usize, given: Given) -> Estimate {
    if given.has(BY_NAME) {
        return Estimate { cost: 1.0, rows: 1, is_unique: true };
    }
    Estimate { cost: 1.0 + count as f64, rows: i64::try_from(count).unwrap_or(i64::MAX).max(1), is_unique: false }
}

/// The references under a prefix, or one of them.
struct ReferenceScan {
    prefix: &'static [u8],
    /// The only one that is wanted.
    only: Option<Option<RefName>>,
    current: Option<(RefName, Oid)>,
}

impl ReferenceScan {
    fn new(prefix: &'static [u8], name: Option<&Argument>) -> Self {
        let only = match name {
            Some(Argument::Text(name)) => Some(RefName::new([prefix, name].concat()).ok()),
            Some(Argument::Null) => Some(None),
            None | Some(Argument::Integer(_) | Argument::Other) => None,
        };
        Self { prefix, only, current: None }
    }

    fn advance(&mut self, snapshot: &Snapshot) -> bool {
        let next = match (&mut self.only, &self.current) {
            (Some(only), _) => only.take().and_then(|name| Some((name.clone(), snapshot.reference(&name)?))),
            (None, Some((name, _))) => {
                snapshot.references_after(name, self.prefix).next().map(|(name, oid)| (name.clone(), *oid))
            }
            (None, None) => snapshot.references_with_prefix(self.prefix).next().map(|(name, oid)| (name.clone(), *oid)),
        };
        self.current = next;
        self.current.is_some()
    }

    /// The current name without the prefix.
    fn short(&self) -> &[u8] {
        let name = self.current.as_ref().map_or(&[][..], |(name, _)| name.as_bytes());
        name.get(self.prefix.len()..).unwrap_or_default()
    }
}
