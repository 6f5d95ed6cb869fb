//! `exec`: another process in a running container.

use berth_tests::Setup;

use crate::node;

on_both_runtimes!(
    runs_beside_the_first_process,
    passes_input_output_and_exit_code,
    takes_environment_user_and_directory,
    says_what_cannot_be_executed,
    many_at_once,
);

fn runs_beside_the_first_process(setup: Setup) {
    let node = node(setup);
    node.berth(&["run", "-d", "--name", "c", "busybox", "sleep", "1000"]).ok();
    let processes = node.berth(&["exec", "c", "ps", "-o", "args"]);
    assert!(processes.ok().contains("sleep 1000"), "{processes:?}");
    node.berth(&["exec", "-d", "c", "sh", "-c", "echo done > /tmp/file; sleep 1000"]).ok();
    let grouped =
        node.berth(&["container", "exec", "c", "sh", "-c", "until test -s /tmp/file; do :; done; cat /tmp/file"]);
    assert_eq!(grouped.ok(), "done");
    node.finish();
}

fn passes_input_output_and_exit_code(setup: Setup) {
    let node = node(setup);
    node.berth(&["run", "-d", "--name", "c", "busybox", "sleep", "1000"]).ok();
    let bytes: Vec<u8> = (0..1_000_000u32).flat_map(u32::to_le_bytes).collect();
    let cat = node.berth_with(&["exec", "-i", "c", "cat"], &bytes);
    assert!(cat.code == 0 && cat.stdout == bytes, "binary both ways: {} bytes, {}", cat.stdout.len(), cat.error());
    let both = node.berth(&["exec", "c", "sh", "-c", "echo out; echo err >&2; exit 3"]);
    assert_eq!((both.code, both.text(), both.error().as_str()), (3, "out", "err\n"));
    assert_eq!(node.berth(&["exec", "c", "cat"]).ok(), "", "without -i input is empty");
    node.finish();
}

fn takes_environment_user_and_directory(setup: Setup) {
    let node = node(setup);
    node.berth(&["run", "-d", "--name", "c", "-e", "A=1", "busybox", "sleep", "1000"]).ok();
    let run = |arguments: &[&str]| node.berth(&[&["exec"], arguments].concat()).ok().to_owned();
    assert_eq!(run(&["-e", "B=2", "c", "sh", "-c", "echo $A $B"]), "1 2");
    assert_eq!(run(&["-u", "user", "-w", "/home", "c", "sh", "-c", "id -un; pwd"]), "user\n/home");
    node.finish();
}

fn says_what_cannot_be_executed(setup: Setup) {
    let node = node(setup);
    node.berth(&["run", "-d", "--name", "c", "busybox", "sleep", "1000"]).ok();
    assert!(node.berth(&["exec", "c", "not-there"]).fails(127).contains("not-there"));
    assert!(node.berth(&["exec", "c", "/etc/passwd"]).fails(126).contains("/etc/passwd"));
    assert!(node.berth(&["exec", "-w", "/not/there", "c", "true"]).fails(127).contains("/not/there"));
    node.berth(&["exec", "c", "test", "!", "-e", "/not"]).ok();
    node.berth(&["stop", "-t", "0", "c"]).ok();
    assert!(node.berth(&["exec", "c", "true"]).fails(1).contains("is not running"));
    node.finish();
}

fn many_at_once(setup: Setup) {
    let node = node(setup);
    node.berth(&["run", "-d", "--name", "c", "busybox", "sleep", "1000"]).ok();
    std::thread::scope(|scope| {
        for n in 0..20 {
            let node = &node;
            scope.spawn(move || {
                let word = format!("number-{n}");
                assert_eq!(node.berth(&["exec", "c", "echo", &word]).ok(), word);
            });
        }
    });
    node.finish();
}
