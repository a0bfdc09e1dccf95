//! `govc serve`: opens the data, serves connections, and stops well.
//!
//! Order of starting: signals, socket, certificate, data, the ready line. The socket is bound first so that a taken
//! port is found at once; connections that arrive while the data are opened wait in its backlog.
//! Order of stopping: no new connections, readiness fails, requests in flight end (within a bound), the
//! store makes everything durable. A second signal ends the process at once, which loses nothing that
//! was acknowledged.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::{Arc, Weak};
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::app::App;
use crate::cli::VERSION;
use crate::config::Config;
use crate::connection::Connector;
use crate::ssh;
use crate::telemetry::{self, Metrics, PeerAddress};
use crate::tls::{self, Tls};

/// How long to wait when the system has no descriptors or memory for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How often kept packs are asked to make room on a disk that fills up.
const ROOM_INTERVAL: Duration = Duration::from_secs(5);

/// Threads that are still at work after the store is closed have nothing left to lose.
const THREADS_WAIT: Duration = Duration::from_secs(1);

/// Stack of a thread: walks over nested directories recurse. Untouched pages cost nothing.
const THREAD_STACK_BYTES: usize = 8 << 20;

/// All routes with all layers around them: what the server serves, without the network.
pub fn router(app: Arc<App>) -> Router {
    let routes = crate::http::router(Arc::clone(&app))
        .merge(crate::git::router(Arc::clone(&app)))
        .merge(crate::lfs::router(Arc::clone(&app)));
    telemetry::layered(routes, app)
}

