//! Backups are whole or not there, and no damage of theirs goes unnoticed.

use std::{
    fs,
    path::{Path, PathBuf},
};

use govc_backends::{FaultBackend, FaultPlan, MemoryBackend, Survivors};
use govc_engine::{Holding, backend::Backend};
use govc_transfer::{
    ErrorKind, Silent,
    backup::{BackupOptions, Made, create, restore},
};
use tempfile::TempDir;

use crate::{Impatient, later, rows, seen, source};

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn back_up(from: &dyn Backend, path: &Path, since: Option<&Path>) -> Result<Made, govc_transfer::Error> {
    let options = BackupOptions { since: since.map(Path::to_path_buf), now_millis: 1_700_000_000_000 };
    create(from, path, &options, &Silent)
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_backup_is_the_same_store_again() {
    let (folder, from) = (folder(), source());
    let path = folder.path().join("full");
    let made = back_up(&*from, &path, None).unwrap();
    assert_eq!(made.file_bytes, fs::metadata(&path).unwrap().len());
    assert_eq!((made.put, made.gone), (rows(&*from).len() as u64, 0));
    assert_eq!(made.held.rows, made.put);
    assert_eq!(names(folder.path()), ["full"]);

    let to = std::sync::Arc::new(MemoryBackend::new());
    let restored = restore(&[path], &*to, &Silent).unwrap();
    assert_eq!((restored.held, restored.header), (made.held, made.header));
    assert_eq!(rows(&*to), rows(&*from));
    assert_eq!(seen(&to), seen(&from));
}

#[test]
fn incremental_backups_hold_what_has_changed_and_follow_each_other() {
    let folder = folder();
    let moments = {
        let first = source();
        let second = later(&first);
        let third = std::sync::Arc::new(second.fork().unwrap());
        crate::commit(&third, &["four"], 3, false);
        let third = std::sync::Arc::new(third.fork().unwrap());
        [first, second, third]
    };
    let paths: Vec<PathBuf> = ["0", "1", "2"].iter().map(|name| folder.path().join(name)).collect();
    for (at, moment) in moments.iter().enumerate() {
        let since = at.checked_sub(1).map(|before| paths[before].as_path());
        let made = back_up(&**moment, &paths[at], since).unwrap();
        assert_eq!(made.held.rows, rows(&**moment).len() as u64);
        if at > 0 {
            assert!(made.put < made.held.rows / 2 + 30, "{made:?}");
        }
        assert_eq!(made.gone > 0, at == 1, "{made:?}");
    }
    for count in 1..=3 {
        let to = MemoryBackend::new();
        restore(&paths[..count], &to, &Silent).unwrap();
        assert_eq!(rows(&to), rows(&*moments[count - 1]), "{count} files");
    }
    // Without its predecessor, in the wrong order, twice, none.
    let path = |at: usize| paths[at].clone();
    let wrong = [vec![path(1)], vec![path(0), path(2)], vec![path(0), path(0)], vec![path(1), path(0)], vec![]];
    for files in wrong {
        let to = MemoryBackend::new();
        let error = restore(&files, &to, &Silent).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{files:?}: {error}");
        assert_eq!(Holding::of(&to).unwrap(), Holding::Nothing);
    }
    // Nothing has changed: nothing is stored.
    let again = back_up(&*moments[2], &folder.path().join("again"), Some(&paths[2])).unwrap();
    assert_eq!((again.put, again.gone), (0, 0));
    let error = back_up(&*source(), &folder.path().join("other"), Some(&paths[2])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().contains("another store"), "{error}");
}

#[test]
fn nothing_is_overwritten_and_nothing_half_done_stays() {
    let (folder, from) = (folder(), source());
    let path = folder.path().join("file");
    fs::write(&path, "mine").unwrap();
    assert_eq!(back_up(&*from, &path, None).unwrap_err().kind(), ErrorKind::Refused);
    assert_eq!(fs::read(&path).unwrap(), b"mine");
    fs::remove_file(&path).unwrap();

    let options = BackupOptions { since: None, now_millis: 0 };
    let error = create(&*from, &path, &options, &Impatient::new(5)).unwrap_err();
    assert_eq!((error.kind(), names(folder.path()).len()), (ErrorKind::Cancelled, 0));
    let error = back_up(&*from, &folder.path().join("missing/file"), None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::File);

    back_up(&*from, &path, None).unwrap();
    let held = source();
    let before = rows(&*held);
    assert_eq!(restore(&[path], &*held, &Silent).unwrap_err().kind(), ErrorKind::Refused);
    assert_eq!(rows(&*held), before);
    let error = back_up(&MemoryBackend::new(), &folder.path().join("empty"), None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
}

#[test]
fn every_cut_and_many_flipped_bits_are_damage() {
    let (folder, from) = (folder(), source());
    let path = folder.path().join("whole");
    back_up(&*from, &path, None).unwrap();
    let whole = fs::read(&path).unwrap();
    let damaged = folder.path().join("damaged");
    let check = |bytes: &[u8], what: String| {
        fs::write(&damaged, bytes).unwrap();
        let to = MemoryBackend::new();
        let error = restore(std::slice::from_ref(&damaged), &to, &Silent).expect_err(&what);
        assert_eq!(error.kind(), ErrorKind::Damaged, "{what}: {error}");
        assert!(!matches!(Holding::of(&to).unwrap(), Holding::Store(_)), "{what}");
        let error = back_up(&*from, &folder.path().join("next"), Some(&damaged)).expect_err(&what);
        assert_eq!(error.kind(), ErrorKind::Damaged, "{what}: {error}");
        assert!(!folder.path().join("next").exists());
    };
    let step = (whole.len() / 150).max(1);
    for len in (0..whole.len()).step_by(step).chain(whole.len() - 60..whole.len()) {
        check(&whole[..len], format!("cut to {len} of {}", whole.len()));
    }
    for at in (0..whole.len()).step_by(step).chain(0..40).chain(whole.len() - 40..whole.len()) {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        check(&flipped, format!("bit {} of byte {at} flipped", at % 8));
    }
    check(&[&whole[..], b"x"].concat(), "a byte more".to_owned());
}

#[test]
fn a_restoration_that_failed_begins_anew() {
    let (folder, from) = (folder(), source());
    let path = folder.path().join("full");
    back_up(&*from, &path, None).unwrap();
    let mut failed = 0;
    for nth in 1.. {
        let target = FaultBackend::new(FaultPlan::none().fail_write(nth));
        if restore(std::slice::from_ref(&path), &target, &Silent).is_ok() {
            break;
        }
        failed += 1;
        let disk = target.crash(Survivors::All).unwrap();
        // Something that the backup does not have.
        let holding = Holding::of(&disk).unwrap();
        assert!(matches!(holding, Holding::Unfinished(_) | Holding::Nothing), "{holding:?}");
        restore(std::slice::from_ref(&path), &disk, &Silent).unwrap();
        assert_eq!(rows(&disk), rows(&*from), "write {nth} failed");
    }
    assert!(failed >= 3, "{failed}");
}
