//! HTTPS: the real git and curl over it, certificates that change under open connections, pairs that cannot be used.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::PathBuf,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};

use crate::{
    git::{Git, assert_same},
    history,
    server::{Launch, Place, Server},
};

/// Only a guard against waiting for ever.
const SOON: Duration = Duration::from_secs(120);

/// An authority with a folder: its own certificate, and what the server shows.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    ca: PathBuf,
    cert: PathBuf,
    key: PathBuf,
}

/// What a client trusts.
pub(crate) struct Trust(ClientConfig);

/// A server's certificate and its key, in PEM.
pub(crate) struct Pair {
    cert: String,
    key: String,
}

impl Authority {
    pub(crate) fn new(place: &Place) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        // A name of its own: a chain whose parts have one name is taken for a certificate that signed itself.
        params.distinguished_name.push(DnType::CommonName, "the authority of a test");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = place.path("ca.pem");
        std::fs::write(&ca, params.self_signed(&key).expect("a certificate").pem()).expect("a file");
        Self { issuer: Issuer::new(params, key), ca, cert: place.path("cert.pem"), key: place.path("key.pem") }
    }

    pub(crate) fn pair(&self, last_year: i32) -> Pair {
        self.pair_of(&["127.0.0.1", "localhost"], last_year)
    }

    /// A certificate of a server of these names.
    pub(crate) fn pair_of(&self, names: &[&str], last_year: i32) -> Pair {
        let key = KeyPair::generate().expect("a key");
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        (params.not_before, params.not_after) = (date_time_ymd(2001, 1, 1), date_time_ymd(last_year, 1, 1));
        let cert = params.signed_by(&key, &self.issuer).expect("a certificate");
        Pair { cert: cert.pem(), key: key.serialize_pem() }
    }

    /// Puts a pair where the server reads it.
    fn put(&self, cert: &str, key: &str) {
        std::fs::write(&self.cert, cert).expect("a file");
        std::fs::write(&self.key, key).expect("a file");
    }

    pub(crate) fn fresh(&self) -> Pair {
        let pair = self.pair(2999);
        self.put(&pair.cert, &pair.key);
        pair
    }

    fn launch(&self, place: &Place) -> Launch {
        self.secure(place.launch())
    }

    /// The same server over HTTPS.
    pub(crate) fn secure(&self, launch: Launch) -> Launch {
        let path = |path: &PathBuf| path.to_str().expect("UTF-8").to_owned();
        launch.with(&["--tls-cert", &path(&self.cert)]).env("GOVC_TLS_KEY", &path(&self.key))
    }

    /// The same, and the clients of the tests speak to it over HTTPS as well.
    pub(crate) fn trusted(&self, launch: Launch) -> Launch {
        // A client is a copy of a few words, wherever it goes.
        self.secure(launch).trusting(Box::leak(Box::new(self.trust())))
    }

    pub(crate) fn ca(&self) -> &str {
        self.ca.to_str().expect("UTF-8")
    }

    /// What a client trusts that trusts this authority alone.
    pub(crate) fn trust(&self) -> Trust {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&self.ca).expect("a certificate")).expect("an authority");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Trust(config)
    }

    /// Opens a connection that trusts the authority.
    fn connect(&self, server: &Server) -> Secure {
        let stream = TcpStream::connect(server.address()).expect("the server accepts connections");
        stream.set_read_timeout(Some(SOON)).expect("a time-out");
        Secure(BufReader::new(self.trust().shake_hands(stream, None).expect("a handshake")))
    }
}

impl Pair {
    /// What shows it.
    pub(crate) fn server(&self) -> ServerConfig {
        let cert = CertificateDer::from_pem_slice(self.cert.as_bytes()).expect("a certificate");
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).expect("a key");
        ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![cert], key)
            .expect("a pair")
    }
}

