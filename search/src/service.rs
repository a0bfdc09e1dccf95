//! The search of a store: a corpus and the thread that keeps it up, made anew when it is damaged or asked for.
//!
//! In a folder, the corpus is in `index-N`, and the file `CURRENT` names it. Making it anew fills the next number while
//! queries go on with the one before; then `CURRENT` is replaced in one step, and the other is removed. Whatever else
//! is there when it is opened is left over from a process that ended, and removed.
//!
//! An index that cannot be read when a search asks it is made anew as well; the search does without.
//!
//! If the index cannot be written, as on a full disk, what was committed is searched with it and the rest without, and
//! writing is tried again after a while.

use std::{
    io::Write as _,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use arc_swap::ArcSwap;
use govc_engine::{Error, ErrorKind, Result, Store};
use parking_lot::{Condvar, Mutex};

use crate::{
    corpus::Corpus,
    defined::SymbolFigures,
    definitions::Definer,
    index::{IndexFigures, failure},
    indexer::{Indexer, IndexerStatus},
    presence::PresenceFigures,
};

/// Names the folder of the corpus that is in use.
const CURRENT: &str = "CURRENT";
/// How the names of these folders begin.
const INDEX_PREFIX: &str = "index-";
/// Stack of the thread: directories are walked by recursion.
const STACK_BYTES: usize = 8 << 20;
/// How long is waited after a failure, first and at most.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// How a store is searched.
#[derive(Clone)]
pub struct SearchOptions {
    /// Where the index is kept; `None` to keep it in memory.
    pub folder: Option<PathBuf>,
    /// What directories and definitions may take in memory, in bytes.
    pub budget_bytes: u64,
    /// Whether there is an index; without, searches read what they search.
    pub is_indexing: bool,
    /// Tells what files define; without, that cannot be searched.
    pub definer: Option<Arc<dyn Definer>>,
    /// Runs first on the thread that indexes, as to lower its priority.
    pub on_start: fn(),
}

impl Default for SearchOptions {
    fn default() -> Self {
        Self { folder: None, budget_bytes: 64 << 20, is_indexing: true, definer: None, on_start: || {} }
    }
}

impl SearchOptions {
    fn in_memory(&self) -> Result<Corpus> {
        Corpus::in_memory(self.budget_bytes, self.definer.clone())
    }
}

/// The search of a store. Ends when it is dropped.
pub struct Search {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    store: Store,
    options: SearchOptions,
    current: ArcSwap<Corpus>,
    /// Whether `current` is the one in the folder.
    is_opened: AtomicBool,
    status: Arc<Mutex<IndexerStatus>>,
    rebuild: Mutex<Rebuild>,
    is_rebuild_asked: AtomicBool,
    is_stopping: AtomicBool,
    wake: Condvar,
}

/// How often the index was made anew, and how far the one is that is being made.
#[derive(Default)]
struct Rebuild {
    under_way: Option<Arc<Mutex<IndexerStatus>>>,
    done: u64,
    last_error: Option<String>,
}

/// How the search of a store is doing.
#[derive(Debug, Clone)]
pub struct SearchStatus {
    /// How far the index is.
    pub indexer: IndexerStatus,
    /// How far the index is that is to take its place.
    pub rebuild: Option<IndexerStatus>,
    /// How often it was made anew since the search was opened.
    pub rebuilds: u64,
    /// Figures of the index.
    pub figures: IndexFigures,
    /// Figures of which files are in which commits.
    pub presence: PresenceFigures,
    /// Figures of what is recorded of definitions.
    pub symbols: SymbolFigures,
    /// What is kept of directories, definitions and what questions found out, in bytes.
    pub kept_bytes: u64,
    /// Why the index could last not be written or made anew.
    pub last_error: Option<String>,
}

impl SearchStatus {
    /// What all of it takes of the process's memory, in bytes, about; mapped files are not in it.
    pub fn resident_bytes(&self) -> u64 {
        let Self { figures, presence, symbols, kept_bytes, .. } = self;
        figures.resident_bytes + presence.resident_bytes + symbols.resident_bytes + kept_bytes
    }
}

impl Search {
    /// Opens the search of `store` and begins to index. Blocks until searches can begin.
    ///
    /// # Errors
    /// When no thread can be started. A folder that cannot be used is no error: searches do without the index, and it is
    /// tried again.
    pub fn open(store: Store, options: SearchOptions) -> Result<Self> {
        let (opened, result) = mpsc::channel();
        // The threads that the index starts get the priority of this one.
        let builder = thread::Builder::new().name("govc-search".into()).stack_size(STACK_BYTES);
        let thread = builder.spawn(move || {
            (options.on_start)();
            match Shared::open(store, options) {
                Err(error) => drop(opened.send(Err(error))),
                Ok(shared) => {
                    let shared = Arc::new(shared);
                    drop(opened.send(Ok(shared.clone())));
                    shared.run();
                }
            }
        });
        let thread = thread.map_err(|error| {
            Error::new(ErrorKind::Backend, "the search's thread cannot be started").with_source(error)
        })?;
        let shared =
            result.recv().map_err(|_| Error::new(ErrorKind::Backend, "opening the search index panicked"))??;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// What to search with.
    pub fn corpus(&self) -> Arc<Corpus> {
        self.shared.current.load_full()
    }

    /// Whether there is an index at all.
    pub fn is_indexing(&self) -> bool {
        self.shared.options.is_indexing
    }

    /// Has the index made anew, while searches go on with the one that there is; whether that was not under way already.
    pub fn rebuild(&self) -> bool {
        let is_new = !self.shared.is_rebuild_asked.swap(true, Ordering::AcqRel);
        self.shared.wake.notify_all();
        is_new
    }

    /// How it is doing.
    pub fn status(&self) -> SearchStatus {
        let corpus = self.corpus();
        // No two of these locks at once: who makes the index anew takes the same ones.
        let indexer = self.shared.status.lock().clone();
        let under_way = self.shared.rebuild.lock().under_way.clone();
        let under_way = under_way.map(|status| status.lock().clone());
        let rebuild = self.shared.rebuild.lock();
        SearchStatus {
            indexer,
            rebuild: under_way,
            rebuilds: rebuild.done,
            figures: corpus.figures(),
            presence: corpus.presence_figures(),
            symbols: corpus.symbol_figures(),
            kept_bytes: corpus.kept_bytes(),
            last_error: rebuild.last_error.clone(),
        }
    }

    /// Ends indexing; what was not committed is found again when the search is opened again.
    pub fn stop(&self) {
        self.shared.is_stopping.store(true, Ordering::Release);
        self.shared.wake.notify_all();
        if let Some(thread) = self.thread.lock().take() {
            // Its panics are caught inside.
            let _ = thread.join();
        }
    }
}

impl Drop for Search {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn open(store: Store, options: SearchOptions) -> Result<Self> {
        let mut rebuild = Rebuild::default();
        let corpus = match options.folder.as_deref().filter(|_| options.is_indexing) {
            None => options.in_memory()?,
            Some(folder) => match open_current(folder, &options) {
                Ok(corpus) => corpus,
                // Searches can do without; it is tried again.
                Err(error) => {
                    rebuild.last_error = Some(error.to_string());
                    options.in_memory()?
                }
            },
        };
        let is_opened = rebuild.last_error.is_none();
        Ok(Self {
            store,
            options,
            current: ArcSwap::from_pointee(corpus),
            is_opened: AtomicBool::new(is_opened),
            status: Arc::default(),
            rebuild: Mutex::new(rebuild),
            is_rebuild_asked: AtomicBool::new(false),
            is_stopping: AtomicBool::new(false),
            wake: Condvar::new(),
        })
    }

    fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Acquire)
    }

    fn is_rebuild_asked(&self) -> bool {
        self.is_rebuild_asked.load(Ordering::Acquire)
    }

    /// The thread: indexes until it is to stop.
    fn run(&self) {
        if !self.options.is_indexing {
            return;
        }
        let mut pause = PAUSE_MIN;
        while !self.is_stopping() {
            match self.follow_or_make_anew() {
                Ok(()) => pause = PAUSE_MIN,
                Err(error) => {
                    self.is_rebuild_asked.store(false, Ordering::Release);
                    let mut rebuild = self.rebuild.lock();
                    rebuild.under_way = None;
                    rebuild.last_error = Some(error.to_string());
                    drop(rebuild);
                    self.is_opened.store(false, Ordering::Release);
                    self.pause(pause);
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
        self.current.load().release();
    }

    /// Until it is to stop, to make the index anew, or fails.
    fn follow_or_make_anew(&self) -> Result<()> {
        if !self.is_opened.load(Ordering::Acquire) {
            self.reopen()?;
        }
        let corpus = self.current.load_full();
        let mut indexer = Indexer::new(self.store.clone(), corpus.clone(), self.status.clone());
        let stop = || self.is_stopping() || self.is_rebuild_asked() || corpus.index.damage().is_some();
        caught(|| indexer.run(&stop))?;
        if let Some(damage) = corpus.index.damage() {
            self.rebuild.lock().last_error = Some(damage);
            self.is_rebuild_asked.store(true, Ordering::Release);
        }
        if self.is_stopping() { Ok(()) } else { caught(|| self.make_anew()) }
    }

    fn pause(&self, pause: Duration) {
        let mut rebuild = self.rebuild.lock();
        if !self.is_stopping() {
            self.wake.wait_for(&mut rebuild, pause);
        }
    }

    /// Opens the index anew as it was last committed.
    fn reopen(&self) -> Result<()> {
        self.current.load().release();
        let corpus = match &self.options.folder {
            None => self.options.in_memory()?,
            Some(folder) => open_current(folder, &self.options)?,
        };
        self.current.store(Arc::new(corpus));
        self.is_opened.store(true, Ordering::Release);
        Ok(())
    }

    /// Fills another index with everything, and takes it in place of the one in use.
    fn make_anew(&self) -> Result<()> {
        if !self.is_rebuild_asked() {
            return Ok(());
        }
        let status: Arc<Mutex<IndexerStatus>> = Arc::default();
        self.rebuild.lock().under_way = Some(status.clone());
        let made = self.fill_another(&status);
        let mut rebuild = self.rebuild.lock();
        rebuild.under_way = None;
        self.is_rebuild_asked.store(false, Ordering::Release);
        if made? {
            rebuild.done += 1;
            rebuild.last_error = None;
        }
        Ok(())
    }

    /// Whether it came to its end.
    fn fill_another(&self, status: &Arc<Mutex<IndexerStatus>>) -> Result<bool> {
        let folder = self.options.folder.as_deref().map(next_folder).transpose()?;
        let corpus = Arc::new(match &folder {
            None => self.options.in_memory()?,
            Some(folder) => open_corpus(folder, &self.options)?,
        });
        let mut indexer = Indexer::new(self.store.clone(), corpus.clone(), status.clone());
        indexer.index_all(&|| self.is_stopping())?;
        if self.is_stopping() {
            return Ok(false);
        }
        if let (Some(parent), Some(folder)) = (&self.options.folder, &folder) {
            set_current(parent, folder)?;
        }
        let before = self.current.swap(corpus);
        before.release();
        let done = status.lock().clone();
        *self.status.lock() = done;
        if let (Some(parent), Some(folder)) = (&self.options.folder, &folder) {
            remove_others(parent, folder);
        }
        Ok(true)
    }
}

/// Turns a panic into an error.
fn caught(work: impl FnOnce() -> Result<()>) -> Result<()> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(Error::new(ErrorKind::Backend, "the indexer panicked; it is begun again")))
}

/// Opens the corpus that `CURRENT` names, or an empty one in the place of none or of a damaged one.
fn open_current(parent: &Path, options: &SearchOptions) -> Result<Corpus> {
    std::fs::create_dir_all(parent).map_err(|error| failure("create", parent, error))?;
    let name = std::fs::read_to_string(parent.join(CURRENT)).unwrap_or_default();
    let named = Path::new(name.trim());
    let is_name = name.trim().starts_with(INDEX_PREFIX) && named.components().count() == 1;
    if is_name && parent.join(named).is_dir() {
        let folder = parent.join(named);
        match open_corpus(&folder, options) {
            Err(error) if *error.kind() == ErrorKind::Corrupt => {}
            opened => {
                remove_others(parent, &folder);
                return opened;
            }
        }
    }
    let folder = next_folder(parent)?;
    let corpus = open_corpus(&folder, options)?;
    set_current(parent, &folder)?;
    remove_others(parent, &folder);
    Ok(corpus)
}

fn open_corpus(folder: &Path, options: &SearchOptions) -> Result<Corpus> {
    Corpus::open(folder, options.budget_bytes, options.definer.clone())
}

/// The folders of indexes below `parent`, with their numbers.
fn folders(parent: &Path) -> Vec<(u64, PathBuf)> {
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    let number = |path: &Path| path.file_name()?.to_str()?.strip_prefix(INDEX_PREFIX)?.parse().ok();
    entries.filter_map(|entry| Some((number(&entry.path())?, entry.path()))).collect()
}

fn next_folder(parent: &Path) -> Result<PathBuf> {
    let last = folders(parent).into_iter().map(|(number, _)| number).max().unwrap_or(0);
    let folder = parent.join(format!("{INDEX_PREFIX}{}", last + 1));
    std::fs::create_dir(&folder).map_err(|error| failure("create", &folder, error))?;
    Ok(folder)
}

/// Makes `folder` the one in use, in one step that a crash cannot tear.
fn set_current(parent: &Path, folder: &Path) -> Result<()> {
    let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let (path, fresh) = (parent.join(CURRENT), parent.join("CURRENT.new"));
    let write = || {
        let mut file = std::fs::File::create(&fresh)?;
        file.write_all(name.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&fresh, &path)?;
        std::fs::File::open(parent)?.sync_all()
    };
    write().map_err(|error| failure("write", &path, error))
}

/// Removes all indexes but one. What cannot be removed now is tried again when the search is opened.
fn remove_others(parent: &Path, folder: &Path) {
    for (_, other) in folders(parent) {
        if other != folder {
            let _ = std::fs::remove_dir_all(&other);
        }
    }
}
