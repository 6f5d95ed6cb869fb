//! Pushes to a real registry, and what an outside judge (skopeo) finds there.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use berth_tests::{Finished, Node, Registry, Setup, run};
use serde_json::Value;

const OURS: &str = "127.0.0.1:5001";

/// A node with the fixtures' registry, and another, empty registry.
fn place() -> (Node, Registry) {
    let node = Node::with(Setup { registry: true, ..Setup::default() });
    std::fs::create_dir(node.path("pushed")).unwrap();
    let registry = Registry::serve(&node.netns, &node.path("pushed"), OURS);
    (node, registry)
}

fn skopeo(node: &Node, arguments: &[&str], name: &str) -> Finished {
    run(node.netns.command("skopeo").args(arguments).arg(format!("docker://{name}")), b"")
}

fn raw(node: &Node, name: &str) -> Vec<u8> {
    let raw = skopeo(node, &["inspect", "--raw", "--tls-verify=false"], name);
    raw.ok();
    raw.stdout
}

fn sha256(bytes: &[u8]) -> String {
    let sum = run(&mut std::process::Command::new("sha256sum"), bytes);
    format!("sha256:{}", sum.ok().split(' ').next().unwrap())
}

/// The digest that a push says last.
fn digest(pushed: &Finished) -> String {
    let last = pushed.ok().lines().last().unwrap();
    last.split("digest: ").nth(1).unwrap().split(' ').next().unwrap().to_owned()
}

#[test]
fn what_was_pulled_is_pushed_byte_for_byte() {
    let (node, registry) = place();
    node.berth(&["pull", "-q", "redis:4-alpine"]).ok();
    let name = format!("{OURS}/team/cache:1");
    node.berth(&["tag", "redis:4-alpine", &name]).ok();
    let pushed = node.berth(&["push", &name]);
    assert!(pushed.ok().starts_with(&format!("The push refers to repository [{OURS}/team/cache]\n")), "{pushed:?}");
    assert!(pushed.text().contains(": Preparing\n") && pushed.text().contains(": Pushed\n"), "{pushed:?}");
    let manifest = raw(&node, &name);
    assert_eq!(manifest, raw(&node, "127.0.0.1:5000/library/redis:4-alpine"));
    let said = format!("1: digest: {} size: {}", sha256(&manifest), manifest.len());
    assert_eq!(pushed.text().lines().last().unwrap(), said);
    let digests = node.inspect(&name, "{{json .RepoDigests}}");
    assert!(digests.contains(&format!("{OURS}/team/cache@{}", sha256(&manifest))), "{digests}");
    // All blobs are there and right: skopeo reads and verifies each.
    let copied = format!("dir:{}", node.path("copied").display());
    let mut copy = node.netns.command("skopeo");
    copy.args(["copy", "-q", "--src-tls-verify=false", &format!("docker://{name}"), &copied]);
    run(&mut copy, b"").ok();
    // Nothing of it is sent again; another name of the repository is a manifest and no more.
    let again = node.berth(&["push", &name]);
    assert!(again.ok().contains(": Layer already exists\n") && !again.text().contains(": Pushed"), "{again:?}");
    node.berth(&["tag", "redis:4-alpine", &format!("{OURS}/team/cache")]).ok();
    let quiet = node.berth(&["push", "-q", &format!("{OURS}/team/cache")]);
    assert_eq!(quiet.ok(), format!("{OURS}/team/cache:latest"));
    node.berth(&["tag", "redis:4-alpine", &format!("{OURS}/team/cache:2")]).ok();
    let all = node.berth(&["push", "--all-tags", &format!("{OURS}/team/cache")]);
    let tags: Vec<_> = all.ok().lines().filter_map(|line| line.split_once(": digest: ")).map(|(tag, _)| tag).collect();
    assert_eq!(tags, ["1", "2", "latest"]);
    // Another repository of the registry has the layers.
    let other = format!("{OURS}/other:1");
    node.berth(&["tag", "redis:4-alpine", &other]).ok();
    let mounted = node.berth(&["push", &other]);
    assert!(
        mounted.ok().contains(": Mounted from team/cache\n") && !mounted.text().contains(": Pushed"),
        "{mounted:?}"
    );
    assert_eq!(raw(&node, &other), manifest);
    drop(registry);
    node.finish();
}

