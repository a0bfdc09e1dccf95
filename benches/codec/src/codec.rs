//! The encodings: each takes versions one by one, decodes what it made, compares, and counts.

use std::{
    error::Error,
    io::{Read, Write},
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use flate2::{Compression, read::ZlibDecoder, write::ZlibEncoder};
use govc_engine::{
    Kind,
    block::{Base, BlockBuilder, DecodedBlock, apply_delta, make_delta},
};
use zstd::zstd_safe::{CCtx, CParameter, DCtx, DParameter, compress_bound};

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error>>;

const LEVEL: i32 = 9;

/// An object, and the next newer one of its path.
pub(crate) struct Version {
    pub(crate) kind: Kind,
    pub(crate) base: Option<Arc<[u8]>>,
    pub(crate) data: Arc<[u8]>,
}

/// Time that something took.
#[derive(Default)]
pub(crate) struct Spent {
    pub(crate) encoding: Duration,
    pub(crate) decoding: Duration,
}

pub(crate) trait Codec {
    fn name(&self) -> &'static str;
    fn take(&mut self, version: &Version) -> Result<Spent>;
    /// Encodes what is left.
    fn finish(&mut self) -> Result<Spent> {
        Ok(Spent::default())
    }
    fn stored_bytes(&self) -> u64;
    /// Objects that did not come back as they were, and so were stored whole.
    fn failed(&self) -> u64 {
        0
    }
}

/// All of them, ours last.
pub(crate) fn codecs() -> Result<Vec<Box<dyn Codec>>> {
    Ok(vec![
        Box::new(Each::new("zlib-6, each alone, as git's loose objects", Whole)),
        Box::new(Each::new("zstd-9, each alone", Zstd::new(false)?)),
        Box::new(Each::new("zstd-9 with the base as prefix, each", Zstd::new(true)?)),
        Box::new(Each::new("VCDIFF (xdelta3), zstd-9 each", Vcdiff(Zstd::new(false)?))),
        Box::new(Each::new("git delta, zlib-9 each, as in git's packs", GitZlib)),
        Box::new(Each::new("git delta, zstd-9 each", GitZstd(Zstd::new(false)?))),
        Box::new(Blocks::new("VCDIFF (xdelta3), in zstd-9 blocks", Form::Vcdiff)),
        Box::new(Blocks::new("whole, in zstd-9 blocks", Form::Whole)),
        Box::new(Blocks::new("git delta, in zstd-9 blocks (ours)", Form::Git)),
    ])
}

/// Encodes one object by itself.
trait Encoding {
    fn encode(&mut self, version: &Version) -> Result<Vec<u8>>;
    fn decode(&mut self, version: &Version, stored: &[u8]) -> Result<Vec<u8>>;
}

struct Each<E> {
    name: &'static str,
    encoding: E,
    stored_bytes: u64,
    failed: u64,
}

impl<E: Encoding> Each<E> {
    fn new(name: &'static str, encoding: E) -> Self {
        Self { name, encoding, stored_bytes: 0, failed: 0 }
    }
}

impl<E: Encoding> Codec for Each<E> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn take(&mut self, version: &Version) -> Result<Spent> {
        let started = Instant::now();
        let stored = self.encoding.encode(version)?;
        let encoded = Instant::now();
        let decoded = self.encoding.decode(version, &stored);
        let spent = Spent { encoding: encoded - started, decoding: encoded.elapsed() };
        let is_same = decoded.is_ok_and(|decoded| decoded[..] == version.data[..]);
        self.failed += u64::from(!is_same);
        self.stored_bytes += if is_same { stored.len() } else { version.data.len() } as u64;
        Ok(spent)
    }

    fn stored_bytes(&self) -> u64 {
        self.stored_bytes
    }

    fn failed(&self) -> u64 {
        self.failed
    }
}

fn deflate(data: &[u8], level: u32) -> Result<Vec<u8>> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(level));
    encoder.write_all(data)?;
    Ok(encoder.finish()?)
}

fn inflate(stored: &[u8]) -> Result<Vec<u8>> {
    let mut data = Vec::new();
    ZlibDecoder::new(stored).read_to_end(&mut data)?;
    Ok(data)
}

struct Whole;

impl Encoding for Whole {
    fn encode(&mut self, version: &Version) -> Result<Vec<u8>> {
        deflate(&version.data, 6)
    }

    fn decode(&mut self, _: &Version, stored: &[u8]) -> Result<Vec<u8>> {
        inflate(stored)
    }
}

