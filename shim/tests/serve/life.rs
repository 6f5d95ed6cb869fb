//! From `Create` to `Shutdown`.

use containerd_shim_protos::{
    api::{
        CheckpointTaskRequest, PauseRequest, PidsRequest, ResumeRequest, StateRequest, StatsRequest, Status,
        UpdateTaskRequest,
    },
    protobuf::well_known_types::any::Any,
    ttrpc::Code,
};
use serde_json::json;

use super::client::{Node, limit, refused};

#[test]
fn a_container_with_its_log_and_its_exit() {
    let mut node = Node::script("echo out; echo err >&2; printf rest; exit 7");
    node.run();
    let (code, ended) = node.finish();
    assert_eq!((code, ended.shim_log.as_str()), (7, ""));
    assert!(!ended.record.oom_killed && ended.record.pid > 0 && ended.record.exited_at_ns > 0);
    let mut lines = ended.node.log();
    lines.sort();
    let line = |text: &str, stream: &str| (text.to_owned(), stream.to_owned());
    assert_eq!(lines, [line("err\n", "stderr"), line("out\n", "stdout"), line("rest", "stdout")]);
}

#[test]
fn signals_and_states() {
    let mut node = Node::script("sleep 1000");
    node.serve();
    let state = |node: &Node| {
        let request = StateRequest { id: node.bundle.id.clone(), ..Default::default() };
        node.task().state(limit(), &request).map(|state| state.status.unwrap())
    };
    refused(state(&node), Code::NOT_FOUND, "no process");
    let pid = node.create().unwrap().pid;
    assert_eq!(std::fs::read_to_string(node.path("init.pid")).unwrap(), pid.to_string());
    let own = std::fs::read_to_string(node.path("shim.pid")).unwrap();
    assert_eq!(own.split(' ').next(), Some(node.shim_pid().to_string().as_str()));
    refused(node.create(), Code::ALREADY_EXISTS, "there already");
    assert_eq!(state(&node).unwrap(), Status::CREATED);
    assert_eq!(node.start("").unwrap(), pid);
    assert_eq!(state(&node).unwrap(), Status::RUNNING);
    refused(node.delete(""), Code::FAILED_PRECONDITION, "is running");
    let (task, id) = (node.task(), node.bundle.id.clone());
    task.pause(limit(), &PauseRequest { id: id.clone(), ..Default::default() }).unwrap();
    assert_eq!(state(&node).unwrap(), Status::PAUSED);
    refused(node.exec("x", &["/bin/true"], |_| {}).and_then(|()| node.start("x")), Code::FAILED_PRECONDITION, "paused");
    task.resume(limit(), &ResumeRequest { id: id.clone(), ..Default::default() }).unwrap();
    let pids = task.pids(limit(), &PidsRequest { id: id.clone(), ..Default::default() }).unwrap();
    assert!(pids.processes.iter().any(|process| process.pid == pid));
    let stats = task.stats(limit(), &StatsRequest { id: id.clone(), ..Default::default() }).unwrap();
    assert!(stats.stats.type_url.starts_with("io.containerd.cgroups.v"), "{}", stats.stats.type_url);
    let limits = Any { value: json!({"pids": {"limit": 50}}).to_string().into_bytes(), ..Any::default() };
    let update = UpdateTaskRequest { id: id.clone(), resources: Some(limits).into(), ..Default::default() };
    task.update(limit(), &update).unwrap();
    refused(task.checkpoint(limit(), &CheckpointTaskRequest::new()), Code::UNIMPLEMENTED, "checkpoints");
    node.kill("", 9).unwrap();
    assert_eq!(node.wait("").exit_status, 137);
    assert_eq!(state(&node).unwrap(), Status::STOPPED);
    refused(node.kill("", 9), Code::FAILED_PRECONDITION, "not running");
    assert_eq!(node.finish().0, 137);
}

#[test]
fn a_program_that_is_not_there() {
    for (program, code) in [("nope", Code::NOT_FOUND), ("/etc/passwd", Code::PERMISSION_DENIED)] {
        let mut node = Node::script("");
        node.bundle.config["process"]["args"] = json!([program]);
        node.serve();
        refused(node.create(), code, program);
        assert_eq!(node.end(), "");
    }
}

#[test]
fn a_program_that_fails_when_it_is_executed() {
    use std::os::unix::fs::PermissionsExt as _;
    for (text, code, number) in
        [("#!/no/such/thing\n", Code::NOT_FOUND, 127), ("no program", Code::PERMISSION_DENIED, 126)]
    {
        let mut node = Node::script("");
        let path = node.bundle.root().join("program");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        node.bundle.config["process"]["args"] = json!(["/program"]);
        node.serve();
        node.create().unwrap();
        refused(node.start(""), code, "program");
        assert_eq!(node.finish().0, number);
    }
}

#[test]
fn a_configuration_that_cannot_be_used() {
    let mut node = Node::script("");
    node.bundle.config["linux"]["sysctl"] = json!({"vm.swappiness": "1"});
    node.serve();
    refused(node.create(), Code::INVALID_ARGUMENT, "kernel namespace");
    node.bundle.config["linux"]["sysctl"] = json!({});
    node.bundle.write();
    node.create().unwrap();
    assert_eq!(node.delete("").unwrap().exit_status, 137, "never started");
    assert_eq!(node.end(), "");
}