/// Runs the server until it is told to stop, or cannot start.
pub(crate) fn run(config: Config) -> ExitCode {
    let log = telemetry::log::start(config.logging);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("govc")
        .thread_stack_size(THREAD_STACK_BYTES)
        .build();
    let served = match runtime {
        Ok(runtime) => {
            let served = runtime.block_on(serve(config));
            match served {
                Ok(Some(_)) => runtime.shutdown_background(),
                _ => runtime.shutdown_timeout(THREADS_WAIT),
            }
            served
        }
        Err(error) => Err(format!("cannot start the runtime: {error}")),
    };
    drop(log);
    match served {
        Ok(None) => ExitCode::SUCCESS,
        // What a shell reports for a process that the signal ended.
        Ok(Some(stop)) => ExitCode::from(128 + stop.number),
        Err(message) => {
            eprintln!("govc: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Serves until the first signal and what follows it; returns the signal that ended the process at once.
async fn serve(config: Config) -> Result<Option<Stop>, String> {
    let mut signals = Signals::listen().map_err(|error| format!("cannot listen for signals: {error}"))?;
    let wanted = config.server.listen;
    let listener = TcpListener::bind(wanted)
        .await
        .map_err(|error| format!("cannot listen on {wanted} (server.listen): {error}"))?;
    let metrics = Metrics::new();
    let tls = secure(&config, &metrics)?;
    let ssh = match config.server.ssh.clone() {
        Some(config) => Some((ssh::Closed::bind(&config).await?, config)),
        None => None,
    };

    let opening = tokio::task::spawn_blocking(move || App::open_with(config, metrics));
    let app = tokio::select! {
        opened = opening => opened.map_err(|error| format!("opening the data failed: {error}"))?,
        // Recovery may be interrupted at any point, like everything else that is durable.
        stop = signals.next() => return Ok(Some(stop)),
    };
    let app = app.map_err(|error| error.to_string())?;
    let ssh = match ssh {
        Some((door, config)) => {
            let app = Arc::clone(&app);
            let http = own_address(&listener)?;
            let opening = tokio::task::spawn_blocking(move || door.open(app, &config, http));
            Some(opening.await.map_err(|error| format!("opening SSH failed: {error}"))??)
        }
        None => None,
    };
    announce(&listener, ssh.as_ref(), &app)?;

    tokio::spawn(keep_room(Arc::downgrade(&app)));
    // Held by every connection: it changes when they are to end, and is closed when they have.
    let (connections, _) = watch::channel(());
    if let Some(door) = ssh {
        tokio::spawn(door.serve(connections.subscribe()));
    }
    let stop = accept(listener, &app, tls, &connections, &mut signals).await;
    tracing::info!(signal = stop.name, "stopping");
    app.drain();
    let finishing = finish(Arc::clone(&app), connections);
    tokio::select! {
        closed = finishing => closed.map(|()| None),
        again = signals.next() => {
            tracing::warn!(signal = again.name, "stopping at once");
            Ok(Some(again))
        }
    }
}

/// The certificate that connections are secured with, if one is set, and what follows its files.
fn secure(config: &Config, metrics: &Metrics) -> Result<Option<Arc<Tls>>, String> {
    let Some(paths) = config.server.tls.clone() else { return Ok(None) };
    let tls = Arc::new(Tls::open(paths.cert, paths.key, config.server.header_timeout, metrics.tls().clone())?);
    let hangups = signal(SignalKind::hangup()).map_err(|error| format!("cannot listen for signals: {error}"))?;
    tokio::spawn(tls::follow(Arc::downgrade(&tls), hangups));
    Ok(Some(tls))
}

/// Ends transactions that nobody uses, and makes kept packs give way before a full disk refuses what must be stored.
async fn keep_room(app: Weak<App>) {
    loop {
        tokio::time::sleep(ROOM_INTERVAL).await;
        let Some(app) = app.upgrade() else { return };
        app.transactions.remove_idle();
        // Fails only when the runtime stops.
        let _ = tokio::task::spawn_blocking(move || app.packs.make_room()).await;
    }
}

fn own_address(listener: &TcpListener) -> Result<SocketAddr, String> {
    listener.local_addr().map_err(|error| format!("cannot tell the own address: {error}"))
}

/// The one line on standard output: whoever started the server may now connect.
fn announce(listener: &TcpListener, ssh: Option<&ssh::Door>, app: &App) -> Result<(), String> {
    let address = own_address(listener)?;
    let backend = app.config.backend_name();
    let data = app.config.data_folder().map_or_else(|| "none".to_owned(), |data| data.display().to_string());
    let ssh = match ssh.map(ssh::Door::address) {
        Some(address) => {
            let address = address.map_err(|error| format!("cannot tell the own address of SSH: {error}"))?;
            tracing::info!(address = %address, scheme = "ssh", "listening");
            format!(" and ssh://{address}")
        }
        None => String::new(),
    };
    let scheme = if app.config.server.tls.is_some() { "https" } else { "http" };
    let mut output = std::io::stdout().lock();
    // Nobody needs to read the line: a closed output is no reason to stop.
    let _ = writeln!(output, "govc {VERSION} listening on {scheme}://{address}{ssh} (backend {backend}, data {data})")
        .and_then(|()| output.flush());
    tracing::info!(address = %address, scheme, backend, data, "listening");
    Ok(())
}

/// Takes connections until a signal arrives, and leaves the listener closed.
async fn accept(
    listener: TcpListener,
    app: &Arc<App>,
    tls: Option<Arc<Tls>>,
    connections: &watch::Sender<()>,
    signals: &mut Signals,
) -> Stop {
    let server = &app.config.server;
    let places = Arc::new(Semaphore::new(server.connections_max));
    let connector = Arc::new(Connector::new(router(Arc::clone(app)), tls, server));
    loop {
        let (stream, peer, place) = tokio::select! {
            biased;
            stop = signals.next() => return stop,
            accepted = accept_one(&listener, &places) => accepted,
        };
        let connector = Arc::clone(&connector);
        let stop = connections.subscribe();
        tokio::spawn(async move {
            connector.serve(stream, PeerAddress(peer), stop).await;
            drop(place);
        });
    }
}

/// The next connection, once there is a place for it. May be dropped at any point.
async fn accept_one(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> (TcpStream, SocketAddr, Option<OwnedSemaphorePermit>) {
    // The semaphore is never closed; without a permit the connection is merely not counted.
    let place = Arc::clone(places).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return (stream, peer, place),
            // The client gave up, or the system is out of something: both pass.
            Err(error) => {
                tracing::warn!(error = %error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Waits for requests in flight, then closes the store.
async fn finish(app: Arc<App>, connections: watch::Sender<()>) -> Result<(), String> {
    let patience = app.config.server.shutdown_timeout;
    connections.send_replace(());
    if tokio::time::timeout(patience, connections.closed()).await.is_err() {
        tracing::warn!(seconds = patience.as_secs(), "requests were cut off because they did not end in time");
    }
    let closing = tokio::task::spawn_blocking(move || {
        app.compactions.stop();
        app.search.stop();
        app.store.close()
    });
    match closing.await {
        Ok(Ok(())) => {
            tracing::info!("stopped");
            Ok(())
        }
        Ok(Err(error)) => Err(format!("closing the store failed: {error}")),
        Err(error) => Err(format!("closing the store failed: {error}")),
    }
}

/// The signals that stop the server.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

/// One such signal.
struct Stop {
    name: &'static str,
    number: u8,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> Stop {
        tokio::select! {
            _ = self.terminate.recv() => Stop { name: "SIGTERM", number: 15 },
            _ = self.interrupt.recv() => Stop { name: "SIGINT", number: 2 },
        }
    }
}
