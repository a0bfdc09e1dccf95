//! Compacting a repository: reading its pool in order, planning, writing, installing.

use govc_engine::{
    Error, ErrorKind, Progress, Repo, Result, Rewrite, Rewritten,
    block::{Base, Location},
};

use crate::history::{Ordered, order};
use crate::plan::{Form, Index, Planner};

/// How a repository is compacted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompactOptions {
    /// zstd's level for blocks.
    pub level: i32,
    /// Most deltas between an object and a whole one, at most 1000.
    pub depth_max: u32,
    /// Memory for blocks and bases, in bytes; rows and features of each object come on top, 500 to 800 bytes.
    pub memory_bytes: u64,
}

impl Default for CompactOptions {
    fn default() -> Self {
        Self { level: 9, depth_max: 50, memory_bytes: 512 << 20 }
    }
}

impl CompactOptions {
    /// As small as it gets, for repositories that nobody writes to any more; takes several times as long.
    pub fn archive() -> Self {
        Self { level: 19, ..Self::default() }
    }
}

/// Stores what a repository brought anew, and smaller, without what nothing leads to.
///
/// # Errors
/// As [`Repo::rewrite`] and [`Rewrite::install`]; [`ErrorKind::Cancelled`] if the progress says so, and then everything
/// stays as it was.
pub fn compact(repo: &Repo, options: &CompactOptions, progress: &dyn Progress) -> Result<Rewritten> {
    let mut rewrite = repo.rewrite(options.level, options.memory_bytes / 2, progress)?;
    let order = order(&mut rewrite, progress)?;
    write(&rewrite, &order, options, progress)?;
    rewrite.install(progress)
}

fn write(rewrite: &Rewrite, order: &[Ordered], options: &CompactOptions, progress: &dyn Progress) -> Result<()> {
    let base_bytes = usize::try_from(options.memory_bytes / 2).unwrap_or(usize::MAX);
    let mut planner = Planner::new(options.depth_max.clamp(1, 1000), base_bytes);
    let mut places: Vec<Location> = Vec::with_capacity(order.len());
    let read = |at: Index| rewrite.read(order[at as usize].at as usize);
    let size = |ordered: &Ordered| rewrite.objects()[ordered.at as usize].size;
    progress.begin("compacting", Some(order.iter().map(size).sum()));
    // Blocks hold objects of one kind.
    for of_kind in order.chunk_by(|a, b| a.kind == b.kind) {
        let mut lane = rewrite.lane();
        for ordered in of_kind {
            if places.len().is_multiple_of(64) && progress.is_cancelled() {
                return Err(Error::new(ErrorKind::Cancelled, "ended on request; everything stays as it was"));
            }
            let object = rewrite.objects()[ordered.at as usize];
            let data = rewrite.read(ordered.at as usize)?;
            let form = planner.next(ordered.kind, ordered.path, &data, read)?;
            let place = match &form {
                Form::Whole => lane.add(object.oid, object.kind, object.size, Base::Whole, &data)?,
                Form::Delta { base, delta } => {
                    let Location { block, slot, .. } = places[*base as usize];
                    lane.add(object.oid, object.kind, object.size, Base::Near { block, slot }, delta)?
                }
            };
            places.push(place);
            progress.advance(object.size);
        }
        lane.finish()?;
    }
    progress.end();
    Ok(())
}
