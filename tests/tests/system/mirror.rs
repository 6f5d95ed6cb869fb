//! The registry-proxy as the image service's mirror.

use berth_tests::{Node, Setup};

#[test]
fn pulls_go_through_our_own_mirror() {
    let setup = Setup {
        registry: false,
        config: "[image.registry.\"docker.io\"]\nmirrors = [\"http://127.0.0.1:5080\"]\n\
                 [registry-proxy]\nlisten = \"127.0.0.1:5080\"\n\
                 [registry-proxy.upstream.\"docker.io\"]\nurl = \"http://127.0.0.1:5000\"\n"
            .into(),
        ..Setup::default()
    };
    let node = Node::with(setup);
    let storage = berth_tests::fixtures::registry_storage();
    let mut upstream = berth_tests::Registry::serve(&node.netns, storage, "127.0.0.1:5000");
    node.berth(&["pull", "-q", "busybox"]).ok();
    assert_eq!(node.berth(&["run", "--rm", "busybox", "echo", "mirrored"]).ok(), "mirrored");
    // The mirror answers for an upstream that is away.
    node.berth(&["rmi", "busybox"]).ok();
    upstream.stop();
    node.berth(&["pull", "-q", "busybox"]).ok();
    drop(upstream);
    node.finish();
}
