//! What do the versions of a history's files, trees and commits take in which encoding, and how fast is it?
//!
//! Every object of a history is encoded against the next newer version of the same path, the newest of each path whole:
//! the same pairs for every encoding, so that only these differ. (The bases that compaction chooses are better, for all of
//! them.) Each is decoded again, with its base at hand, and compared. Usage: `govc-codec-bench REPOSITORY.git...`

mod codec;
mod history;

use std::{process::ExitCode, time::Duration};

use codec::{Codec, Version, codecs};

/// What one encoding has done.
struct Measured {
    codec: Box<dyn Codec>,
    encoding: Duration,
    decoding: Duration,
}

fn main() -> ExitCode {
    let paths: Vec<String> = std::env::args().skip(1).collect();
    if paths.is_empty() {
        eprintln!("usage: govc-codec-bench REPOSITORY.git...");
        return ExitCode::from(2);
    }
    for path in &paths {
        if let Err(error) = one_history(path) {
            eprintln!("govc-codec-bench: {path}: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn one_history(path: &str) -> Result<(), Box<dyn std::error::Error>> {
    let all = codecs()?.into_iter();
    let mut all: Vec<Measured> =
        all.map(|codec| Measured { codec, encoding: Duration::ZERO, decoding: Duration::ZERO }).collect();
    let (mut objects, mut bytes) = (0_u64, 0_u64);
    history::versions(path, |version: Version| {
        objects += 1;
        bytes += version.data.len() as u64;
        if objects.is_multiple_of(20_000) {
            eprintln!("govc-codec-bench: {path}: {objects} objects, {} MiB", bytes >> 20);
        }
        for measured in &mut all {
            let spent = measured.codec.take(&version)?;
            measured.encoding += spent.encoding;
            measured.decoding += spent.decoding;
        }
        Ok(())
    })?;
    for measured in &mut all {
        let spent = measured.codec.finish()?;
        measured.encoding += spent.encoding;
        measured.decoding += spent.decoding;
    }
    let ours = all.last().map_or(0, |measured| measured.codec.stored_bytes());
    println!("{path}: {objects} objects, {} MiB\n", bytes >> 20);
    println!("| encoding | MiB | of ours | encode MB/s | decode MB/s | failed |");
    println!("|---|---:|---:|---:|---:|---:|");
    for Measured { codec, encoding, decoding } in &all {
        let stored = codec.stored_bytes();
        let rate = |time: &Duration| bytes as f64 / 1e6 / time.as_secs_f64().max(f64::MIN_POSITIVE);
        println!(
            "| {} | {:.1} | {:.2} | {:.0} | {:.0} | {} |",
            codec.name(),
            stored as f64 / 1_048_576.0,
            stored as f64 / ours.max(1) as f64,
            rate(encoding),
            rate(decoding),
            codec.failed(),
        );
    }
    println!();
    Ok(())
}
