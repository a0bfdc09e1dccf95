//! Precedence, refusals and what they say. Everything goes through [`Config::resolve`].

use super::*;

/// Resolves a file's text, `NAME=value` lines of the environment and `name=value` flags.
fn resolve(file: &str, environment: &[&str], flags: &[(&'static str, &str)]) -> Result<Config, String> {
    let environment = environment.iter().map(|line| {
        let (name, value) = line.split_once('=').expect("NAME=value");
        (name.to_owned(), value.to_owned())
    });
    let given = Given {
        flags: flags.iter().map(|(name, value)| (*name, (*value).to_owned())).collect(),
        environment: environment.collect(),
        file: (!file.is_empty()).then(|| (PathBuf::from("govc.toml"), file.to_owned())),
        machine_memory_bytes: Some(8 * GIB),
    };
    Config::resolve(&given).map_err(|error| error.to_string())
}

#[track_caller]
fn check_refused(result: Result<Config, String>, words: &[&str]) {
    let message = result.expect_err("must be refused");
    for word in words {
        assert!(message.contains(word), "{message:?} does not name {word:?}");
    }
}

#[test]
fn nothing_given_means_the_defaults_and_half_of_the_machine() {
    let config = resolve("", &["HOME=/root", "GOVC_TEST_KILLS=3"], &[]).unwrap();
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.storage.backend, Location::Rocksdb(PathBuf::from("./govc-data/rocksdb")));
    assert_eq!(config.backend_name(), "rocksdb");
    assert_eq!(config.storage.memory_bytes, 4 * GIB);
    assert_eq!(config.git.pack_cache_memory_bytes, 256 * MIB);
    assert_eq!(config.engine_memory_bytes(), 4 * GIB - 256 * MIB);
    assert_eq!(config.server.buffered_bytes_max, 512 * MIB);
    assert_eq!(resolve("", &[], &[("memory", "1G")]).unwrap().server.buffered_bytes_max, 256 * MIB);
    assert!(!config.git.create_on_push);
    assert_eq!(config.git.default_object_format, ObjectFormat::Sha1);
    assert_eq!(config.server.shutdown_timeout, Duration::from_secs(30));
}

#[test]
fn flags_win_over_environment_over_file() {
    let file = "[storage]\ndata = \"file\"\nmemory = \"1GiB\"\n[git]\nmax_pack = 4096\n";
    let environment = ["GOVC_DATA=environment", "GOVC_MEMORY=2G"];
    let config = resolve(file, &environment, &[("data", "flag")]).unwrap();
    assert_eq!(config.storage.data, PathBuf::from("flag"));
    assert_eq!(config.storage.memory_bytes, 2 * GIB);
    assert_eq!(config.git.pack_bytes_max, 4096);
}

#[test]
fn every_setting_is_taken_from_file_and_environment() {
    let file = r#"
        [server]
        host = "::1"
        port = 9000
        insecure_no_auth = false
        max_body = "1MiB"
        body_timeout = "6s"
        max_buffered = "9MiB"
        header_timeout = "5s"
        max_connections = 10
        work_threads = 3
        work_queue = 4
        work_timeout = "7s"
        shutdown_timeout = "8s"
        tls_cert = "c.pem"
        tls_key = "k.pem"
        ssh_listen = "127.0.0.1:2222"
        ssh_authorized_keys = "people"
        ssh_host_key = "h"
        public_url = "https://git.example.org:8443/code/"
        [storage]
        backend = "memory"
        data = "d"
        memory = "64MiB"
        reserve = "0"
        max_object = "1KB"
        relaxed_delay = "20ms"
        [versions]
        max_count = "77"
        max_age = "8d"
        [compaction]
        enabled = false
        min_growth = "8MiB"
        growth_percent = 33
        archive_after = "9d"
        cpu_percent = "50%"
        max_rate = "10MiB"
        memory = "64MiB"
        [search]
        enabled = false
        memory = "3MiB"
        [limits]
        references = "5"
        changes = "6"
        realities = "7"
        [transactions]
        max_open = "8"
        max_bytes = "9MiB"
        idle = "10s"
        [logging]
        level = "WARN"
        format = "text"
        [metrics]
        enabled = false
        path = "/internal/metrics"
        [git]
        create_on_push = true
        default_object_format = "SHA256"
        max_pack = "3MB"
        pack_cache_memory = "1M"
        pack_cache_disk = "2M"
        fetch_grace = "7s"
        allowed_signers = "signers"
        cert_nonce_slop = "9s"
        bundle_uris = true
        packfile_uris = false
        uri_min_pack = "3M"
        uri_lifetime = "8s"
        [lfs]
        max_object = "6M"
    "#;
    check_refused(resolve(file, &[], &[]), &["storage.max_object", "\"1KB\"", "at least 1024"]);
    let config = resolve(&file.replace("1KB", "1K"), &[], &[]).unwrap();
    let server = ServerConfig {
        listen: "[::1]:9000".parse().unwrap(),
        insecure_no_auth: false,
        body_bytes_max: MIB,
        body_timeout: Duration::from_secs(6),
        buffered_bytes_max: 9 * MIB,
        header_timeout: Duration::from_secs(5),
        connections_max: 10,
        work_threads: 3,
        work_queue_max: 4,
        work_timeout: Duration::from_secs(7),
        shutdown_timeout: Duration::from_secs(8),
        tls: Some(TlsConfig { cert: PathBuf::from("c.pem"), key: PathBuf::from("k.pem") }),
        ssh: Some(SshConfig {
            listen: "127.0.0.1:2222".parse().unwrap(),
            authorized_keys: PathBuf::from("people"),
            host_key: Some(PathBuf::from("h")),
        }),
        public_url: Some("https://git.example.org:8443/code".to_owned()),
    };
    let storage = StorageConfig {
        backend: Location::Memory,
        data: PathBuf::from("d"),
        memory_bytes: 64 * MIB,
        reserve_bytes: 0,
        object_bytes_max: KIB,
        relaxed_delay_max: Duration::from_millis(20),
    };
    let versions = VersionsConfig { count_max: 77, age_max: Duration::from_secs(8 * 24 * 3600) };
    let compaction = CompactionConfig {
        enabled: false,
        fresh_bytes_min: 8 * MIB,
        growth_percent: 33,
        archive_age: Duration::from_secs(9 * 24 * 3600),
        cpu_percent: 50,
        rate_max: 10 * MIB,
        memory_bytes: 64 * MIB,
    };
    let search = SearchConfig { enabled: false, memory_bytes: 3 * MIB };
    let limits = LimitsConfig { references_max: 5, changes_max: 6, realities_max: 7 };
    let transactions = TransactionsConfig { open_max: 8, bytes_max: 9 * MIB, idle: Duration::from_secs(10) };
    let logging = LoggingConfig { level: LevelFilter::WARN, format: LogFormat::Text };
    let metrics = MetricsConfig { enabled: false, path: "/internal/metrics".to_owned() };
    let git = GitConfig {
        create_on_push: true,
        default_object_format: ObjectFormat::Sha256,
        pack_bytes_max: 3_000_000,
        pack_cache_memory_bytes: MIB,
        pack_cache_disk_bytes: 2 * MIB,
        fetch_grace: Duration::from_secs(7),
        bundle_uris: true,
        packfile_uris: false,
        uri_pack_bytes_min: 3 * MIB,
        uri_lifetime: Duration::from_secs(8),
    };
    let signing = SigningConfig { allowed_signers: Some(PathBuf::from("signers")), nonce_slop: Duration::from_secs(9) };
    let lfs = LfsConfig { object_bytes_max: 6 * MIB };
    assert_eq!(
        config,
        Config {
            server,
            storage,
            versions,
            compaction,
            search,
            limits,
            transactions,
            logging,
            metrics,
            git,
            signing,
            lfs
        }
    );

    // No setting's variable may be unknown to the environment, and none may be ignored.
    for variable in sources::variables().filter(|name| *name != "GOVC_CONFIG") {
        let refused = resolve("", &[&format!("{variable}=\u{0}")], &[]);
        check_refused(refused, &[variable]);
    }
}

#[test]
fn unknown_names_are_refused_with_their_place() {
    check_refused(resolve("[storage]\nbakend = 1", &[], &[]), &["storage.bakend", "govc.toml"]);
    check_refused(resolve("[auth]\njwt = 1", &[], &[]), &["[auth]", "govc.toml"]);
    check_refused(resolve("listen = \"127.0.0.1:1\"", &[], &[]), &["listen", "govc.toml"]);
    check_refused(resolve("", &["GOVC_BAKEND=memory"], &[]), &["GOVC_BAKEND"]);
    check_refused(resolve("[server", &[], &[]), &["govc.toml", "TOML"]);
}

#[test]
fn bad_values_are_refused_with_key_and_place() {
    check_refused(
        resolve("[storage]\nbackend = \"mysql\"", &[], &[]),
        &["storage.backend", "\"mysql\"", "govc.toml", "rocksdb, sqlite or memory"],
    );
    check_refused(resolve("", &["GOVC_MEMORY=lots"], &[]), &["storage.memory", "\"lots\"", "GOVC_MEMORY", "512MiB"]);
    check_refused(resolve("", &[], &[("log-level", "loud")]), &["logging.level", "\"loud\"", "--log-level"]);
    check_refused(resolve("[server]\nport = 70000", &[], &[]), &["server.port", "\"70000\""]);
    check_refused(resolve("[server]\nport = [1]", &[], &[]), &["server.port", "array"]);
    check_refused(resolve("[server]\nshutdown_timeout = \"31s\"", &[], &[]), &["at most 30 s"]);
    check_refused(resolve("[git]\npack_cache_memory = \"9G\"", &[], &[]), &["git.pack_cache_memory", "half"]);
}

#[test]
fn host_and_port_override_their_part_only() {
    let file = "[server]\nlisten = \"127.0.0.2:9000\"";
    let address = |environment: &[&str], flags: &[(&'static str, &str)]| {
        resolve(file, environment, flags).unwrap().server.listen.to_string()
    };
    assert_eq!(address(&["GOVC_PORT=9001"], &[]), "127.0.0.2:9001");
    assert_eq!(address(&["GOVC_HOST=localhost"], &[]), "127.0.0.1:9000");
    assert_eq!(address(&["GOVC_PORT=9001"], &[("listen", "localhost:1")]), "127.0.0.1:1");
    check_refused(resolve("", &["GOVC_LISTEN=127.0.0.1:1", "GOVC_PORT=2"], &[]), &["server.listen", "server.port"]);
}

#[test]
fn beyond_loopback_needs_the_flag() {
    for open in ["0.0.0.0:8080", "[::]:8080", "192.168.0.1:80"] {
        let refused = resolve("", &[], &[("listen", open)]);
        check_refused(refused, &["server.listen", open, "--listen", "--insecure-no-auth"]);
        let flags = [("listen", open), ("insecure-no-auth", "true")];
        assert_eq!(resolve("", &[], &flags).unwrap().server.listen.to_string(), open);
    }
    check_refused(resolve("", &["GOVC_HOST=0.0.0.0"], &[]), &["GOVC_HOST", "--insecure-no-auth"]);
    for local in ["127.8.9.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
        resolve("", &[], &[("listen", local)]).unwrap();
    }
}

#[test]
fn a_certificate_needs_its_key() {
    check_refused(resolve("[server]\ntls_cert = \"c\"", &[], &[]), &["server.tls_cert", "govc.toml", "server.tls_key"]);
    check_refused(resolve("", &["GOVC_TLS_KEY=k"], &[]), &["server.tls_key", "GOVC_TLS_KEY", "server.tls_cert"]);
    let config = resolve("[server]\ntls_cert = \"c\"", &[], &[("tls-key", "k")]).unwrap();
    assert_eq!(config.server.tls, Some(TlsConfig { cert: "c".into(), key: "k".into() }));
}

#[test]
fn ssh_needs_an_address_and_keys() {
    let flags = [("ssh-listen", "127.0.0.1:0")];
    check_refused(resolve("", &[], &flags), &["server.ssh_listen", "--ssh-listen", "server.ssh_authorized_keys"]);
    let keys = ["GOVC_SSH_AUTHORIZED_KEYS=k"];
    check_refused(resolve("", &keys, &[]), &["server.ssh_authorized_keys", "server.ssh_listen"]);
    check_refused(resolve("", &["GOVC_SSH_HOST_KEY=k"], &[]), &["server.ssh_host_key", "server.ssh_listen"]);
    let ssh = resolve("", &keys, &flags).unwrap().server.ssh.unwrap();
    assert_eq!((ssh.listen.port(), ssh.host_key), (0, None));
    // Everybody has a key there, so it may be reached from everywhere.
    resolve("", &keys, &[("ssh-listen", "0.0.0.0:22")]).unwrap();
}

#[test]
fn the_flag_names_the_file_before_the_environment() {
    let mut given = Given::default();
    assert!(given.file_path().is_none());
    given.environment.insert("GOVC_CONFIG".to_owned(), "e.toml".to_owned());
    assert_eq!(given.file_path().unwrap().0, PathBuf::from("e.toml"));
    given.flags.push(("config", "f.toml".to_owned()));
    assert_eq!(given.file_path().unwrap().0, PathBuf::from("f.toml"));
}

#[test]
fn sizes() {
    assert_eq!(values::size("4096"), Ok(4096));
    assert_eq!(values::size("512MiB"), Ok(512 * MIB));
    assert_eq!(values::size("2G"), Ok(2 * GIB));
    assert_eq!(values::size("1 kb"), Ok(1000));
    for bad in ["", "G", "-1", "1.5G", "1X", "99999999999999999999", "18446744073709551615K"] {
        assert!(values::size(bad).is_err(), "{bad}");
    }
}

#[test]
fn durations() {
    assert_eq!(values::duration("30s"), Ok(Duration::from_secs(30)));
    assert_eq!(values::duration("500ms"), Ok(Duration::from_millis(500)));
    assert_eq!(values::duration("2h"), Ok(Duration::from_secs(7200)));
    for bad in ["", "30", "0s", "s", "1d", "18446744073709551615h", "9000h"] {
        assert!(values::duration(bad).is_err(), "{bad}");
    }
}

#[test]
fn metrics_paths_are_plain_and_free() {
    assert_eq!(values::metrics_path("/a/metrics.txt"), Ok("/a/metrics.txt".to_owned()));
    for bad in ["", "metrics", "/", "/a//b", "/{x}", "/..", "/health", "/api/v1/x", "/a b", "/a/"] {
        assert!(values::metrics_path(bad).is_err(), "{bad}");
    }
}

#[test]
fn the_help_lists_every_key_and_variable() {
    let help = crate::cli::serve_help();
    for name in sources::keys().chain(sources::variables()) {
        let name = name.rsplit('.').next().expect("a name");
        assert!(help.contains(name), "the help of `govc serve` does not name {name}");
    }
}
