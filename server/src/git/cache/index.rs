//! The file beside a kept pack that tells what it holds; without one that is whole, a pack does not count.

use std::{
    fs::File,
    io::{self, Write},
    path::Path,
    sync::Arc,
};

use bytes::Bytes;
use govc_engine::{Kind, ObjectFormat, RepoId, hash_object};

use super::{Content, Form, KeptBase, KeptEntry, KeptPack, NewPack, Tips};

/// What an index begins with.
fn magic(format: ObjectFormat) -> &'static [u8] {
    match format {
        ObjectFormat::Sha1 => b"govc pack index 3\n",
        ObjectFormat::Sha256 => b"govc pack index 3 sha256\n",
    }
}

fn format_of(bytes: &[u8]) -> Option<ObjectFormat> {
    ObjectFormat::ALL.into_iter().find(|format| bytes.starts_with(magic(*format)))
}

pub(super) fn write_index(path: &Path, pack: &KeptPack) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(&encode(pack)?)
}

fn encode(pack: &KeptPack) -> io::Result<Vec<u8>> {
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
    seal(format, &mut out)?;
    Ok(out)
}

/// Appends the checksum.
fn seal(format: ObjectFormat, out: &mut Vec<u8>) -> io::Result<()> {
    let checksum = hash_object(format, Kind::Blob, out).map_err(io::Error::other)?;
    out.extend_from_slice(checksum.as_bytes());
    Ok(())
}

/// A pack of an earlier process, if its index is whole and fits it.
pub(super) fn read_index(path: &Path) -> Option<KeptPack> {
    let bytes = std::fs::read(path.with_extension("index")).ok()?;
    decode(&bytes, |len| {
        let file = File::open(path).ok()?;
        let is_whole = file.metadata().ok()?.len() == len;
        is_whole.then(|| Content::File(Arc::new(file), path.to_owned()))
    })
}

/// The pack of an index, with the content that is found for its length in bytes.
fn decode(bytes: &[u8], content: impl FnOnce(u64) -> Option<Content>) -> Option<KeptPack> {
    let format = format_of(bytes)?;
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
    let content = content(len)?;
    Some(KeptPack::new(RepoId::from_u64(repo), Tips { tips, form }, NewPack { entries, checksum }, len, sums, content))
}

/// Reads `data` as an index, with a right checksum and without; what is taken says the same once written again. Gives how
/// often it is taken. For fuzzing.
pub fn fuzz_kept_index(data: &[u8]) -> usize {
    let Some(format) = format_of(data) else { return 0 };
    let mut sealed = data.to_vec();
    seal(format, &mut sealed).expect("no collision");
    let content = Bytes::copy_from_slice(data);
    let read = |bytes: &[u8]| decode(bytes, |_| Some(Content::Memory(content.clone())));
    let packs: Vec<KeptPack> = [data, &sealed].into_iter().filter_map(read).collect();
    let taken = packs.len();
    for pack in packs {
        let written = encode(&pack).expect("no collision");
        let again = read(&written).and_then(|again| encode(&again).ok());
        assert_eq!(again, Some(written), "what was written can be read");
        let pack = Arc::new(pack);
        let mut checked = pack.checked();
        for (index, entry) in (0..).zip(&pack.entries) {
            let is_found = pack.find(&entry.oid).is_some();
            let has_double = || pack.entries.iter().any(|other| is_double(entry, other));
            assert!(is_found || has_double(), "each object is found unless another one begins as it does");
            // The content is none of the pack's, so that its sums refuse it.
            let _ = checked.at(pack.range(index).0);
        }
    }
    taken
}

fn is_double(one: &KeptEntry, other: &KeptEntry) -> bool {
    one.oid != other.oid && one.oid.bits() == other.oid.bits()
}
