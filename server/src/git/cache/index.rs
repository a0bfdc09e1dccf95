//! The file beside a kept pack that tells what it holds; without one that is whole, a pack does not count.

use std::{
    fs::File,
    io::{self, Write},
    path::Path,
    sync::Arc,
};

use govc_engine::{Kind, ObjectFormat, RepoId, hash_object};

use super::{Content, Form, KeptBase, KeptEntry, KeptPack, NewPack, Tips};

/// What an index begins with.
fn magic(format: ObjectFormat) -> &'static [u8] {
    match format {
        ObjectFormat::Sha1 => b"govc pack index 3\n",
        ObjectFormat::Sha256 => b"govc pack index 3 sha256\n",
    }
}

pub(super) fn write_index(path: &Path, pack: &KeptPack) -> io::Result<()> {
    let format = pack.checksum.format();
    let mut out = magic(format).to_vec();
    out.extend_from_slice(&pack.repo.as_u64().to_be_bytes());
    out.extend_from_slice(&pack.len.to_be_bytes());
    out.extend_from_slice(pack.checksum.as_bytes());
    out.extend_from_slice(&(pack.tips.len() as u64).to_be_bytes());
    pack.tips.iter().for_each(|tip| out.extend_from_slice(tip.as_bytes()));
    pack.form.write(&mut out);
    out.extend_from_slice(&(pack.piece_sums.len() as u64).to_be_bytes());
    pack.piece_sums.iter().for_each(|sum| out.extend_from_slice(&sum.to_be_bytes()));
    for entry in &pack.entries {
        out.extend_from_slice(entry.oid.as_bytes());
        out.extend_from_slice(&entry.offset.to_be_bytes());
        out.extend_from_slice(&entry.base.number().to_be_bytes());
    }
    let checksum = hash_object(format, Kind::Blob, &out).map_err(io::Error::other)?;
    out.extend_from_slice(checksum.as_bytes());
    let mut file = File::create(path)?;
    file.write_all(&out)
}

/// A pack of an earlier process, if its index is whole and fits it.
pub(super) fn read_index(path: &Path) -> Option<KeptPack> {
    let bytes = std::fs::read(path.with_extension("index")).ok()?;
    let format = ObjectFormat::ALL.into_iter().find(|format| bytes.starts_with(magic(*format)))?;
    let (body, checksum) = bytes.split_at_checked(bytes.len().checked_sub(format.len())?)?;
    let computed = hash_object(format, Kind::Blob, body).ok()?;
    if computed.as_bytes() != checksum {
        return None;
    }
    let rest = body.strip_prefix(magic(format))?;
    let (repo, rest) = rest.split_first_chunk::<8>()?;
    let (len, rest) = rest.split_first_chunk::<8>()?;
    let (checksum, rest) = rest.split_at_checked(format.len())?;
    let (tips, rest) = rest.split_first_chunk::<8>()?;
    let (repo, len, tips) = (u64::from_be_bytes(*repo), u64::from_be_bytes(*len), u64::from_be_bytes(*tips));
    let checksum = format.oid_from_bytes(checksum).ok()?;
    let tips_len = usize::try_from(tips).ok()?.checked_mul(format.len())?;
    let (tips, rest) = rest.split_at_checked(tips_len)?;
    let tips =
        tips.chunks_exact(format.len()).map(|tip| format.oid_from_bytes(tip).ok()).collect::<Option<Vec<_>>>()?;
    let (form, rest) = Form::read(format, rest)?;
    let (sums, rest) = rest.split_first_chunk::<8>()?;
    let sums_len = usize::try_from(u64::from_be_bytes(*sums)).ok()?.checked_mul(4)?;
    let (sums, entries) = rest.split_at_checked(sums_len)?;
    let sums = sums.chunks_exact(4).filter_map(|sum| Some(u32::from_be_bytes(*sum.first_chunk()?))).collect();
    let entries = entries.chunks_exact(format.len() + 12).map(|entry| {
        let (oid, rest) = entry.split_at(format.len());
        let offset = u64::from_be_bytes(*rest.first_chunk()?);
        let base = u32::from_be_bytes(*rest.last_chunk()?);
        Some(KeptEntry { oid: format.oid_from_bytes(oid).ok()?, offset, base: KeptBase::from_number(base) })
    });
    let entries = entries.collect::<Option<Vec<_>>>()?;
    let file = File::open(path).ok()?;
    if file.metadata().ok()?.len() != len {
        return None;
    }
    Some(KeptPack::new(
        RepoId::from_u64(repo),
        Tips { tips, form },
        NewPack { entries, checksum },
        len,
        sums,
        Content::File(Arc::new(file), path.to_owned()),
    ))
}
