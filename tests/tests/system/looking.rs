//! What containers use and run, and limits that change while they do.

use berth_tests::{Node, Setup};

on_both_runtimes!(limits_change_while_it_runs, statistics, processes);

fn node(setup: Setup) -> Node {
    let node = Node::with(setup);
    node.load("busybox");
    node
}

fn limits_change_while_it_runs(setup: Setup) {
    let node = node(setup);
    node.berth(&["run", "-d", "--name", "c", "-m", "64m", "--cpus", "0.5", "busybox", "sleep", "1000"]).ok();
    node.berth(&["create", "--name", "still", "busybox", "true"]).ok();
    let more =
        ["update", "-m", "128m", "--memory-swap", "256m", "--pids-limit", "33", "--restart", "always", "c", "still"];
    assert_eq!(node.berth(&more).ok(), "c\nstill");
    let limits = "{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}} {{.HostConfig.RestartPolicy.Name}}";
    for name in ["c", "still"] {
        assert_eq!(node.inspect(name, limits), "134217728 33 always");
    }
    let read = |file: &str| {
        let id = node.inspect("c", "{{.Id}}");
        let pid = node.inspect("c", "{{.State.Pid}}");
        let cgroups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        let controller = file.split('.').next().unwrap();
        let line = cgroups.lines().find(|line| line.split(':').nth(1).unwrap().split(',').any(|c| c == controller));
        let path = line.unwrap().rsplit(':').next().unwrap();
        assert!(path.contains(&id), "{path}");
        std::fs::read_to_string(format!("/sys/fs/cgroup/{controller}{path}/{file}")).unwrap().trim().to_owned()
    };
    if std::path::Path::new("/sys/fs/cgroup/memory").exists() {
        assert_eq!((read("memory.limit_in_bytes").as_str(), read("pids.max").as_str()), ("134217728", "33"));
    }
    // Nothing of a change that cannot be is made.
    assert!(node.berth(&["update", "-m", "1k", "--pids-limit", "7", "c"]).fails(1).contains("Minimum memory limit"));
    let large = ["update", "-m", "512m", "--pids-limit", "7", "c"];
    assert!(node.berth(&large).fails(1).contains("update the memoryswap at the same time"));
    assert!(node.berth(&["update", "--cpu-quota", "5000", "c"]).fails(1).contains("NanoCPUs has already been set"));
    assert_eq!(node.inspect("c", limits), "134217728 33 always");
    assert!(node.berth(&["update", "-m", "64m", "nobody"]).fails(1).contains("No such container: nobody"));
    // A service that is killed has forgotten nothing, and a start has the new limits.
    node.crash("runtime");
    node.answers();
    node.berth(&["restart", "-t", "0", "c"]).ok();
    assert_eq!(node.inspect("c", limits), "134217728 33 always");
    node.berth(&["rm", "-f", "c", "still"]).ok();
    node.finish();
}

fn statistics(setup: Setup) {
    let node = node(setup);
    node.berth(&["run", "-d", "--name", "busy", "-m", "64m", "busybox", "sh", "-c", "while :; do :; done"]).ok();
    node.berth(&["run", "-d", "--name", "idle", "busybox", "sleep", "1000"]).ok();
    node.berth(&["create", "--name", "still", "busybox", "true"]).ok();
    let table = node.berth(&["stats", "--no-stream"]);
    let lines: Vec<&str> = table.ok().lines().collect();
    assert!(lines[0].starts_with("CONTAINER ID   NAME      CPU %"), "{table:?}");
    assert!(lines.len() == 3 && lines[1].contains("idle") && lines[2].contains("busy"), "{table:?}");
    assert!(lines[2].contains("/ 64MiB"), "{table:?}");
    let one = |name: &str, field: &str| node.berth(&["stats", "--no-stream", "--format", field, name]).ok().to_owned();
    let percent = |name: &str| one(name, "{{.CPUPerc}}").trim_end_matches('%').parse::<f64>().unwrap();
    assert!(percent("busy") > 1.0 && percent("busy") > percent("idle"));
    assert_eq!(one("idle", "{{.PIDs}} {{.Container}}"), "1 idle");
    assert!(!one("idle", "{{.NetIO}}").is_empty());
    assert_eq!(one("still", "{{.CPUPerc}} {{.MemUsage}} {{.PIDs}}"), "-- -- / -- --");
    assert_eq!(node.berth(&["stats", "--no-stream", "-a", "--format", "{{.Name}}"]).ok(), "still\nidle\nbusy");
    assert!(node.berth(&["stats", "--no-stream", "nobody"]).fails(1).contains("No such container: nobody"));
    // It goes on by itself.
    let mut samples = node.lines(&["stats", "--format", "{{.Name}} {{.PIDs}}", "idle"]);
    assert_eq!((samples.next(), samples.next()), (Some("idle 1".into()), Some("idle 1".into())));
    node.finish();
}

