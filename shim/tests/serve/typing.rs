//! Standard input and terminals.

use berth_core::stream::Kind;
use serde_json::json;

use super::client::Node;

#[test]
fn standard_input_closes_with_the_first_client_where_asked_for() {
    let mut node = Node::script("cat; echo end");
    node.options.open_stdin = true;
    node.options.stdin_once = true;
    node.serve();
    node.create().unwrap();
    let mut client = node.attach("", true).attached();
    let mut other = node.attach("", false).attached();
    node.start("").unwrap();
    client.send(Kind::Stdin, b"typed\n");
    client.until("typed\n");
    drop(client);
    assert_eq!(other.all().0, b"typed\nend\n");
    assert_eq!(node.finish().0, 0);
}

#[test]
fn or_stays_open() {
    let mut node = Node::script("read a; read b; echo $a $b; cat; echo end");
    node.options.open_stdin = true;
    node.run();
    let mut client = node.attach("", true).attached();
    client.send(Kind::Stdin, b"one\n");
    client.send(Kind::CloseStdin, b"");
    drop(client);
    let mut client = node.attach("", true).attached();
    client.send(Kind::Stdin, b"two\n");
    client.until("one two\n");
    node.close_stdin("");
    assert_eq!(client.all().0, b"end\n");
    assert_eq!(node.finish().0, 0);
}

#[test]
fn without_it_there_is_none() {
    let mut node = Node::script("cat; echo end");
    node.run();
    assert_eq!(node.finish().1.node.log()[0].0, "end\n");
}

#[test]
fn a_terminal_and_its_size() {
    let mut node = Node::script(
        "stty size; read line; stty size; tty; trap 'echo resized; exit 0' WINCH; echo ready; while :; do sleep 0.01; done",
    );
    node.bundle.config["process"]["terminal"] = json!(true);
    node.bundle.config["process"]["consoleSize"] = json!({"width": 91, "height": 33});
    node.options.open_stdin = true;
    node.serve();
    node.create().unwrap();
    let mut client = node.attach("", true).attached();
    node.start("").unwrap();
    client.until("33 91");
    client.send(Kind::Resize, &[100, 0, 40, 0]);
    client.send(Kind::Stdin, b"\n");
    let text = client.until("ready");
    assert!(text.contains("40 100") && text.contains("/dev/pts/0"), "{text}");
    client.send(Kind::Resize, &[101, 0, 40, 0]);
    let (out, ..) = client.all();
    assert!(String::from_utf8(out).unwrap().contains("resized"));
    assert_eq!(node.finish().0, 0);
}

#[test]
fn bytes_pass_through_as_they_are() {
    let mut node = Node::script("cat");
    node.options.open_stdin = true;
    node.options.stdin_once = true;
    node.options.log = berth_core::bundle::Log::None;
    node.serve();
    node.create().unwrap();
    let mut client = node.attach("", true).attached();
    node.start("").unwrap();
    let mut seed = 1u32;
    let mut next = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 24) as u8
    };
    let sent: Vec<u8> = (0..8 << 20).map(|_| next()).collect();
    let mut sender = super::client::Client(client.0.try_clone().unwrap());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for piece in sent.chunks(100_000) {
                sender.send(Kind::Stdin, piece);
            }
            sender.send(Kind::CloseStdin, b"");
        });
        let (out, _, lost) = client.all();
        assert!(out == sent && lost == 0);
    });
    assert_eq!(node.finish().0, 0);
}
