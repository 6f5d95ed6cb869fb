//! Processes beside the first one.

use berth_core::stream::Kind;
use containerd_shim_protos::ttrpc::Code;
use serde_json::json;

use super::client::{Node, refused};

fn running() -> Node {
    let mut node = Node::script("sleep 1000");
    node.run();
    node
}

fn stop(node: Node) {
    node.kill("", 9).unwrap();
    assert_eq!(node.finish().0, 137);
}

#[test]
fn streams_and_exit_codes() {
    let node = running();
    node.exec("x", &["/bin/sh", "-c", "cat; echo err >&2; exit 9"], |_| {}).unwrap();
    refused(node.exec("x", &["/bin/true"], |_| {}), Code::ALREADY_EXISTS, "there already");
    let mut client = node.attach("x", true).attached();
    node.start("x").unwrap();
    client.send(Kind::Stdin, b"a\0\xff\n");
    client.send(Kind::CloseStdin, b"");
    assert_eq!(client.all(), (b"a\0\xff\n".to_vec(), b"err\n".to_vec(), 0));
    assert_eq!(node.wait("x").exit_status, 9);
    assert_eq!(node.delete("x").unwrap().exit_status, 9);
    refused(node.delete("x"), Code::NOT_FOUND, "no process x");
    assert!(node.log().is_empty(), "what is executed beside it is not in the container's log");
    stop(node);
}

#[test]
fn a_client_that_goes_away_leaves_the_process_alone() {
    let node = running();
    let script = "while read line; do :; done; head -c 3000000 /dev/zero; exit 4";
    node.exec("x", &["/bin/sh", "-c", script], |_| {}).unwrap();
    let client = node.attach("x", true).attached();
    node.start("x").unwrap();
    drop(client);
    assert_eq!(node.wait("x").exit_status, 4);
    stop(node);
}

#[test]
fn what_cannot_be_executed() {
    let node = running();
    node.exec("x", &["nope"], |_| {}).unwrap();
    let mut client = node.attach("x", true).attached();
    refused(node.start("x"), Code::NOT_FOUND, "executable file not found");
    assert_eq!(client.all().2, 0, "the client is told that nothing will come");
    assert_eq!(node.delete("x").unwrap().exit_status, 127);
    node.exec("y", &["/etc/passwd"], |_| {}).unwrap();
    refused(node.start("y"), Code::PERMISSION_DENIED, "permission denied");
    let (kind, _) = node.attach("none", true).next();
    assert_eq!(kind, Kind::Refused);
    stop(node);
}

#[test]
fn many_at_once() {
    let mut node = Node::script("sleep 1000");
    node.bundle.config["linux"]["resources"]["pids"]["limit"] = json!(400);
    node.run();
    std::thread::scope(|scope| {
        for number in 0..40 {
            let node = &node;
            scope.spawn(move || {
                let id = format!("x{number}");
                node.exec(&id, &["/bin/sh", "-c", &format!("cat; exit {number}")], |_| {}).unwrap();
                let mut client = node.attach(&id, true).attached();
                node.start(&id).unwrap();
                client.send(Kind::Stdin, id.as_bytes());
                client.send(Kind::CloseStdin, b"");
                assert_eq!(client.all().0, id.as_bytes());
                assert_eq!(node.wait(&id).exit_status, number);
                node.delete(&id).unwrap();
            });
        }
    });
    stop(node);
}

#[test]
fn they_end_with_the_first_one() {
    let mut node = Node::script("read line; exit 0");
    node.options.open_stdin = true;
    // Without a pid namespace the kernel does not see to it.
    let namespaces = node.bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "pid");
    node.run();
    node.exec("x", &["/bin/sh", "-c", "echo ready; sleep 1000"], |_| {}).unwrap();
    let mut client = node.attach("x", true).attached();
    node.start("x").unwrap();
    client.until("ready");
    let mut first = node.attach("", true).attached();
    first.send(Kind::Stdin, b"\n");
    assert_eq!(node.wait("x").exit_status, 137);
    assert_eq!(node.finish().0, 0);
}

#[test]
fn signals_reach_one_process() {
    let node = running();
    node.exec("x", &["/bin/sh", "-c", "trap 'exit 33' TERM; echo ready; while :; do sleep 0.01; done"], |_| {})
        .unwrap();
    let mut client = node.attach("x", false).attached();
    node.start("x").unwrap();
    client.until("ready");
    node.kill("x", 15).unwrap();
    assert_eq!(node.wait("x").exit_status, 33);
    refused(node.kill("x", 15), Code::FAILED_PRECONDITION, "not running");
    stop(node);
}
