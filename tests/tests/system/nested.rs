//! berth in berth: a node in a privileged container, on what that container's root offers. Docker's and containerd's
//! image stores fail here, or fall back to copies without a word.

use std::process::Command;

use berth_tests::{Node, fixtures, run};

/// Starts the inner node, runs a container that writes and deletes, and prints which driver carries it. The root file
/// system of the outer container has no certificate authorities, so this shows that a node does without, too.
const INNER: &str = r#"
    set -e
    export BERTH_HOST=unix:///run/inner/berth.sock PATH=$PATH:/opt/berth
    : >/config.toml
    berthd all --root /inner --state /run/inner --config /config.toml 2>/log &
    until berth ps -q >/dev/null 2>&1; do kill -0 $! || { cat /log; exit 1; }; done
    berth load -q -i /busybox.tar
    berth run --name c busybox sh -c 'echo new >/new; rm /bin/wget; cat /new; ls /bin | grep -c ^wget || true'
    berth start -a c
    berth info -f '{{.Driver}}'
    berth rm -f c >/dev/null
    kill $! && wait $! || true
"#;

fn inner(outer: &Node, more: &[&str]) -> String {
    let binaries = format!("{}:/opt/berth:ro", fixtures::binary("berthd").parent().unwrap().display());
    let busybox = format!("{}:/busybox.tar:ro", fixtures::archive("busybox").display());
    let library = seccomp_library();
    let fixed = ["run", "--rm", "--privileged", "-v", &binaries, "-v", &busybox, "-v", &library];
    let ran = outer.berth(&[&fixed, more, &["debian", "bash", "-c", INNER]].concat());
    ran.ok().to_owned()
}

/// The one library of the tests' shim that the inner root file system lacks; a release's shim needs none.
fn seccomp_library() -> String {
    let linked = run(Command::new("ldd").arg(fixtures::binary("containerd-shim-berth-v2")), b"");
    let path = linked.ok().lines().find(|line| line.contains("libseccomp")).and_then(|line| line.split(' ').nth(2));
    path.map(|path| format!("{path}:{path}:ro")).expect("the tests' shim is linked with libseccomp")
}

#[test]
fn a_node_runs_in_a_container() {
    let node = Node::start();
    node.load("debian");
    // A volume is a file system of the host's: layers are mounted upon each other there.
    let on_a_volume = inner(&node, &["-v", "/inner"]);
    assert_eq!(on_a_volume.lines().skip(1).collect::<Vec<_>>(), ["new", "0", "new", "0", "overlay2"]);
    // The kernel does not lay an overlay over one; the node says so and copies.
    let on_the_root = inner(&node, &[]);
    assert_eq!(on_the_root.lines().skip(1).collect::<Vec<_>>(), ["new", "0", "new", "0", "vfs"]);
    node.finish();
}