impl Trust {
    /// Makes a connection one over TLS, for which such a protocol is agreed on.
    pub(crate) fn shake_hands(
        &self,
        mut stream: TcpStream,
        protocol: Option<&str>,
    ) -> std::io::Result<StreamOwned<ClientConnection, TcpStream>> {
        let mut config = self.0.clone();
        config.alpn_protocols = protocol.into_iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let name = ServerName::try_from("localhost").expect("a name");
        let mut client = ClientConnection::new(Arc::new(config), name).expect("a client");
        while client.is_handshaking() {
            client.complete_io(&mut stream)?;
        }
        assert_eq!(client.alpn_protocol(), protocol.map(str::as_bytes), "what was agreed on");
        Ok(StreamOwned::new(client, stream))
    }
}

/// A connection over TLS.
struct Secure(BufReader<StreamOwned<ClientConnection, TcpStream>>);

impl Secure {
    /// Whether the server has shown this certificate.
    fn shows(&self, pair: &Pair) -> bool {
        let wanted = CertificateDer::from_pem_slice(pair.cert.as_bytes()).expect("a certificate");
        self.0.get_ref().conn.peer_certificates().is_some_and(|chain| chain.first() == Some(&wanted))
    }

    /// Asks on the connection, which stays open; the status and the body.
    fn get(&mut self, path: &str) -> (u16, String) {
        self.write(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes());
        self.reply()
    }

    /// Sends bytes in one record, if they are few.
    fn write(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).expect("the server reads");
    }

    /// Reads an answer; the status and the body.
    fn reply(&mut self) -> (u16, String) {
        let (mut status, mut length) = (0, 0);
        for line in self.0.by_ref().lines() {
            let line = line.expect("a header").to_lowercase();
            if let Some(rest) = line.strip_prefix("http/1.1 ") {
                status = rest[..3].parse().expect("a status");
            } else if let Some(rest) = line.strip_prefix("content-length: ") {
                length = rest.parse().expect("a length");
            } else if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).expect("a body");
        (status, String::from_utf8_lossy(&body).into_owned())
    }
}

/// Waits until `is_so`.
#[track_caller]
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < SOON, "{what} never came");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn git_clones_and_pushes_over_both_versions() {
    let place = Place::new();
    let authority = Authority::new(&place);
    authority.fresh();
    let server = authority.launch(&place).with(&["--create-on-push"]).start();
    let git = Git::new(&place.path("home")).with("http.sslCAInfo", authority.ca());
    let source = history::generated(&place, &git);
    for version in ["HTTP/1.1", "HTTP/2"] {
        let git = git.with("http.version", version);
        let name = version.replace('/', "-");
        let url = format!("https://{}/{name}.git", server.address());
        git.ok(&source, &["push", "-q", "--mirror", &url]);
        let copy = place.path(&name);
        git.clone_repo(&url, &copy, &["--mirror"]);
        assert_same(&git, &source, &copy);
    }
    let stranger = Git::new(&place.path("stranger"));
    let url = format!("https://{}/HTTP-2.git", server.address());
    let said = stranger.fails(&place.path("stranger"), &["ls-remote", &url]);
    assert!(said.to_lowercase().contains("certificate"), "{said}");
}

#[test]
fn git_lfs_goes_over_tls() {
    let place = Place::new();
    let authority = Authority::new(&place);
    authority.fresh();
    let server = authority.launch(&place).with(&["--create-on-push"]).start();
    let url = format!("https://{}/repo.git", server.address());
    let git = Git::new(&place.path("home")).with("http.sslCAInfo", authority.ca());
    let work = place.path("work");
    git.init(&work);
    git.ok(&work, &["lfs", "install", "--local"]);
    git.ok(&work, &["remote", "add", "origin", &url]);
    std::fs::write(work.join(".gitattributes"), "*.bin filter=lfs -text\n").expect("a file");
    let content = history::noise(1, 3 << 20);
    std::fs::write(work.join("a.bin"), &content).expect("a file");
    git.commit(&work, "README", b"text\n", "a large file");
    git.ok(&work, &["push", "-q", "origin", "main"]);
    let git = git.with("filter.lfs.process", "git-lfs filter-process").with("filter.lfs.required", "true");
    let copy = place.path("copy");
    git.clone_repo(&url, &copy, &[]);
    assert!(std::fs::read(copy.join("a.bin")).expect("a file") == content);
}