#[test]
fn what_was_committed_is_packed_for_it() {
    let (node, registry) = place();
    node.berth(&["run", "--name", "c", "busybox", "sh", "-c", "echo made >/here; rm /bin/vi; seq 200000 >/big"]).ok();
    let name = format!("{OURS}/user/mine:v0.1");
    node.berth(&["commit", "c", &name]).ok();
    let pushed = node.berth(&["push", &name]);
    let manifest = raw(&node, &name);
    assert_eq!(digest(&pushed), sha256(&manifest));
    let document: Value = serde_json::from_slice(&manifest).unwrap();
    let layers = document["layers"].as_array().unwrap();
    let top = layers.last().unwrap();
    assert_eq!(top["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip", "{document}");
    // The same again is the same, and is not sent.
    let again = node.berth(&["push", &name]);
    assert_eq!(digest(&again), digest(&pushed));
    assert!(!again.ok().contains(": Pushed"), "{again:?}");
    // Elsewhere it is not there, and the very same is packed once more.
    std::fs::create_dir(node.path("second")).unwrap();
    let second = Registry::serve(&node.netns, &node.path("second"), "127.0.0.1:5002");
    node.berth(&["tag", &name, "127.0.0.1:5002/mine"]).ok();
    assert_eq!(digest(&node.berth(&["push", "127.0.0.1:5002/mine"])), sha256(&manifest));
    assert_eq!(node.berth(&["save", &name]).code, 0, "it can still be saved");
    // Who pulls it has what was committed.
    let id = node.inspect(&name, "{{.Id}}");
    node.berth(&["rm", "c"]).ok();
    node.berth(&["rmi", &name, "127.0.0.1:5002/mine"]).ok();
    node.berth(&["pull", &name]).ok();
    assert_eq!(node.inspect(&name, "{{.Id}}"), id);
    let seen = node.berth(&["run", "--rm", &name, "sh", "-c", "cat /here; wc -l </big; test -e /bin/vi || echo gone"]);
    assert_eq!(seen.ok(), "made\n200000\ngone");
    drop((registry, second));
    node.finish();
}

#[test]
fn what_cannot_be_pushed_says_so_as_docker_does() {
    let (node, registry) = place();
    node.berth(&["pull", "-q", "busybox"]).ok();
    let fails = |arguments: &[&str], said: &str| {
        let failed = node.berth(arguments);
        assert!(failed.fails(1).contains(said), "{failed:?}");
        failed
    };
    let none = format!("{OURS}/none");
    let failed = fails(&["push", &none], &format!("An image does not exist locally with the tag: {none}"));
    assert_eq!(failed.text(), format!("Using default tag: latest\nThe push refers to repository [{none}]"));
    node.berth(&["tag", "busybox", &format!("{OURS}/some:1")]).ok();
    fails(&["push", &format!("{OURS}/some:2")], &format!("tag does not exist: {OURS}/some:2"));
    fails(&["push", "-a", &format!("{OURS}/some:1")], "tag can't be used with --all-tags/-a");
    let digest = format!("{OURS}/some@sha256:{}", "a".repeat(64));
    fails(&["push", &digest], "cannot push a digest reference");
    fails(&["push", "Bad"], "must be lowercase");
    fails(&["push", "--platform", "linux/s390x", &format!("{OURS}/some:1")], "linux/s390x");
    let unreached = "127.0.0.1:1/some:1";
    node.berth(&["tag", "busybox", unreached]).ok();
    fails(&["push", unreached], "it cannot be connected to");
    drop(registry);
    node.finish();
}

#[test]
fn who_may_not_push_is_told_and_logs_in() {
    let node = Node::start();
    std::fs::create_dir(node.path("pushed")).unwrap();
    let registry = Registry::private(&node.netns, &node.path("pushed"), OURS);
    let name = format!("{OURS}/user/box:1");
    node.berth(&["tag", "busybox", &name]).ok();
    let denied = node.berth(&["push", &name]).fails(1);
    assert!(denied.contains("denied: requested access to the resource is denied"), "{denied}");
    assert!(denied.contains("berth login"), "{denied}");
    node.berth_with(&["login", "-u", "user", "--password-stdin", OURS], b"secret").ok();
    let pushed = node.berth(&["push", &name]);
    assert!(pushed.ok().contains(": Pushed\n"), "{pushed:?}");
    let manifest = skopeo(&node, &["inspect", "--raw", "--tls-verify=false", "--creds", "user:secret"], &name);
    manifest.ok();
    assert_eq!(digest(&pushed), sha256(&manifest.stdout));
    assert!(!node.log().contains("secret") && !node.log().contains("dXNlcjpzZWNyZXQ"), "{}", node.log());
    drop(registry);
    node.finish();
}

/// Passes connections on, and cuts the first `cuts` of those that bring more than `after` bytes.
fn cutting(node: &Node, listen: &str, to: &'static str, (cuts, after): (usize, usize)) -> Arc<AtomicUsize> {
    let listener = node.netns.within(|| TcpListener::bind(listen).unwrap());
    let (netns, cut) = (node.netns.clone(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&cut);
    thread::spawn(move || {
        for client in listener.incoming() {
            let Ok(mut client) = client else { return };
            let Ok(mut server) = netns.within(|| TcpStream::connect(to)) else { return };
            let (mut back, mut answers) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || {
                let _ = std::io::copy(&mut answers, &mut back);
                let _ = back.shutdown(std::net::Shutdown::Both);
            });
            let count = Arc::clone(&count);
            thread::spawn(move || {
                let (mut buffer, mut brought) = (vec![0; 64 << 10], 0);
                while let Ok(size) = client.read(&mut buffer) {
                    brought += size;
                    let cuts = brought > after
                        && count
                            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| (n < cuts).then_some(n + 1))
                            .is_ok();
                    if size == 0 || cuts || server.write_all(&buffer[..size]).is_err() {
                        break;
                    }
                }
                let _ = server.shutdown(std::net::Shutdown::Both);
                let _ = client.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    cut
}

#[test]
fn broken_connections_are_taken_up_again() {
    let (node, registry) = place();
    node.berth(&["pull", "-q", "debian"]).ok();
    let cut = cutting(&node, "127.0.0.1:5003", OURS, (3, 3_000_000));
    let name = "127.0.0.1:5003/debian:1";
    node.berth(&["tag", "debian", name]).ok();
    let pushed = node.berth(&["push", name]);
    assert_eq!(digest(&pushed), sha256(&raw(&node, &format!("{OURS}/debian:1"))));
    assert_eq!(cut.load(Ordering::SeqCst), 3);
    assert!(pushed.error().contains("trying again"), "{pushed:?}");
    drop(registry);
    node.finish();
}
