//! Repositories of both object formats in one store: each keeps to its own, through everything that moves what is stored.

use std::{
    collections::BTreeSet,
    io::Write,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

use govc_backends::Survivors;
use govc_engine::{
    Change, Commit, Content, Durability, EntryMode, ErrorKind, Expected, Family, Fsck, Kind, NewRealities,
    ObjectFormat, Oid, OidPrefix, PromoteRequest, Promotion, ReachOptions, RefName, Repo, RepoSettings, Silent, Store,
    block::Base, hash_object,
};

use crate::{
    commit::{files, put, request},
    helper::{
        branch, commit_bytes, crash, disk, edit, entries, kind, message, open, options, publish, repo_name, signature,
    },
    rewrite::{MEMORY_BYTES, assert_clean, pool, write},
};

fn other(format: ObjectFormat) -> ObjectFormat {
    match format {
        ObjectFormat::Sha1 => ObjectFormat::Sha256,
        ObjectFormat::Sha256 => ObjectFormat::Sha1,
    }
}

fn create(store: &Store, format: ObjectFormat, durability: Durability) -> Repo {
    let settings = RepoSettings { durability, object_format: format, ..RepoSettings::default() };
    store.create(&repo_name(format.as_str()), settings, "tester").unwrap()
}

fn commit(repo: &Repo, changes: Vec<Change>) -> Oid {
    let committed = repo.commit(request(&branch("main"), changes)).unwrap();
    committed.published.ticket.wait().unwrap();
    committed.oid
}

/// A history with directories, a link, a merge, a tag and a submodule on branch `main`.
fn fill(repo: &Repo) {
    let first = commit(repo, vec![put("a", "A"), put("dir/b", "B"), put("dir/deep/c", "C")]);
    let link =
        Change::Put { path: b"link".to_vec(), content: Content::Bytes("a".into()), mode: Some(EntryMode::SYMLINK) };
    commit(repo, vec![link, put("a", "A2")]);
    let work = RefName::reality("work").unwrap();
    let new = NewRealities {
        names: vec![work.clone()],
        base: first,
        version: repo.snapshot().version().number,
        from: Some(branch("main")),
        ttl: None,
        actor: "tester".to_owned(),
    };
    repo.create_realities(new).unwrap().ticket.wait().unwrap();
    repo.commit(request(&work, vec![put("dir/new", "N")])).unwrap().published.ticket.wait().unwrap();
    let promoted = repo.promote(&PromoteRequest {
        reality: work,
        target: branch("main"),
        promotion: Promotion::Merge,
        keep: false,
        committer: signature(3),
        message: None,
        actor: "tester".to_owned(),
        deadline: None,
    });
    promoted.unwrap().published.ticket.wait().unwrap();
    let head = repo.snapshot().reference(&branch("main")).unwrap();
    assert_eq!(repo.snapshot().commit(&head).unwrap().parents.len(), 2);

    let mut transaction = repo.begin("tester", govc_engine::Cause::Push);
    let format = repo.object_format();
    let blob = transaction.put(Kind::Blob, "in a pushed tree".into()).unwrap();
    let submodule = vec![7; format.len()];
    let tree = [b"100644 file\0", blob.as_bytes(), b"160000 sub\0", &submodule].concat();
    let tree = transaction.put(Kind::Tree, tree.into()).unwrap();
    let pushed = transaction.put(Kind::Commit, commit_bytes(tree, &[head], 5, "pushed\n")).unwrap();
    let tag = format!("object {pushed}\ntype commit\ntag v1\ntagger T <t@example.com> 6 +0000\n\ntagged\n");
    let tag = transaction.put(Kind::Tag, tag.into()).unwrap();
    transaction.edit(edit(&branch("pushed"), Expected::Absent, Some(pushed))).unwrap();
    transaction.edit(edit(&RefName::new("refs/tags/v1").unwrap(), Expected::Absent, Some(tag))).unwrap();
    publish(transaction).unwrap().ticket.wait().unwrap();
}

/// Looks at what [`fill`] made.
fn check(repo: &Repo, format: ObjectFormat, when: &str) {
    let snapshot = repo.snapshot();
    assert_eq!((repo.object_format(), repo.settings().object_format), (format, format), "{when}");
    assert!(snapshot.references().all(|(_, oid)| oid.format() == format), "{when}");
    let found = files(repo, &branch("main"));
    let found: Vec<_> = found.iter().map(|(path, (_, text))| (path.as_str(), text.as_str())).collect();
    let expected = [("a", "A2"), ("dir/b", "B"), ("dir/deep/c", "C"), ("dir/new", "N"), ("link", "a")];
    assert_eq!(found, expected, "{when}");
    let tag = snapshot.resolve("v1").unwrap();
    assert_eq!(snapshot.tag(&tag).unwrap().target, snapshot.resolve("pushed").unwrap(), "{when}");
    assert_eq!(snapshot.entry(snapshot.resolve("pushed").unwrap(), b"sub").unwrap().unwrap().oid.format(), format);
    for oid in reached(repo) {
        let object = snapshot.object(&oid).unwrap();
        assert_eq!(hash_object(format, object.kind, &object.data).unwrap(), oid, "{when}");
        assert_eq!(snapshot.resolve(&oid.to_string()).unwrap(), oid, "{when}");
        let longest = &oid.to_string()[..format.hex_len() - 1];
        assert_eq!(snapshot.resolve(longest).unwrap(), oid, "{when}");
        let prefix = OidPrefix::parse(&longest[..10]).unwrap();
        assert_eq!(snapshot.ids_with_prefix(&prefix, 5).unwrap(), [oid], "{when}");
    }
}

/// Everything that the references lead to.
fn reached(repo: &Repo) -> BTreeSet<Oid> {
    let snapshot = repo.snapshot();
    let wants: Vec<Oid> = snapshot.references().map(|(_, oid)| *oid).collect();
    let reach = snapshot.reach(&ReachOptions { wants: &wants, ..ReachOptions::default() }).unwrap();
    reach.objects.into_iter().map(|(oid, _)| oid).collect()
}

#[test]
fn both_formats_live_in_one_store() {
    let mut backend = disk();
    let mut store = open(&backend);
    for format in ObjectFormat::ALL {
        fill(&create(&store, format, Durability::Durable));
    }
    let each = |store: &Store, when: &str| {
        for format in ObjectFormat::ALL {
            check(&store.repo(&repo_name(format.as_str())).unwrap(), format, when);
        }
    };
    each(&store, "made");
    // From the journal, then from what was settled.
    for when in ["replayed", "settled"] {
        backend = crash(&backend, Survivors::Synced);
        store = open(&backend);
        each(&store, when);
        store.settle();
    }
    for format in ObjectFormat::ALL {
        let repo = store.repo(&repo_name(format.as_str())).unwrap();
        let rewrite = repo.rewrite(9, MEMORY_BYTES, &Silent).unwrap();
        write(&rewrite);
        assert!(rewrite.install(&Silent).unwrap().objects > 10);
    }
    each(&store, "rewritten");
    backend = crash(&backend, Survivors::All);
    store = open(&backend);
    each(&store, "rewritten and opened again");
    for format in ObjectFormat::ALL {
        let fork = store.fork(&repo_name(format.as_str()), &repo_name(&format!("{format}-fork")), "tester").unwrap();
        check(&fork, format, "forked");
        commit(&fork, vec![put("a", "fork")]);
        store.delete(&repo_name(format.as_str())).unwrap();
    }
    let disk = backend.crash(Survivors::All).unwrap();
    assert_clean(&disk, "at the end");
    let store = Store::open(Arc::new(disk), options()).unwrap();
    for format in ObjectFormat::ALL {
        let fork = store.repo(&repo_name(&format!("{format}-fork"))).unwrap();
        assert_eq!((fork.object_format(), files(&fork, &branch("main"))["a"].1.as_str()), (format, "fork"));
    }
}

#[test]
fn memory_repositories_are_of_either_format() {
    let store = open(&disk());
    for format in ObjectFormat::ALL {
        let repo = create(&store, format, Durability::Memory);
        fill(&repo);
        check(&repo, format, "in memory");
        let fork = store.fork(&repo_name(format.as_str()), &repo_name("fork"), "tester").unwrap();
        check(&fork, format, "forked in memory");
        store.delete(&repo_name("fork")).unwrap();
    }
}

#[test]
fn rows_have_ids_of_their_repository_s_width() {
    let backend = disk();
    let store = open(&backend);
    for format in ObjectFormat::ALL {
        let repo = create(&store, format, Durability::Durable);
        fill(&repo);
        store.settle();
        let keys = entries(&*backend, Family::Ids, &pool(&repo));
        assert!(!keys.is_empty() && keys.iter().all(|(key, _)| key.len() == 8 + format.len()));
        let refs = entries(&*backend, Family::Refs, &pool(&repo));
        assert!(!refs.is_empty() && refs.iter().all(|(_, value)| value.len() == format.len()));
        // The version of version rows, which programs that know of SHA-1 alone refuse if it is another.
        let versions = entries(&*backend, Family::History, &[&b"v"[..], &pool(&repo)].concat());
        let version = if format == ObjectFormat::Sha1 { 1 } else { 2 };
        assert!(!versions.is_empty() && versions.iter().all(|(_, value)| value[0] == version));
    }
}

#[test]
fn ids_of_the_other_format_never_come_in() {
    for durability in [Durability::Durable, Durability::Memory] {
        let store = open(&disk());
        let repos = ObjectFormat::ALL.map(|format| create(&store, format, durability));
        for (repo, stranger) in [(&repos[0], &repos[1]), (&repos[1], &repos[0])] {
            let own = commit(repo, vec![put("a", "1")]);
            let foreign = commit(stranger, vec![put("b", "2")]);
            let (format, strange) = (repo.object_format(), stranger.object_format());
            let blob = |format| hash_object(format, Kind::Blob, b"new").unwrap();

            // As what a reference points at.
            let mut transaction = repo.begin("tester", govc_engine::Cause::Push);
            for target in [foreign, strange.null(), strange.empty_tree()] {
                let refused = transaction.edit(edit(&branch("x"), Expected::Any, Some(target)));
                assert_eq!(kind(refused), ErrorKind::Invalid, "{target}");
            }
            assert_eq!(kind(repo.create_ref(branch("x"), foreign, "tester")), ErrorKind::Invalid);
            // As what it is expected to be.
            let stale = edit(&branch("main"), Expected::Is(foreign), Some(own));
            transaction.edit(stale).unwrap();
            assert!(matches!(kind(publish(transaction)), ErrorKind::Conflict(_)));
            // As an object's own.
            let mut transaction = repo.begin("tester", govc_engine::Cause::Push);
            transaction.put_hashed(blob(strange), Kind::Blob, "new".into());
            assert_eq!(kind(publish(transaction)), ErrorKind::Invalid);
            let ingest = repo.ingest();
            let mut lane = ingest.lane();
            assert_eq!(kind(lane.add(blob(strange), Kind::Blob, 3, Base::Whole, b"new")), ErrorKind::Invalid);
            lane.add(blob(format), Kind::Blob, 3, Base::Whole, b"new").unwrap();
            lane.finish().unwrap();
            let staged = ingest.finish().unwrap();
            assert_eq!(kind(stranger.begin("tester", govc_engine::Cause::Push).attach(staged)), ErrorKind::Invalid);
            // In commits, and where realities begin.
            let file = |content| Change::Put { path: b"c".to_vec(), content, mode: None };
            let refused = repo.commit(request(&branch("main"), vec![file(Content::Blob(blob(strange)))]));
            assert_eq!(kind(refused), ErrorKind::NotFound);
            let new = NewRealities {
                names: vec![RefName::reality("r").unwrap()],
                base: foreign,
                version: repo.snapshot().version().number,
                from: None,
                ttl: None,
                actor: "tester".to_owned(),
            };
            assert!(matches!(kind(repo.create_realities(new)), ErrorKind::NotFound | ErrorKind::Invalid));

            let snapshot = repo.snapshot();
            for id in [foreign, strange.null(), strange.empty_tree(), blob(strange)] {
                assert_eq!(kind(snapshot.object(&id)), ErrorKind::NotFound);
                assert_eq!((snapshot.header(&id).unwrap(), snapshot.contains(&id).unwrap()), (None, false));
                assert_eq!(kind(snapshot.resolve(&id.to_string())), ErrorKind::NotFound);
            }
            assert_eq!(snapshot.reference(&branch("main")), Some(own));
            assert!(snapshot.contains(&format.empty_tree()).unwrap());
        }
    }
}

#[test]
fn a_repository_keeps_its_format() {
    let store = open(&disk());
    for format in ObjectFormat::ALL {
        let repo = create(&store, format, Durability::Durable);
        let settings = RepoSettings { object_format: other(format), ..repo.settings() };
        let name = repo_name(format.as_str());
        assert_eq!(kind(store.alter(&name, None, Some(settings))), ErrorKind::Invalid);
        let settings = RepoSettings { description: "text".to_owned(), ..repo.settings() };
        store.alter(&name, None, Some(settings)).unwrap();
        assert_eq!((repo.object_format(), repo.settings().description.as_str()), (format, "text"));
    }
    assert_eq!(RepoSettings::default().object_format, ObjectFormat::Sha1);
}

fn git(folder: &Path, arguments: &[&str], input: &[u8]) -> String {
    let mut command = Command::new("git");
    command.current_dir(folder).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "git {arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Git takes what was made, says the same ids, finds nothing wrong and reaches as many objects.
#[test]
fn git_agrees_with_what_is_made() {
    let store = open(&disk());
    for format in ObjectFormat::ALL {
        let repo = create(&store, format, Durability::Durable);
        fill(&repo);
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        git(folder, &["init", "-q", "--bare", &format!("--object-format={format}"), "."], b"");
        let snapshot = repo.snapshot();
        let objects = reached(&repo);
        for oid in &objects {
            let object = snapshot.object(oid).unwrap();
            let hashed = git(folder, &["hash-object", "-w", "-t", object.kind.as_str(), "--stdin"], &object.data);
            assert_eq!(hashed.trim_end(), oid.to_string());
        }
        for (name, oid) in snapshot.references() {
            git(folder, &["update-ref", &name.to_string(), &oid.to_string()], b"");
        }
        git(folder, &["fsck", "--strict", "--full"], b"");
        let listed = git(folder, &["rev-list", "--objects", "--all"], b"");
        let listed: BTreeSet<Oid> = listed
            .lines()
            .map(|line| format.oid_from_hex(line.split(' ').next().unwrap().as_bytes()).unwrap())
            .collect();
        assert_eq!(listed, objects);
        // What git makes of the same is the same.
        let head = snapshot.resolve("main").unwrap();
        let data = snapshot.object_of(&head, Kind::Commit).unwrap();
        assert_eq!(git(folder, &["cat-file", "commit", "main"], b"").as_bytes(), &data[..]);
        assert_eq!(Commit::parse(&data).unwrap().to_bytes(), data);
        let base = snapshot.merge_base(head, snapshot.resolve("pushed").unwrap(), None).unwrap();
        assert_eq!(git(folder, &["merge-base", "main", "pushed"], b"").trim_end(), base.unwrap().to_string());
        assert_eq!(message(&repo, &branch("pushed")).as_deref(), Some("pushed\n"));
    }
}

#[test]
fn an_id_of_the_other_width_is_damage() {
    let backend = disk();
    let store = open(&backend);
    for format in ObjectFormat::ALL {
        let repo = create(&store, format, Durability::Durable);
        fill(&repo);
    }
    store.settle();
    let settled = backend.crash(Survivors::All).unwrap();
    for format in ObjectFormat::ALL {
        let disk = settled.fork().unwrap();
        let pool = pool(&store.repo(&repo_name(format.as_str())).unwrap());
        // The object is another one then, and the right one is missing.
        let (id_key, row) = entries(&disk, Family::Ids, &pool).swap_remove(0);
        let mut wrong = pool.to_vec();
        wrong.resize(8 + other(format).len(), 9);
        let mut batch = govc_engine::Batch::new();
        batch.delete(Family::Ids, id_key.to_vec());
        batch.put(Family::Ids, wrong, row.to_vec());
        govc_engine::Backend::write(&disk, batch, govc_engine::backend::Sync::Yes).unwrap();
        let found = Fsck::run(Arc::new(disk), options(), &Silent).unwrap();
        assert!(found.findings.iter().any(|finding| finding.contains("09090909")), "{:?}", found.findings);
        assert!(found.findings.iter().any(|finding| finding.contains("missing")), "{:?}", found.findings);
    }
}
