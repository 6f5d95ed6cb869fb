//! `--init`: a first process that passes signals on and reaps what others leave.

use std::fs;

use berth_tests::Setup;

use crate::node;

on_both_runtimes!(a_container_with_an_init);

fn a_container_with_an_init(setup: Setup) {
    let node = node(setup);
    // The shell is not the first process, so a signal without a handler ends it, and at once.
    node.berth(&["run", "-d", "--init", "--name", "c", "busybox", "sleep", "1000"]).ok();
    let seen = node.inspect("c", "{{.HostConfig.Init}} {{.Path}} {{.Args}}");
    assert_eq!(seen, "true sleep [1000]");
    let processes = node.berth(&["exec", "c", "ps", "-o", "pid,args"]).ok().to_owned();
    for process in ["1 /sbin/docker-init -- sleep 1000", "sleep 1000"] {
        assert!(processes.lines().any(|line| line.trim().ends_with(process)), "{process}: {processes}");
    }
    assert!(node.berth(&["top", "c"]).ok().contains("/sbin/docker-init -- sleep 1000"));
    // It is the node's, and stays as it is.
    node.berth(&["exec", "c", "sh", "-c", "echo > /sbin/docker-init"]).fails(1);
    // An orphan that dies is gone, and no zombie.
    let orphans = "(sleep 0.1 &); [ $(wc -w < /proc/1/task/1/children) -ge 2 ] || exit 1; \
                   until [ $(wc -w < /proc/1/task/1/children) = 1 ]; do sleep 0.02; done";
    node.berth(&["exec", "c", "sh", "-c", orphans]).ok();
    node.berth(&["stop", "-t", "1000", "c"]).ok();
    assert_eq!(node.inspect("c", "{{.State.ExitCode}}"), "143");
    // Again, after a crash of the service, which lays the program down anew where it is damaged.
    fs::remove_file(node.root().join("runtime/init")).unwrap();
    node.crash("runtime");
    node.answers();
    node.berth(&["start", "c"]).ok();
    node.berth(&["kill", "-s", "HUP", "c"]).ok();
    assert_eq!(node.berth(&["wait", "c"]).ok(), "129");
    let run = |words: &[&str]| node.berth(&[&["run", "--rm", "--init"], words].concat());
    assert_eq!(run(&["--read-only", "-u", "1000", "busybox", "sh", "-c", "id -u; exit 7"]).text(), "1000");
    run(&["busybox", "sh", "-c", "exit 7"]).fails(7);
    let missing = run(&["busybox", "no-such-program"]).fails(127);
    assert!(missing.contains("exec no-such-program failed: No such file or directory"), "{missing}");
    // The program is in the foreground of its terminal: from the background, changing it would stop it.
    let typed = node.berth(&["run", "--rm", "-t", "--init", "busybox", "sh", "-c", "stty -echo && echo mine"]);
    assert_eq!(typed.ok().trim_end(), "mine");
    node.finish();
}