struct Zstd {
    takes_prefix: bool,
    compress: CCtx<'static>,
    decompress: DCtx<'static>,
}

impl Zstd {
    fn new(takes_prefix: bool) -> Result<Self> {
        let mut compress = CCtx::create();
        compress.set_parameter(CParameter::CompressionLevel(LEVEL)).map_err(failed)?;
        let mut decompress = DCtx::create();
        decompress.set_parameter(DParameter::WindowLogMax(31)).map_err(failed)?;
        Ok(Self { takes_prefix, compress, decompress })
    }

    fn pack(&mut self, data: &[u8], prefix: Option<&[u8]>) -> Result<Vec<u8>> {
        let mut out = Vec::with_capacity(compress_bound(data.len()));
        match prefix {
            // A context keeps what it refers to no longer than this.
            Some(prefix) => {
                let mut context = CCtx::create();
                context.set_parameter(CParameter::CompressionLevel(LEVEL)).map_err(failed)?;
                let window = (prefix.len() + data.len()).next_power_of_two().ilog2().clamp(10, 27);
                context.set_parameter(CParameter::WindowLog(window)).map_err(failed)?;
                context.ref_prefix(prefix).map_err(failed)?;
                context.compress2(&mut out, data).map_err(failed)?;
            }
            None => {
                self.compress.compress2(&mut out, data).map_err(failed)?;
            }
        }
        Ok(out)
    }

    fn unpack(&mut self, stored: &[u8], len: usize, prefix: Option<&[u8]>) -> Result<Vec<u8>> {
        let mut out = Vec::with_capacity(len);
        match prefix {
            Some(prefix) => {
                let mut context = DCtx::create();
                context.set_parameter(DParameter::WindowLogMax(31)).map_err(failed)?;
                context.ref_prefix(prefix).map_err(failed)?;
                context.decompress(&mut out, stored).map_err(failed)?;
            }
            None => {
                self.decompress.decompress(&mut out, stored).map_err(failed)?;
            }
        }
        Ok(out)
    }
}

fn failed(code: usize) -> Box<dyn Error> {
    zstd::zstd_safe::get_error_name(code).into()
}

impl Encoding for Zstd {
    fn encode(&mut self, version: &Version) -> Result<Vec<u8>> {
        let prefix = version.base.clone().filter(|_| self.takes_prefix);
        self.pack(&version.data, prefix.as_deref())
    }

    fn decode(&mut self, version: &Version, stored: &[u8]) -> Result<Vec<u8>> {
        let prefix = version.base.clone().filter(|_| self.takes_prefix);
        self.unpack(stored, version.data.len(), prefix.as_deref())
    }
}

/// A delta, behind a byte that says that it is one; or the object, behind another.
fn marked(delta: Option<Vec<u8>>, data: &[u8]) -> Vec<u8> {
    match delta {
        Some(delta) => [&[1][..], &delta].concat(),
        None => [&[0][..], data].concat(),
    }
}

fn unmarked(version: &Version, body: &[u8], apply: impl Fn(&[u8], &[u8]) -> Result<Vec<u8>>) -> Result<Vec<u8>> {
    match (body.split_first(), &version.base) {
        (Some((1, delta)), Some(base)) => apply(base, delta),
        (Some((_, data)), _) => Ok(data.to_vec()),
        (None, _) => Err("nothing is stored".into()),
    }
}

fn git_delta(version: &Version) -> Option<Vec<u8>> {
    make_delta(version.base.as_ref()?, &version.data, version.data.len())
}

fn vcdiff(version: &Version) -> Option<Vec<u8>> {
    let delta = xdelta3::encode(&version.data, version.base.as_ref()?)?;
    (delta.len() < version.data.len()).then_some(delta)
}

fn apply_git(base: &[u8], delta: &[u8]) -> Result<Vec<u8>> {
    Ok(apply_delta(base, delta)?)
}

fn apply_vcdiff(base: &[u8], delta: &[u8]) -> Result<Vec<u8>> {
    xdelta3::decode(delta, base).ok_or_else(|| "xdelta3 cannot decode what it has encoded".into())
}

struct Vcdiff(Zstd);

impl Encoding for Vcdiff {
    fn encode(&mut self, version: &Version) -> Result<Vec<u8>> {
        self.0.pack(&marked(vcdiff(version), &version.data), None)
    }