#[test]
fn memory_runs_out() {
    let mut node = Node::script("x=x; while :; do x=$x$x; done");
    node.bundle.config["linux"]["resources"]["memory"]["limit"] = json!(16 << 20);
    node.run();
    let (code, ended) = node.finish();
    assert!(code == 137 && ended.record.oom_killed, "{:?}", ended.record);
}

#[test]
fn the_root_file_system_is_mounted_in_the_shims_own_namespace() {
    use containerd_shim_protos::api::Mount;
    let mut node = Node::script("echo new > /made; cat /made /etc/passwd");
    let layer = node.path("a-layer-with-a-long-name".repeat(8).as_str());
    std::fs::rename(node.bundle.root(), &layer).unwrap();
    let mut layers = vec![layer.to_str().unwrap().to_owned()];
    for number in 0..100 {
        let layer = node.path(&format!("{}{number}", "x".repeat(200)));
        std::fs::create_dir(&layer).unwrap();
        layers.push(layer.to_str().unwrap().to_owned());
    }
    for name in ["upper", "work"] {
        std::fs::create_dir(node.path(name)).unwrap();
    }
    node.rootfs = vec![Mount {
        type_: "overlay".into(),
        source: "overlay".into(),
        options: vec![
            format!("lowerdir={}", layers.join(":")),
            format!("upperdir={}", node.path("upper").display()),
            format!("workdir={}", node.path("work").display()),
        ],
        ..Default::default()
    }];
    node.run();
    let root = node.path("rootfs");
    assert_eq!(std::fs::read_dir(&root).unwrap().count(), 0, "the host sees nothing mounted");
    let (code, ended) = node.finish();
    assert_eq!(code, 0);
    assert_eq!(ended.node.log()[0].0, "new\n");
    assert_eq!(std::fs::read_to_string(ended.node.path("upper/made")).unwrap(), "new\n");
}

#[test]
fn the_same_on_runc() {
    let mut node = Node::script("echo hello; cat; exit 5");
    node.options.oci_runtime = Some("/usr/sbin/runc".into());
    node.options.open_stdin = true;
    node.options.stdin_once = true;
    node.serve();
    node.create().unwrap();
    let mut client = node.attach("", true).attached();
    node.start("").unwrap();
    client.send(berth_core::stream::Kind::Stdin, b"typed\n");
    client.until("typed\n");
    node.exec("x", &["/bin/sh", "-c", "hostname; exit 3"], |_| {}).unwrap();
    let mut other = node.attach("x", false).attached();
    node.start("x").unwrap();
    assert_eq!(node.wait("x").exit_status, 3);
    assert_eq!(other.all().0, b"box\n");
    client.send(berth_core::stream::Kind::CloseStdin, b"");
    let (code, ended) = node.finish();
    assert_eq!(code, 5);
    assert_eq!(ended.node.log().len(), 2);
}

#[test]
fn spans_of_requests_that_carry_a_trace() {
    let mut node = Node::script("true");
    node.options.traced = true;
    node.serve();
    let mut context = limit();
    context.add("traceparent".into(), "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into());
    let request = StateRequest { id: node.bundle.id.clone(), ..Default::default() };
    refused(node.task().state(context, &request), Code::NOT_FOUND, "");
    node.create().unwrap();
    node.start("").unwrap();
    let spans = std::fs::read_to_string(node.path("spans.jsonl")).unwrap();
    assert!(spans.contains("0af7651916cd43dd8448eb211c80319c") && spans.lines().count() == 1, "{spans}");
    node.finish();
}

#[test]
fn the_network_namespace_is_handed_over_and_let_go() {
    use std::os::unix::fs::MetadataExt as _;
    for runtime in [None, Some("/usr/sbin/runc".to_owned())] {
        let mut node = Node::script("readlink /proc/self/ns/net; read line");
        node.options.oci_runtime = runtime;
        node.options.open_stdin = true;
        let namespace = std::thread::spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            std::fs::File::open("/proc/thread-self/ns/net").unwrap()
        });
        let namespace = namespace.join().unwrap();
        let name = format!("net:[{}]\n", namespace.metadata().unwrap().ino());
        node.netns = Some(namespace.into());
        for one in node.bundle.config["linux"]["namespaces"].as_array_mut().unwrap() {
            if one["type"] == "network" {
                one["path"] = json!("/proc/self/fd/4");
            }
        }
        node.bundle.config["linux"].as_object_mut().unwrap().remove("sysctl");
        node.serve();
        node.create().unwrap();
        let mut client = node.attach("", true).attached();
        node.start("").unwrap();
        assert_eq!(client.until("\n"), name);
        let open = std::fs::read_dir(format!("/proc/{}/fd", node.shim_pid())).unwrap();
        for fd in open {
            let link = std::fs::read_link(fd.unwrap().path()).unwrap_or_default();
            assert!(!link.to_string_lossy().starts_with("net:"), "the shim holds the namespace");
        }
        client.send(berth_core::stream::Kind::Stdin, b"\n");
        assert_eq!(node.finish().0, 0);
    }
}
