//! Output: all of it, wherever it goes.

use std::io::Read as _;

use berth_core::{bundle::Log, stream::Kind};

use super::client::{Node, lines};

/// Prints numbered lines of a hundred bytes, about `megabytes` of them.
fn flood(megabytes: u32) -> String {
    let count = megabytes * 10_000;
    format!("exec awk 'BEGIN {{ for (i = 0; i < {count}; i++) printf \"%099d\\n\", i }}'")
}

fn with_awk(node: &Node) {
    std::os::unix::fs::symlink("busybox", node.bundle.root().join("bin/awk")).unwrap();
}

#[test]
fn a_hundred_megabytes_without_loss() {
    let mut node = Node::script(&flood(100));
    with_awk(&node);
    node.serve();
    node.create().unwrap();
    let mut client = node.attach("", false).attached();
    node.start("").unwrap();
    let (out, _, lost) = client.all();
    assert_eq!((out.len(), lost), (100_000_000, 0));
    for (number, line) in out.chunks(100).enumerate() {
        assert_eq!(line[90..99], *format!("{number:09}").as_bytes());
    }
    let (code, ended) = node.finish();
    assert_eq!(code, 0);
    let log = ended.node.log();
    assert_eq!(log.len(), 1_000_000);
    assert!(log.iter().enumerate().all(|(number, line)| line.0.ends_with(&format!("{number:09}\n"))));
}

#[test]
fn the_memory_stays_as_it_is() {
    let mut node = Node::script(&flood(50));
    with_awk(&node);
    node.options.log = Log::JsonFile {
        path: node.path("out.log").to_str().unwrap().into(),
        max_size: 1 << 20,
        max_file: 3,
        attributes: Default::default(),
    };
    node.run();
    node.wait("");
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.shim_pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 32 << 10, "{peak} KiB");
    assert_eq!(
        node.finish()
            .1
            .node
            .bundle
            .path()
            .read_dir()
            .unwrap()
            .filter(|entry| { entry.as_ref().unwrap().file_name().to_str().unwrap().starts_with("out.log") })
            .count(),
        3
    );
}

#[test]
fn a_lone_slow_client_is_like_a_pipe() {
    let mut node = Node::script(&flood(10));
    with_awk(&node);
    node.serve();
    node.create().unwrap();
    let mut client = node.attach("", false).attached();
    node.start("").unwrap();
    // It is held up: in the log is no more than fits between it and the client, which reads a little now and then.
    let mut first = [0; 1000];
    client.0.read_exact(&mut first).unwrap();
    assert!(node.record().is_none());
    let mut rest = Vec::new();
    client.0.read_to_end(&mut rest).unwrap();
    let frames = (rest.len() + first.len()) - 10_000_000;
    assert!(frames > 5 && frames < 100_000, "all is there, with headers of {frames} bytes");
    assert_eq!(node.finish().0, 0);
}

#[test]
fn who_cannot_keep_up_with_another_is_told_what_it_lost() {
    let mut node = Node::script(&flood(20));
    with_awk(&node);
    node.serve();
    node.create().unwrap();
    let mut slow = node.attach("", false).attached();
    let mut fast = node.attach("", false).attached();
    node.start("").unwrap();
    assert_eq!(fast.all().0.len(), 20_000_000);
    let (out, _, lost) = slow.all();
    assert!(lost > 0, "it read nothing while the other read all");
    assert_eq!(out.len() as u64 + lost, 20_000_000);
    assert_eq!(node.finish().0, 0);
}

#[test]
fn who_has_the_pipe_open_after_the_end_delays_nothing() {
    let mut node = Node::script("sleep 1000");
    node.run();
    node.exec("x", &["/bin/sh", "-c", "sleep 900 & echo started; exit 6"], |_| {}).unwrap();
    let mut client = node.attach("x", false).attached();
    node.start("x").unwrap();
    assert_eq!(node.wait("x").exit_status, 6);
    assert_eq!(client.all().0, b"started\n");
    node.kill("", 9).unwrap();
    assert_eq!(node.finish().0, 137);
}

#[test]
fn a_log_that_cannot_be_written_stops_nothing() {
    let mut node = Node::script("echo one; head -c 3000000 /dev/zero | tr '\\0' x; echo; echo two; exit 3");
    std::os::unix::fs::symlink("busybox", node.bundle.root().join("bin/tr")).unwrap();
    node.options.log =
        Log::JsonFile { path: "/dev/full".into(), max_size: 0, max_file: 1, attributes: Default::default() };
    node.serve();
    node.create().unwrap();
    let mut client = node.attach("", false).attached();
    node.start("").unwrap();
    assert_eq!(client.all().0.len(), 3_000_009);
    let (code, ended) = node.finish();
    assert_eq!(code, 3);
    assert_eq!(ended.shim_log.matches("No space left").count(), 1, "{}", ended.shim_log);
}

#[test]
fn a_split_line_and_bytes_that_are_no_text() {
    let mut node = Node::script("head -c 20000 /dev/zero | tr '\\0' x; printf '\\n\\377\\n'");
    std::os::unix::fs::symlink("busybox", node.bundle.root().join("bin/tr")).unwrap();
    node.run();
    let (_, ended) = node.finish();
    let log: Vec<_> = lines(&ended.node.path("out.log")).into_iter().map(|line| line.0).collect();
    assert_eq!(log.iter().map(String::len).collect::<Vec<_>>(), [16384, 3617, 4]);
    assert_eq!(log[2], "\u{fffd}\n");
}

#[test]
fn who_attaches_after_the_end_is_told_so() {
    let mut node = Node::script("true");
    node.run();
    node.wait("");
    let mut client = node.attach("", false).attached();
    assert_eq!(client.next().0, Kind::End);
    node.finish();
}
