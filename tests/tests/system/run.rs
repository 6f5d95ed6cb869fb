//! `run`: from a command line to a process and back.

use berth_tests::Setup;

use crate::node;

on_both_runtimes!(
    output_and_exit_code_are_the_containers,
    environment_user_and_directory,
    what_an_image_says_is_the_default,
    command_lines_end_where_the_image_begins,
    the_container_is_confined,
    detached_prints_the_id,
    rm_leaves_nothing,
);

fn output_and_exit_code_are_the_containers(setup: Setup) {
    let node = node(setup);
    assert_eq!(node.berth(&["run", "--rm", "--network", "none", "busybox", "echo", "hello"]).ok(), "hello");
    let both = node.berth(&["run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((both.code, both.text(), both.error().as_str()), (7, "out", "err\n"));
    // The first process itself takes only signals that it has a handler for, so it is one of its children that dies.
    node.berth(&["run", "--rm", "busybox", "sh", "-c", "sh -c 'kill -TERM $$'; exit $?"]).fails(143);
    node.finish();
}

fn environment_user_and_directory(setup: Setup) {
    let node = node(setup);
    let run =
        |arguments: &[&str]| node.berth(&[&["run", "--rm", "--network", "none"], arguments].concat()).ok().to_owned();
    assert_eq!(run(&["-e", "A=b c", "busybox", "sh", "-c", "echo $A"]), "b c");
    assert_eq!(run(&["-u", "1000:50000", "busybox", "id", "-u"]), "1000");
    assert_eq!(run(&["-u", "user", "busybox", "sh", "-c", "id -un; id -gn; echo $HOME"]), "user\nuser\n/home");
    assert_eq!(run(&["-u", "user", "busybox", "id", "-G"]), "1000 50000");
    assert_eq!(run(&["-w", "/made/for/it", "busybox", "pwd"]), "/made/for/it");
    assert_eq!(run(&["-h", "box", "busybox", "hostname"]), "box");
    assert_eq!(run(&["--entrypoint", "echo", "busybox", "x"]), "x");
    assert!(node.berth(&["run", "--rm", "-u", "nobody-there", "busybox", "true"]).fails(125).contains("nobody-there"));
    node.finish();
}

fn what_an_image_says_is_the_default(setup: Setup) {
    let node = node(setup);
    let path = node.berth(&["run", "--rm", "busybox", "sh", "-c", "echo $PATH"]);
    assert_eq!(path.ok(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    let shell = node.berth_with(&["run", "--rm", "-i", "busybox"], b"echo from the image\\'s command\n");
    assert_eq!(shell.ok(), "from the image's command");
    node.finish();
}

fn command_lines_end_where_the_image_begins(setup: Setup) {
    let node = node(setup);
    let echo = node.berth(&["run", "--rm", "busybox", "echo", "--rm", "-it", "--", "-x"]);
    assert_eq!(echo.ok(), "--rm -it -- -x");
    node.finish();
}

fn the_container_is_confined(setup: Setup) {
    let node = node(setup);
    let run = |arguments: &[&str]| node.berth(&[&["run", "--rm"], arguments].concat());
    let status = run(&["busybox", "cat", "/proc/self/status"]);
    let field = |name: &str| {
        status.ok().lines().find_map(|l| l.strip_prefix(name)).map(|v| v.trim().to_owned()).unwrap_or_default()
    };
    assert_eq!(field("CapEff:"), "00000000a80425fb", "Docker's fourteen capabilities");
    assert_eq!(field("CapBnd:"), "00000000a80425fb");
    assert_eq!(field("Seccomp:"), "2");
    assert_eq!(field("NoNewPrivs:"), "0");
    let nnp = run(&["--security-opt", "no-new-privileges", "busybox", "grep", "NoNewPrivs", "/proc/self/status"]);
    assert!(nnp.ok().ends_with('1'));
    assert_eq!(run(&["busybox", "cat", "/proc/timer_list"]).ok(), "", "masked");
    run(&["busybox", "sh", "-c", "echo 1 > /proc/sys/kernel/sysrq"]).fails(1);
    assert_ne!(run(&["busybox", "mount", "-t", "tmpfs", "x", "/tmp"]).code, 0, "no mounts without CAP_SYS_ADMIN");
    assert_ne!(
        run(&["busybox", "sh", "-c", "mknod /tmp/d b 254 0; cat /tmp/d"]).code,
        0,
        "the device cgroup forbids it"
    );
    // The shell, its copy that becomes ls, and wc, where that is there by then.
    let processes = run(&["busybox", "sh", "-c", "ls -d /proc/[0-9]* | wc -l"]);
    assert!(["2", "3"].contains(&processes.ok().trim()), "its own processes only: {processes:?}");
    assert_eq!(run(&["--read-only", "busybox", "touch", "/x"]).code, 1);
    node.finish();
}

fn detached_prints_the_id(setup: Setup) {
    let node = node(setup);
    let started = node.berth(&["run", "-d", "--name", "c", "busybox", "sleep", "1000"]);
    let id = started.ok();
    assert!(id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
    assert_eq!(node.inspect("c", "{{.Id}} {{.State.Status}}"), format!("{id} running"));
    let row = node.berth(&["ps", "--no-trunc", "--format", "{{.ID}} {{.Image}} {{.Command}} {{.Names}}"]);
    assert_eq!(row.ok(), format!("{id} busybox \"sleep 1000\" c"));
    assert!(node.berth(&["ps"]).ok().starts_with("CONTAINER ID   IMAGE"), "Docker's columns");
    node.finish();
}

fn rm_leaves_nothing(setup: Setup) {
    let node = node(setup);
    node.berth(&["run", "--rm", "--name", "gone", "-d", "busybox", "true"]).ok();
    // `wait` tells of the end; the removal comes after it.
    let gone = ["events", "--since", "10m", "--filter", "container=gone", "--filter", "event=destroy"];
    assert!(
        node.lines(&[&gone[..], &["--format", "{{.Action}}"]].concat()).next().is_some_and(|word| word == "destroy")
    );
    node.berth(&["run", "--rm", "--name", "gone", "busybox", "true"]).ok();
    assert_eq!(node.berth(&["ps", "-aq"]).ok(), "");
    node.finish();
}
