//! How much a thread gives way to others.

/// Lowers the priority of the calling thread, and of those that it starts: 19 is as low as it gets. On Linux, a process is
/// here a thread.
pub(crate) fn lower(niceness: i32) {
    if let Err(error) = rustix::process::setpriority_process(None, niceness) {
        tracing::warn!(error = %error, niceness, "a thread in the background cannot lower its priority");
    }
}
