//! What an administrator can get wrong, and what the message says; encryption; a full disk.

use std::path::{Path, PathBuf};
use std::process::Command;

use govc_backends::{PostgresBackend, PostgresOptions};
use govc_engine::backend::{Backend, BackendErrorKind, Batch, Family, Scan, Sync};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use super::{fails, open, refused};
use crate::{get, put};
use govc_postgres_server::{Server, shared};

const PASSWORD: &str = "s3cr3t-word";

/// Opening must fail in this way, with these words, and without the password.
#[track_caller]
fn told(url: &str, kind: BackendErrorKind, words: &[&str]) {
    let error = refused(url);
    assert_eq!(error.kind, kind, "{error}");
    for part in words {
        assert!(error.message.contains(part), "{part:?} is not in: {error}");
    }
    assert!(!error.message.contains(PASSWORD), "{error}");
}

#[test]
fn a_url_that_cannot_be_read_says_why() {
    use BackendErrorKind::Failed;
    told(&format!("mysql://root:{PASSWORD}@localhost/x"), Failed, &["postgres://"]);
    told(&format!("postgres://root:{PASSWORD}@/x"), Failed, &["names no host"]);
    told("postgres://localhost/x", Failed, &["names no user"]);
    told(&format!("postgres://root:{PASSWORD}@localhost/x?colour=red"), Failed, &["colour"]);
    told(&format!("postgres://root:{PASSWORD}%zz@localhost/x?port=none"), Failed, &["port"]);
    told(&format!("postgres://root:{PASSWORD}@localhost:{PASSWORD}/x"), Failed, &["cannot be read"]);
    told("postgres://root@localhost/x?sslmode=sometimes", Failed, &["verify-full"]);
    told("postgres://root@localhost/x?sslmode=verify-ca", Failed, &["sslrootcert"]);
    told("postgres://root@localhost/x?sslmode=verify-ca&sslrootcert=/nowhere/ca.pem", Failed, &["/nowhere/ca.pem"]);
    for schema in ["", "pg_govc", &"long".repeat(16)] {
        let options = PostgresOptions { schema: schema.to_owned(), ..PostgresOptions::default() };
        let opened = PostgresBackend::open("postgres://root@localhost/x", options).map(drop);
        assert!(fails(opened, Failed).message.contains("schema"));
    }
}

#[test]
fn a_server_that_cannot_be_reached_says_why() {
    use BackendErrorKind::{Failed, Unavailable};
    let server = shared();
    let database = server.database();
    let at = |user: &str, rest: &str| format!("postgres://{user}@127.0.0.1:{}/{rest}", server.port);
    let closed = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    told(&format!("postgres://x:{PASSWORD}@{closed}/x"), Unavailable, &["refused", "server runs", &closed.to_string()]);
    told(&format!("postgres://x:{PASSWORD}@no-such-host.invalid/x"), Unavailable, &["no-such-host.invalid", "name"]);
    told("postgres://x@localhost/x?host=/nowhere", Unavailable, &["server runs"]);
    told(&at("postgres", "nowhere"), Failed, &["CREATE DATABASE \"nowhere\"", "3D000"]);
    told(&at("nobody", &database), Failed, &["nobody", "exists and may log in"]);
    told(&at("postgres", &format!("{database}?sslmode=require")), Failed, &["offers no TLS", "sslmode=disable"]);

    // Nobody answers: a listener that is never accepted from.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("an address");
    let options =
        PostgresOptions { connect_timeout: std::time::Duration::from_millis(300), ..PostgresOptions::default() };
    let opened = PostgresBackend::open(&format!("postgres://x@{address}/x"), options).map(drop);
    assert!(fails(opened, Unavailable).message.contains("no answer within"));
}