fn processes(setup: Setup) {
    let node = node(setup);
    node.berth(&["run", "-d", "--name", "c", "busybox", "sh", "-c", "sleep 1234 & wait"]).ok();
    let pid = node.inspect("c", "{{.State.Pid}}");
    let top = node.berth(&["top", "c"]);
    assert!(top.ok().starts_with("UID                 PID                 PPID"), "{top:?}");
    assert!(top.text().contains(&pid) && top.text().contains("sleep 1234"), "{top:?}");
    assert!(!top.text().contains("berthd"), "{top:?}");
    let own = node.berth(&["top", "c", "-o", "pid,args"]);
    assert!(own.ok().lines().any(|line| line.starts_with(&pid) && line.contains("sh -c sleep 1234")), "{own:?}");
    assert!(node.berth(&["top", "c", "-o", "args"]).fails(1).contains("PID"));
    node.berth(&["stop", "-t", "0", "c"]).ok();
    assert!(node.berth(&["top", "c"]).fails(1).contains("is not running"));
    node.finish();
}

#[test]
fn why_it_is_as_it_is() {
    let node = node(Setup::default());
    let why = |name: &str| node.berth(&["why", name]).ok().to_owned();
    node.berth(&["create", "--name", "new", "busybox", "true"]).ok();
    assert_eq!(why("new"), "new was made and never started\n  `berth start new` starts it");
    node.berth(&["run", "-d", "--name", "missing", "busybox", "not-there"]).fails(127);
    assert!(why("missing").starts_with("missing could not be started: ") && why("missing").contains("not-there"));
    node.berth(&["run", "--name", "fails", "busybox", "sh", "-c", "exit 3"]).fails(3);
    assert!(why("fails").contains("ended by itself, with exit code 3") && why("fails").contains("berth logs"));
    node.berth(&["run", "-d", "--name", "c", "busybox", "sleep", "1000"]).ok();
    assert!(why("c").starts_with("c runs for ") && why("c").lines().count() == 1);
    node.berth(&["kill", "c"]).ok();
    node.berth(&["wait", "c"]).ok();
    assert!(why("c").contains("was ended by SIGKILL (exit code 137)"), "{}", why("c"));
    node.berth(&["run", "-d", "--name", "again", "--restart", "always", "busybox", "false"]).ok();
    let mut ends = node.lines(&["events", "--since", "1h", "--filter", "container=again", "--filter", "event=die"]);
    // Each end is told while it waits, longer and longer.
    let told = (0..8).any(|_| {
        ends.next().expect("it ends again and again");
        why("again").contains("its policy always starts it again in ")
    });
    assert!(told, "{}", why("again"));
    drop(ends);
    assert!(node.berth(&["why", "nobody"]).fails(1).contains("No such container: nobody"));
    node.finish();
}

#[test]
fn lists_look_as_the_user_has_them_in_the_file() {
    let node = node(Setup::default());
    node.berth(&["create", "--name", "c", "busybox", "true"]).ok();
    node.berth(&["volume", "create", "vol"]).ok();
    let formats = r#"{"psFormat": "{{.Names}} as the file says", "imagesFormat": "table {{.Repository}}",
        "volumesFormat": "{{.Name}} here", "networksFormat": "", "auths": {}}"#;
    std::fs::create_dir(node.path(".docker")).unwrap();
    std::fs::write(node.path(".docker/config.json"), formats).unwrap();
    assert_eq!(node.berth(&["ps", "-a"]).ok(), "c as the file says");
    assert_eq!(node.berth(&["images"]).ok(), "REPOSITORY\nbusybox");
    assert_eq!(node.berth(&["volume", "ls"]).ok(), "vol here");
    assert!(node.berth(&["network", "ls"]).ok().starts_with("NETWORK ID"));
    // What the command line says goes before.
    assert_eq!(node.berth(&["ps", "-a", "--format", "{{.Names}}"]).ok(), "c");
    assert_eq!(node.berth(&["volume", "ls", "-q"]).ok(), "vol");
    assert!(node.berth(&["ps", "-a", "--format", "table"]).ok().starts_with("CONTAINER ID"));
    // A file that cannot be read is told of, and the list is there.
    std::fs::write(node.path(".docker/config.json"), "{").unwrap();
    let list = node.berth(&["ps", "-a"]);
    assert!(list.ok().starts_with("CONTAINER ID") && list.error().contains("going on without psFormat"), "{list:?}");
    node.finish();
}
