//! The wire under clients that take their time.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::{
    extremes::{Cloning, with_history},
    git::Git,
    http::Http,
    pack::{Pack, push_new},
    server::{Place, govc},
    ssh_client::until,
    tested,
};

/// How many pieces of long work run or wait.
pub(crate) fn at_work(http: &Http) -> u32 {
    let metrics = http.get("/metrics").text();
    let gauge = |name: &str| -> u32 {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)).expect("a gauge");
        line.trim().parse().expect("a number")
    };
    gauge("govc_work_running ") + gauge("govc_work_waiting ")
}

#[test]
fn slow_clients_leave_threads_to_others() {
    let place = Place::new();
    let server = place.launch().env("GOVC_WORK_THREADS", "2").start();
    server.create("repo");
    let http = server.http();
    let mut built = Pack::new();
    let tip = built.commit("ordinary");
    assert!(push_new(&http, "repo", "refs/heads/main", tip, &built.finish()).accepted());

    let begun = |service: &str, headers: &str, begun: &str| {
        let mut connection = http.connect();
        connection.write(
            format!(
                "POST /repo.git/{service} HTTP/1.1\r\nhost: {}\r\ntransfer-encoding: chunked\r\n{headers}\
                 content-type: application/x-{service}-request\r\n\r\n{:x}\r\n{begun}\r\n",
                server.address(),
                begun.len()
            )
            .as_bytes(),
        );
        connection
    };
    let deletion = format!("{tip} {} refs/heads/main\0report-status{}", tested::null(), tested::capability());
    let creation = deletion.replace(&tested::null().to_string(), &tip.to_string());
    let line = |text: &str| String::from_utf8(crate::pack::line(text.as_bytes())).expect("text");
    let slow = [
        begun("git-receive-pack", "", "00b3"),
        begun("git-receive-pack", "", &line(&creation)),
        begun("git-receive-pack", "", &format!("{}0000PACK", line(&creation))),
        begun("git-receive-pack", "content-encoding: gzip\r\n", "\x1f"),
        begun("git-upload-pack", "git-protocol: version=2\r\n", "0014command=ls-refs\n"),
    ];
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(at_work(&http), 0, "nobody works for who has said so little");
    assert_eq!(http.get("/api/v1/repos/repo/commits").status, 200);
    let mut built = Pack::new();
    let tip = built.commit("meanwhile");
    assert!(push_new(&http, "repo", "refs/heads/meanwhile", tip, &built.finish()).accepted());
    drop(slow);
}

/// Single bytes are no progress: whoever sends or takes no more loses the thread that waits for it.
#[test]
fn clients_that_trickle_are_given_up() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = with_history(&place, &git).stop();
    let server = server.env("GOVC_BODY_TIMEOUT", "1s").env("GOVC_HEADER_TIMEOUT", "1s").start();
    let http = server.http();
    let post = |service: &str, length: usize| {
        format!(
            "POST /repo.git/{service} HTTP/1.1\r\nhost: x\r\ngit-protocol: version=2\r\n\
             content-type: application/x-{service}-request\r\ncontent-length: {length}\r\n\r\n"
        )
    };
    // A body that is taken in first, and one that a thread reads.
    assert_eq!(http.trickle(post("git-upload-pack", 1000).as_bytes(), std::iter::repeat(b'0')).status, 408);
    let push = post("git-receive-pack", 1 << 20);
    assert_eq!(http.trickle(push.as_bytes(), std::iter::repeat_n(b"00b3", 250_000).flatten().copied()).status, 408);
    until("the end of the work", || at_work(&http) == 0);
    // A head: it has no answer.
    let mut connection = http.connect();
    while connection.try_write(b"G").is_ok() {
        std::thread::sleep(Duration::from_millis(20));
    }

    // An answer that is read a byte at a time.
    let tip = git.ok(&place.path("work"), &["rev-parse", "main"]);
    let mut clone = Cloning::begin(&server, &tip, false, 100);
    until("the end of the answer", || {
        clone.read(1);
        server.said().contains("\"http_cut_off\":true")
    });
    until("the end of the work", || at_work(&http) == 0);
    clone.end(&git, &place);
}

/// Ends the process however the test ends.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_log_that_nobody_reads_holds_up_nothing() {
    let mut command = govc();
    command.args(["serve", "--listen", "127.0.0.1:0", "--backend", "memory"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut server = Ended(command.spawn().expect("the server's binary starts"));
    let mut ready = String::new();
    let output = server.0.stdout.take().expect("a piped stream");
    BufReader::new(output).read_line(&mut ready).expect("a line about the address");
    let (_, rest) = ready.split_once("listening on http://").expect("the ready line");
    let address = rest.split(' ').next().and_then(|address| address.parse().ok()).expect("an address");
    // Each line names the path: together far more than the pipe and the server's buffer hold.
    let path = format!("/{}", "x".repeat(8000));
    for _ in 0..1000 {
        assert_eq!(Http::new(address).get(&path).status, 404);
    }
    let terminate = format!("kill -TERM {}", server.0.id());
    assert!(Command::new("sh").args(["-c", &terminate]).status().expect("sh runs").success());
    let status = server.0.wait().expect("the process can be waited for");
    assert!(status.success(), "it ended with {status}");
}
