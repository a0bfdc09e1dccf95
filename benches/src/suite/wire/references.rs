//! Lists of references by prefix, in repositories that have very many.

use std::time::Duration;

use crate::bench::{Bench, progress};
use crate::error::{Context, Error, Result};
use crate::generate::import;
use crate::http::Client;
use crate::load::pushes;
use crate::load::repeat::{self, Repeat};
use crate::peer::GitHttp;
use crate::report::{Row, median};
use crate::server::{Govc, NewRepository};
use crate::subject::Subject;
use crate::wire;

const SUITE: &str = "references";

/// Branches of one agent: what its prefix finds.
const OF_ONE_AGENT: usize = 10;

pub(in crate::suite) fn run(bench: &Bench) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for count in [100_000, 1_000_000] {
        rows.extend(among(bench, count)?);
    }
    Ok(rows)
}

fn name_of(number: usize) -> String {
    format!("refs/heads/agent-{:06}/task-{}", number / OF_ONE_AGENT, number % OF_ONE_AGENT)
}

fn among(bench: &Bench, count: usize) -> Result<Vec<Row>> {
    let git = &bench.git;
    let folder = bench.fresh_folder()?;
    progress(&format!("{count} references"));
    let peer = GitHttp::start(git, &folder.path().join("repositories"))?;
    let path = peer.create(git, "many")?;
    import(git, &path, |out| {
        write!(out, "commit refs/heads/main\nmark :1\ncommitter A <a@example.com> 1700000000 +0000\ndata 0\n\n")
    })?;
    let id = git.lines(&path, ["rev-parse", "main"])?.concat();
    let names: Vec<String> = (1..count).map(name_of).collect();
    // As `git pack-refs` would leave them, which takes minutes to make so many one by one.
    let mut packed = "# pack-refs with: peeled fully-peeled sorted \n".to_owned();
    names.iter().for_each(|name| packed += &format!("{id} {name}\n"));
    std::fs::write(path.join("packed-refs"), packed).context(|| "cannot write the peer's references".into())?;
    progress(&format!("references: pushing {count}"));
    let server = Govc::start(&bench.govc, &folder.path().join("data"))?;
    server.create(&NewRepository { name: "many", default_branch: "main", durability: "durable" })?;
    git.run(&path, ["push", "--quiet", &server.url("many"), "main"])?;
    pushes::create_references(server.address(), "many", &id, &names)?;

    progress(&format!("references: listing among {count}"));
    let prefix = name_of(count / 2);
    let prefix = prefix.rsplit_once('/').map_or(prefix.as_str(), |(agent, _)| agent);
    let requests = [wire::list_request(&[&format!("{prefix}/")])];
    let mut expected = git.lines(&path, ["for-each-ref", "--format=%(objectname) %(refname)", prefix])?;
    expected.sort_unstable();
    if expected.len() != OF_ONE_AGENT {
        return Err(Error::new(format!("{} references begin with {prefix}", expected.len())));
    }
    let mut found = wire::list_by(&mut Client::connect(server.address())?, "many", &requests[0])?;
    found.sort_unstable();
    let all = wire::list(&mut Client::connect(server.address())?, "many")?.len();
    // `HEAD` is one more.
    let verified = found == expected && all == count + 1;

    let [mut ours, mut ours_p99, mut peers, mut peers_p99] = [(); 4].map(|()| Vec::new());
    for _ in 0..bench.runs {
        for (subject, p50, p99) in
            [(&server as &dyn Subject, &mut ours, &mut ours_p99), (&peer, &mut peers, &mut peers_p99)]
        {
            let outcome = repeat::run(&Repeat {
                address: subject.address(),
                path: &wire::fetch_path("many"),
                headers: &wire::FETCH_HEADERS,
                bodies: &requests,
                connections: 1,
                time: Duration::from_secs(bench.seconds),
            })?;
            p50.push(outcome.quantile_millis(0.5));
            p99.push(outcome.quantile_millis(0.99));
        }
    }
    server.stop()?;
    let row = |what: &str, ours, peers| {
        let work = format!("ls-refs of {OF_ONE_AGENT} by prefix among {count}, one connection, {what}");
        Row::new(SUITE, work, "ms", median(ours)).beside(super::PEER, median(peers)).verified(verified)
    };
    Ok(vec![row("p50", ours, peers), row("p99", ours_p99, peers_p99)])
}