#[test]
fn clients_choose_the_version_of_http() {
    let place = Place::new();
    let authority = Authority::new(&place);
    authority.fresh();
    let server = authority.launch(&place).start();
    let url = format!("https://{}/health", server.address());
    for (option, version) in [("--http2", "2"), ("--http1.1", "1.1"), ("--no-alpn", "1.1")] {
        let arguments = ["-s", "-o", "/dev/null", "-w", "%{http_version} %{http_code}", "--cacert", authority.ca()];
        let output = Command::new("curl").args(arguments).args([option, &url]).output().expect("curl is installed");
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{version} 200"), "{option}");
    }
    let (status, metrics) = authority.connect(&server).get("/metrics");
    assert_eq!(status, 200);
    assert!(metrics.contains("govc_tls_handshakes_total{result=\"ok\"} "), "{metrics}");
    let line = metrics.lines().find(|line| line.starts_with("govc_tls_certificate_not_after_seconds{"));
    assert!(line.is_some_and(|line| line.ends_with(" 32472144000")), "the year 2999: {line:?}");
}

#[test]
fn connections_live_on_between_requests() {
    let place = Place::new();
    let authority = Authority::new(&place);
    authority.fresh();
    let rest = || std::thread::sleep(Duration::from_millis(50));
    let server = authority.launch(&place).start();
    let mut connection = authority.connect(&server);
    for _ in 0..3 {
        assert_eq!(connection.get("/health").0, 200);
        rest();
        // What TLS has read is not in the socket any more: of the second, behind 8 KiB, HTTP has read nothing.
        let request = "GET /version HTTP/1.1\r\nhost: localhost\r\n\r\n";
        let long = |filler: &str| format!("GET /version HTTP/1.1\r\nhost: localhost\r\nfiller: {filler}\r\n\r\n");
        let long = long(&"a".repeat(8192 - long("").len()));
        for first in [request, &long] {
            connection.write([first, request].concat().as_bytes());
            for _ in 0..2 {
                let (status, body) = connection.reply();
                assert!(status == 200 && body.contains("govc"), "{status}: {body}");
            }
            rest();
        }
        let (begin, end) = request.split_at(20);
        connection.write([request, begin].concat().as_bytes());
        assert_eq!(connection.reply().0, 200);
        rest();
        connection.write(end.as_bytes());
        assert_eq!(connection.reply().0, 200);
        rest();
    }
    // The client says that it leaves, and the server too.
    let Secure(mut stream) = connection;
    stream.get_mut().conn.send_close_notify();
    stream.get_mut().flush().expect("the server reads");
    assert_eq!(stream.read_to_end(&mut Vec::new()).expect("an orderly end"), 0);

    let server = server.stop().env("GOVC_HEADER_TIMEOUT", "300ms").start();
    let mut silent = authority.connect(&server);
    assert_eq!(silent.get("/health").0, 200);
    assert_eq!(silent.0.read_to_end(&mut Vec::new()).expect("an orderly end"), 0, "it has its time");
    let mut parked = authority.connect(&server);
    assert_eq!(parked.get("/health").0, 200);
    rest();
    server.terminate();
    assert_eq!(parked.0.read_to_end(&mut Vec::new()).expect("an orderly end"), 0);
    server.stopped();
}

#[test]
fn a_plain_request_is_told_where_it_is() {
    let place = Place::new();
    let authority = Authority::new(&place);
    authority.fresh();
    let server = authority.launch(&place).start();
    let reply = server.http().get("/health");
    assert_eq!(reply.status, 400);
    assert!(reply.text().contains("https://"), "{}", reply.text());
    let git = Git::new(&place.path("home"));
    let said = git.fails(&place.path("home"), &["ls-remote", &server.url("repo")]);
    assert!(said.contains("400"), "{said}");
}

