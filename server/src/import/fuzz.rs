//! An entry for fuzzing: any bytes as what comes from elsewhere.

use std::io::Cursor;
use std::path::Path;

use super::{bundle::Bundle, remote, slices};

/// Reads `data` as a server's answers, as a bundle's header and as the state of an interrupted import, and must return, in
/// bounded memory.
pub fn fuzz_import(data: &[u8]) {
    remote::fuzz(data);
    slices::fuzz(data);
    for version in ["", "# v2 git bundle\n", "# v3 git bundle\n"] {
        let bytes = [version.as_bytes(), data].concat();
        let _ = Bundle::read(Path::new("x"), Box::new(Cursor::new(bytes)), 1000);
    }
}

#[cfg(test)]
mod tests {
    use super::fuzz_import;

    const ID: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    fn line(text: &str) -> String {
        format!("{:04x}{text}", text.len() + 4)
    }

    /// Beginnings that lead into each reader.
    fn sound() -> Vec<Vec<u8>> {
        let capabilities =
            [line("version 2\n"), line("fetch=shallow\n"), line("ls-refs\n"), "0000".to_owned()].concat();
        let first = format!("{ID} HEAD\0side-band-64k symref=HEAD:refs/heads/main\n");
        let offered = [line(&first), line(&format!("{ID} refs/heads/main\n")), "0000".to_owned()].concat();
        let borders = [line(&format!("shallow {ID}")), line(&format!("unshallow {ID}")), "0000".to_owned()].concat();
        let pack = [line("\u{1}PACK"), line("\u{2}talk"), line("\u{3}trouble")].concat();
        let state = format!(
            "govc import 1\nurl x\nhead @{ID}\ndepth 1\nstep 2\nslice 40 1\nshallow {ID}\nref {ID} refs/heads/a\n"
        );
        let long = ID.repeat(2).get(..64).expect("digits").to_owned();
        let state_256 = format!("govc import 1\nurl x\nformat sha256\ndepth 1\nstep 2\nref {long} refs/heads/a\n");
        let bundle_256 = format!("@object-format=sha256\n{long} refs/heads/main\n\nPACK");
        let bundle = format!("@object-format=sha1\n-{ID} x\n{ID} refs/heads/main\n\nPACK");
        [capabilities, offered, borders, pack, state, bundle, state_256, bundle_256].map(String::into_bytes).to_vec()
    }

    #[test]
    fn sound_beginnings_may_end_anywhere() {
        for bytes in sound() {
            (0..=bytes.len()).for_each(|end| fuzz_import(&bytes[..end]));
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(
            which in 0..8usize, at in proptest::num::usize::ANY, byte in proptest::num::u8::ANY,
            tail in proptest::collection::vec(proptest::num::u8::ANY, 0..200),
        ) {
            let mut bytes = sound().swap_remove(which);
            let at = at % bytes.len();
            bytes[at] = byte;
            bytes.extend(tail);
            fuzz_import(&bytes);
        }
    }
}