#[test]
fn roles_without_rights_say_what_they_lack() {
    use BackendErrorKind::{Failed, Unavailable};
    let server = Server::prepare(&[]);
    server.allow(
        "host all wary 127.0.0.1/32 scram-sha-256\nhostssl all sealed 127.0.0.1/32 trust\nhost all sealed 127.0.0.1/32 reject",
    );
    server.up();
    let database = server.database();
    let url = |user: &str| format!("postgres://{user}@127.0.0.1:{}/{database}", server.port);
    server.sql(&database, &format!("CREATE ROLE wary LOGIN PASSWORD '{PASSWORD}'"));
    server.sql(
        &database,
        "CREATE ROLE plain LOGIN; CREATE ROLE sealed LOGIN; CREATE ROLE narrow LOGIN CONNECTION LIMIT 1",
    );

    told(&url("wary:wrong"), Failed, &["password", "28P01"]);
    told(&url("wary"), Failed, &["password"]);
    told(&url(&format!("wary:{PASSWORD}")), Failed, &["GRANT CREATE ON DATABASE", "42501"]);
    told(&url("sealed"), Failed, &["sslmode=require"]);

    // The schema is there, and its tables are another's.
    drop(open(&server.url(&database)));
    told(&url("plain"), Failed, &["lacks a right", "govc"]);
    server.sql(&database, "GRANT USAGE ON SCHEMA govc TO plain; GRANT SELECT ON ALL TABLES IN SCHEMA govc TO plain");
    told(&url("plain"), Failed, &["GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES", "blocks"]);
    server.sql(&database, "GRANT INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA govc TO plain");
    drop(open(&url("plain")));

    // Timeouts that a role was given for its interactive sessions do not reach the store's.
    for name in ["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout"] {
        server.sql(&database, &format!("ALTER ROLE plain SET {name} = '200ms'"));
    }
    server.sql(&database, "ALTER ROLE plain SET synchronous_commit = off; ALTER ROLE plain SET search_path = nowhere");
    let backend = open(&url("plain"));
    for number in 0..200_u8 {
        backend.write(put(&[number], &[1; 20_000]), Sync::No).expect("write");
    }
    let mut scan = backend.scan(Family::Refs, Scan::all()).expect("scan");
    assert!(scan.next().is_some());
    backend.write(put(b"large", &vec![1; 64 << 20]), Sync::Yes).expect("a write that takes a while");
    assert_eq!(scan.by_ref().filter(Result::is_ok).count(), 199);
    drop(scan);
    drop(backend);

    server.sql(&database, "ALTER ROLE plain SET default_transaction_read_only = on");
    told(&url("plain"), Unavailable, &["default_transaction_read_only"]);
    server.sql(&database, "GRANT plain TO narrow");
    told(&url("narrow"), Unavailable, &["max_connections", "53300"]);

    // A format that this version does not know.
    server.sql(&database, "UPDATE govc.version SET steps = 1000");
    told(&server.url(&database), Failed, &["format 1000", "newer"]);
}

#[test]
fn a_standby_is_refused_and_a_server_without_fsync_is_told() {
    let server = Server::start(&["fsync=off", "full_page_writes=off"]);
    let database = server.database();
    let backend = open(&server.url(&database));
    assert!(!backend.describe().durable);
    assert!(backend.warnings().iter().any(|warning| warning.contains("fsync")), "{:?}", backend.warnings());
    assert!(backend.warnings().iter().any(|warning| warning.contains("full_page_writes")));
    drop(backend);
    server.down("fast");
    std::fs::write(server.data().join("standby.signal"), "").expect("standby.signal");
    server.up();
    told(&server.url(&database), BackendErrorKind::Unavailable, &["standby", "primary"]);
}

#[test]
fn a_socket_is_named_by_its_folder() {
    let server = shared();
    let folder = server.folder.display().to_string().replace('/', "%2F");
    let url = format!("postgres://postgres@/{}?host={folder}&port={}&sslmode=require", server.database(), server.port);
    let backend = open(&url);
    backend.write(put(b"key", b"1"), Sync::Yes).expect("write");
    assert!(backend.describe().location.contains(&server.folder.display().to_string()));
}

/// An authority, and a certificate for `localhost` that it signed.
struct Certificates {
    authority: PathBuf,
    certificate: String,
    key: String,
}

fn certificates(folder: &Path, name: &str) -> Certificates {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).expect("an authority");
    let issuer = Issuer::new(params, key);
    let own = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
    let certificate = params.signed_by(&own, &issuer).expect("a certificate");
    let file = folder.join(name);
    std::fs::write(&file, authority.pem()).expect("a file");
    Certificates { authority: file, certificate: certificate.pem(), key: own.serialize_pem() }
}