#[test]
fn a_changed_pair_is_for_new_connections() {
    let place = Place::new();
    let authority = Authority::new(&place);
    let first = authority.fresh();
    let server = authority.launch(&place).start();
    let mut old = authority.connect(&server);
    assert!(old.shows(&first));
    assert_eq!(old.get("/health").0, 200);

    // Noticed by itself.
    let second = authority.fresh();
    until("the second certificate", || authority.connect(&server).shows(&second));
    assert_eq!(old.get("/health").0, 200, "an open connection goes on");

    // On a signal.
    let third = authority.fresh();
    server.signal("HUP");
    until("the third certificate", || authority.connect(&server).shows(&third));
    assert_eq!(old.get("/health").0, 200, "an open connection goes on");
    assert!(old.shows(&first));
    server.stop();
}

#[test]
fn a_broken_pair_is_refused_and_the_old_one_stays() {
    let place = Place::new();
    let authority = Authority::new(&place);
    let first = authority.fresh();
    let server = authority.launch(&place).start();
    let other = authority.pair(2999);
    let refused = |server: &Server| {
        let metrics = authority.connect(server).get("/metrics").1;
        let count = metrics.lines().find_map(|line| line.strip_prefix("govc_tls_reloads_total{result=\"refused\"} "));
        count.map_or(0, |count| count.trim().parse::<u64>().expect("a number"))
    };
    let files: [(&str, &str, &str); 3] = [
        (&other.cert, &first.key, "the key of another certificate"),
        ("nonsense", &first.key, "holds no certificate"),
        (&first.cert, "", "holds no private key"),
    ];
    for (cert, key, words) in files {
        let before = refused(&server);
        authority.put(cert, key);
        server.signal("HUP");
        until(words, || refused(&server) > before && server.said().contains(words));
        assert!(authority.connect(&server).shows(&first), "{words}");
    }
    // Without a signal, too; a missing file is no different.
    let before = refused(&server);
    std::fs::remove_file(&authority.key).expect("a file");
    until("the missing file", || refused(&server) > before && server.said().contains("cannot be read"));
    assert!(authority.connect(&server).shows(&first));
    authority.put(&other.cert, &other.key);
    until("the repaired pair", || authority.connect(&server).shows(&other));
}

#[test]
fn pairs_that_cannot_be_used_are_errors_at_the_start() {
    let place = Place::new();
    let authority = Authority::new(&place);
    let first = authority.fresh();
    let other = authority.pair(2999);
    let launch = authority.launch(&place);
    authority.put(&first.cert, &other.key);
    let said = launch.refused();
    assert!(said.contains("server.tls_key") && said.contains("another certificate"), "{said}");
    std::fs::remove_file(&authority.cert).expect("a file");
    let said = launch.refused();
    assert!(said.contains("server.tls_cert") && said.contains(authority.cert.to_str().expect("UTF-8")), "{said}");
    let said = place.launch().with(&["--tls-cert", "x"]).refused();
    assert!(said.contains("server.tls_key"), "{said}");
    assert!(!place.path("data").exists(), "a refused start creates nothing");

    let expired = authority.pair(2002);
    authority.put(&expired.cert, &expired.key);
    let server = launch.start();
    until("the warning", || server.said().contains("the certificate has expired"));
}

#[test]
fn connections_that_never_finish_their_handshake_are_closed() {
    let place = Place::new();
    let authority = Authority::new(&place);
    authority.fresh();
    let server = authority.launch(&place).env("GOVC_HEADER_TIMEOUT", "300ms").start();
    for begin in [&b""[..], &[0x16], &[0x16, 3, 1, 2, 0, 1, 0]] {
        let mut stream = TcpStream::connect(server.address()).expect("the server accepts connections");
        stream.set_read_timeout(Some(SOON)).expect("a time-out");
        stream.write_all(begin).expect("the server reads");
        let mut rest = Vec::new();
        // Closed, with a reset where bytes were left unread.
        if let Err(error) = stream.read_to_end(&mut rest) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{begin:?}");
        }
    }
    // One that has shaken hands and asks nothing.
    let mut idle = authority.connect(&server);
    let mut rest = Vec::new();
    let _ = idle.0.read_to_end(&mut rest);
    assert!(rest.is_empty());
    assert_eq!(authority.connect(&server).get("/health").0, 200);
}
