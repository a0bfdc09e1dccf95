//! What can be set on a RocksDB store, and how that becomes RocksDB's own options.
//!
//! Fixed on purpose, because the engine's data decide it: no compression and no BlobDB (values are zstd frames
//! already, most of them near 64 KiB), whole-key bloom filters and no prefix extractor (ids are looked up whole),
//! 16 KiB blocks, recycled log files (a sync of a file whose size stays the same writes no metadata).

use ::rocksdb::{
    BlockBasedOptions, Cache, DBCompressionType, DBRecoveryMode, InfoLogger, LogLevel, Options, WriteBufferManager,
};

const BLOCK_BYTES: usize = 16 << 10;
const BLOOM_BITS_PER_KEY: f64 = 10.0;
/// Finished log files kept for reuse. Two are in use when families flush at different times; one is spare.
const RECYCLED_LOGS: usize = 3;
/// RocksDB's own text log: enough to read up on a failure, never a cause of one.
const TEXT_LOG_BYTES: usize = 4 << 20;
const TEXT_LOGS: usize = 4;
/// Written-back chunks, so that a large flush does not end in one long sync that delays the log's.
const WRITE_BACK_BYTES: u64 = 1 << 20;

/// What can be set on a RocksDB store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RocksOptions {
    /// Bytes for cached data, index and filter blocks. Small by default: the engine caches decoded values.
    pub block_cache_bytes: usize,
    /// Bytes of writes that wait in memory (all families together) before they are sorted into files.
    pub write_buffer_bytes: usize,
    /// Bytes of log after which the oldest writes are sorted into files; bounds how long opening takes after
    /// a crash.
    pub log_bytes_max: u64,
    /// Free bytes that writes leave on the file system. A write that would go below is refused with
    /// [`Full`](govc_engine::backend::BackendErrorKind::Full) before anything of it is written, so that
    /// flushes and compactions under way can end and the store recovers by itself once there is room.
    pub reserve_bytes: u64,
    /// Table files held open at once.
    pub open_files_max: u32,
    /// Threads for flushes and compactions.
    pub background_jobs: u32,
}

impl Default for RocksOptions {
    fn default() -> Self {
        Self {
            block_cache_bytes: 64 << 20,
            write_buffer_bytes: 128 << 20,
            log_bytes_max: 128 << 20,
            reserve_bytes: 64 << 20,
            open_files_max: 512,
            background_jobs: 2,
        }
    }
}

impl RocksOptions {
    /// The database-wide options. `buffers` accounts for all write buffers.
    pub(super) fn database(&self, buffers: &WriteBufferManager) -> Options {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_recycle_log_file_num(RECYCLED_LOGS);
        // After a crash the log is replayed up to the first damaged record: what is lost is a suffix.
        options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
        options.set_max_total_wal_size(self.log_bytes_max);
        options.set_write_buffer_manager(buffers);
        options.set_max_open_files(i32::try_from(self.open_files_max).unwrap_or(i32::MAX));
        options.set_max_background_jobs(i32::try_from(self.background_jobs).unwrap_or(i32::MAX).max(1));
        options.set_bytes_per_sync(WRITE_BACK_BYTES);
        options.set_keep_log_file_num(TEXT_LOGS);
        options.set_max_log_file_size(TEXT_LOG_BYTES);
        options.set_log_level(LogLevel::Warn);
        options
    }

    /// The database-wide options for a look at one moment.
    pub(super) fn database_to_read(&self) -> Options {
        let mut options = Options::default();
        options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
        // All files are opened at once and stay readable when who writes removes them.
        options.set_max_open_files(-1);
        // A text log would be a file in the folder.
        options.set_info_logger(InfoLogger::new_callback_logger(LogLevel::Fatal, |_, _| ()));
        options
    }

    /// The options of each family. `cache` is shared by all.
    pub(super) fn family(&self, cache: &Cache) -> Options {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(cache);
        table.set_block_size(BLOCK_BYTES);
        table.set_bloom_filter(BLOOM_BITS_PER_KEY, false);
        table.set_whole_key_filtering(true);
        // In the cache, index and filters count against its size instead of growing with the store.
        table.set_cache_index_and_filter_blocks(true);
        table.set_pin_l0_filter_and_index_blocks_in_cache(true);

        let mut options = Options::default();
        options.set_compression_type(DBCompressionType::None);
        options.set_block_based_table_factory(&table);
        // A quarter each: the journal takes most writes, and a buffer being flushed counts until it is gone.
        options.set_write_buffer_size((self.write_buffer_bytes / 4).max(1 << 20));
        options.set_max_write_buffer_number(3);
        options
    }
}