#[test]
fn each_sslmode_trusts_whom_libpq_would() {
    use std::os::unix::fs::{PermissionsExt, chown};
    let server = Server::prepare(&["ssl=on"]);
    let good = certificates(&server.folder, "authority.pem");
    let other = certificates(&server.folder, "other.pem");
    for (name, text) in [("server.crt", &good.certificate), ("server.key", &good.key)] {
        let file = server.data().join(name);
        std::fs::write(&file, text).expect("a file");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("permissions");
        if let Some((user, group)) = server.owner() {
            chown(&file, Some(user), Some(group)).expect("chown");
        }
    }
    server.up();
    let database = server.database();
    let url = |host: &str, mode: &str, root: Option<&Certificates>| {
        let root = root.map(|root| format!("&sslrootcert={}", root.authority.display())).unwrap_or_default();
        format!("postgres://postgres@{host}:{}/{database}?sslmode={mode}{root}", server.port)
    };
    let encrypted = "SELECT bool_and(s.ssl) FROM pg_stat_ssl AS s JOIN pg_stat_activity AS a USING (pid)
        WHERE a.application_name LIKE 'govc %'";
    for (host, mode, root, ssl) in [
        ("127.0.0.1", "disable", None, "f"),
        ("127.0.0.1", "prefer", None, "t"),
        ("127.0.0.1", "require", None, "t"),
        ("127.0.0.1", "require", Some(&good), "t"),
        ("127.0.0.1", "verify-ca", Some(&good), "t"),
        ("localhost", "verify-ca", Some(&good), "t"),
        ("localhost", "verify-full", Some(&good), "t"),
    ] {
        let backend = open(&url(host, mode, root));
        backend.write(put(b"key", b"1"), Sync::Yes).expect("write");
        assert_eq!(server.sql(&database, encrypted), [[ssl]], "{host} {mode}");
    }
    use BackendErrorKind::Failed;
    told(&url("127.0.0.1", "require", Some(&other)), Failed, &["not signed by an authority in sslrootcert"]);
    told(&url("localhost", "verify-ca", Some(&other)), Failed, &["not signed by an authority in sslrootcert"]);
    told(&url("localhost", "verify-full", Some(&other)), Failed, &["not signed by an authority in sslrootcert"]);
    told(&url("127.0.0.1", "verify-full", Some(&good)), Failed, &["for another host"]);
}

/// A table space on a small file system, which is seen by this server alone and goes with it.
#[test]
fn a_full_disk_refuses_writes_and_recovers() {
    let server = Server::prepare(&[]);
    let small = server.folder.join("small");
    std::fs::create_dir(&small).expect("a folder");
    // Without an owner of its own it belongs to whoever mounts it.
    let owned = server.owner().map(|(user, group)| format!(",uid={user},gid={group}")).unwrap_or_default();
    let script = format!("mount -t tmpfs -o size=24m{owned} tmpfs '{}' && exec \"$@\"", small.display());
    let mut wrapper: Vec<String> = Vec::new();
    match server.owner() {
        Some((user, group)) => {
            wrapper.extend(["unshare", "--mount", "sh", "-c", &script, "sh", "setpriv"].map(str::to_owned));
            wrapper.extend([format!("--reuid={user}"), format!("--regid={group}"), "--clear-groups".to_owned()]);
        }
        None => {
            let own = ["unshare", "--user", "--map-current-user", "--keep-caps", "--mount", "sh", "-c", &script, "sh"];
            wrapper.extend(own.map(str::to_owned));
        }
    }
    assert!(Command::new("unshare").arg("--version").output().is_ok(), "this test needs unshare, of util-linux");
    let server = server.wrapped(&wrapper);
    server.up();
    server.sql("postgres", &format!("CREATE TABLESPACE small LOCATION '{}'", small.display()));
    server.sql("postgres", "CREATE DATABASE small TABLESPACE small");
    server.sql("small", "CREATE TABLE ballast AS SELECT repeat(md5(n::text), 200) FROM generate_series(1, 30000) AS n");
    let backend = open(&server.url("small"));
    backend.write(put(b"before", b"1"), Sync::Yes).expect("write");
    let mut written = 0_u32;
    let error = loop {
        let mut batch = Batch::new();
        batch.put(Family::Blocks, written.to_be_bytes().to_vec(), vec![1; 300_000]);
        batch.put(Family::Ids, written.to_be_bytes().to_vec(), &b"beside"[..]);
        match backend.write(batch, if written.is_multiple_of(2) { Sync::Yes } else { Sync::No }) {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 200, "the disk does not fill up");
    };
    assert_eq!(error.kind, BackendErrorKind::Full, "{error}");
    assert!(written > 0, "{error}");
    let refused = written.to_be_bytes();
    assert_eq!(backend.get(Family::Ids, &refused).expect("get"), None, "all of it is refused");
    assert_eq!(get(&backend, b"before"), Some(b"1".to_vec()), "reads go on");
    assert_eq!(
        backend.scan(Family::Blocks, Scan::all()).expect("scan").filter(Result::is_ok).count(),
        written as usize
    );

    server.sql("small", "DROP TABLE ballast");
    let mut batch = Batch::new();
    batch.put(Family::Blocks, refused.to_vec(), vec![1; 300_000]);
    backend.write(batch, Sync::Yes).expect("there is room again");
}