    fn decode(&mut self, version: &Version, stored: &[u8]) -> Result<Vec<u8>> {
        let body = self.0.unpack(stored, version.data.len() + 1, None)?;
        unmarked(version, &body, apply_vcdiff)
    }
}

struct GitZlib;

impl Encoding for GitZlib {
    fn encode(&mut self, version: &Version) -> Result<Vec<u8>> {
        deflate(&marked(git_delta(version), &version.data), 9)
    }

    fn decode(&mut self, version: &Version, stored: &[u8]) -> Result<Vec<u8>> {
        unmarked(version, &inflate(stored)?, apply_git)
    }
}

struct GitZstd(Zstd);

impl Encoding for GitZstd {
    fn encode(&mut self, version: &Version) -> Result<Vec<u8>> {
        self.0.pack(&marked(git_delta(version), &version.data), None)
    }

    fn decode(&mut self, version: &Version, stored: &[u8]) -> Result<Vec<u8>> {
        let body = self.0.unpack(stored, version.data.len() + 1, None)?;
        unmarked(version, &body, apply_git)
    }
}

/// What records hold.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Whole,
    Vcdiff,
    Git,
}

/// Many objects in a block of the engine's.
struct Blocks {
    name: &'static str,
    form: Form,
    builder: BlockBuilder,
    number: u32,
    kind: Option<Kind>,
    /// Those in the block.
    waiting: Vec<(Version, bool)>,
    stored_bytes: u64,
    failed: u64,
}

impl Blocks {
    fn new(name: &'static str, form: Form) -> Self {
        let (builder, waiting) = (BlockBuilder::default(), Vec::new());
        Self { name, form, builder, number: 1, kind: None, waiting, stored_bytes: 0, failed: 0 }
    }

    fn flush(&mut self) -> Result<Spent> {
        if self.builder.is_empty() {
            return Ok(Spent::default());
        }
        let started = Instant::now();
        let stored = self.builder.finish(self.number, LEVEL)?;
        let encoded = Instant::now();
        self.number += 1;
        let block = DecodedBlock::decode(&stored)?;
        let mut decoding = encoded.elapsed();
        self.stored_bytes += stored.len() as u64;
        for (slot, (version, is_delta)) in mem::take(&mut self.waiting).into_iter().enumerate() {
            let started = Instant::now();
            let body = block.body(slot).ok_or("a record is missing")?;
            let decoded = match (&version.base, self.form) {
                (Some(base), Form::Git) if is_delta => apply_git(base, &body),
                (Some(base), Form::Vcdiff) if is_delta => apply_vcdiff(base, &body),
                _ => Ok(body.to_vec()),
            };
            decoding += started.elapsed();
            if !decoded.is_ok_and(|decoded| decoded[..] == version.data[..]) {
                self.failed += 1;
                self.stored_bytes += version.data.len() as u64;
            }
        }
        Ok(Spent { encoding: encoded - started, decoding })
    }
}

impl Codec for Blocks {
    fn name(&self) -> &'static str {
        self.name
    }

    fn take(&mut self, version: &Version) -> Result<Spent> {
        let started = Instant::now();
        let delta = match self.form {
            Form::Whole => None,
            Form::Vcdiff => vcdiff(version),
            Form::Git => git_delta(version),
        };
        let mut encoding = started.elapsed();
        let len = delta.as_ref().map_or(version.data.len(), Vec::len);
        let mut decoding = Duration::ZERO;
        // Blocks hold objects of one kind.
        if self.kind != Some(version.kind) || self.builder.is_full_for(len) {
            let spent = self.flush()?;
            encoding += spent.encoding;
            decoding += spent.decoding;
            self.kind = Some(version.kind);
        }
        let started = Instant::now();
        let size = version.data.len() as u64;
        match &delta {
            // Mostly it is in a block not long before.
            Some(delta) => self.builder.push(
                self.number,
                version.kind,
                size,
                Base::Near { block: self.number - 1, slot: 0 },
                delta,
            ),
            None => self.builder.push(self.number, version.kind, size, Base::Whole, &version.data),
        };
        encoding += started.elapsed();
        let kept = Version { kind: version.kind, base: version.base.clone(), data: version.data.clone() };
        self.waiting.push((kept, delta.is_some()));
        Ok(Spent { encoding, decoding })
    }

    fn finish(&mut self) -> Result<Spent> {
        self.flush()
    }

    fn stored_bytes(&self) -> u64 {
        self.stored_bytes
    }

    fn failed(&self) -> u64 {
        self.failed
    }
}
