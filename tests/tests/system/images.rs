//! Images: from a registry, from a tar, by every name they have.

use berth_tests::{Node, Setup, fixtures, run};

#[test]
fn pulled_images_are_what_the_registry_has() {
    let node = Node::with(Setup { registry: true, ..Setup::default() });
    let pulled = node.berth(&["pull", "redis:4-alpine"]);
    assert!(pulled.ok().contains("4-alpine: Pulling from library/redis"), "{pulled:?}");
    assert!(pulled.text().contains("Status: Downloaded newer image for redis:4-alpine"), "{pulled:?}");
    assert!(pulled.text().ends_with("docker.io/library/redis:4-alpine"));
    let again = node.berth(&["image", "pull", "redis:4-alpine"]);
    assert!(again.ok().contains("Status: Image is up to date for redis:4-alpine"), "{again:?}");
    // An outside judge: skopeo reads the same registry.
    let mut skopeo = node.netns.command("skopeo");
    skopeo.args([
        "inspect",
        "--config",
        "--raw",
        "--tls-verify=false",
        "docker://127.0.0.1:5000/library/redis:4-alpine",
    ]);
    let config = run(&mut skopeo, b"");
    let digest = run(&mut std::process::Command::new("sha256sum"), &config.stdout);
    let id = format!("sha256:{}", digest.ok().split(' ').next().unwrap());
    assert_eq!(node.inspect("redis:4-alpine", "{{.Id}}"), id);
    assert_eq!(node.berth(&["images", "-q", "--no-trunc"]).ok(), id);
    assert_eq!(node.inspect("redis:4-alpine", "{{json .Config.ExposedPorts}}"), r#"{"6379/tcp":{}}"#);
    node.finish();
}

#[test]
fn run_pulls_what_is_not_here() {
    let node = Node::with(Setup { registry: true, ..Setup::default() });
    let run = node.berth(&["run", "--rm", "busybox", "echo", "pulled"]);
    assert_eq!(run.ok(), "pulled");
    assert!(run.error().contains("Unable to find image 'busybox:latest' locally"), "{run:?}");
    node.berth(&["run", "--rm", "--pull", "never", "debian", "true"]).fails(125);
    node.finish();
}

#[test]
fn names_come_and_go_as_in_docker() {
    let node = Node::start();
    let id = node.inspect("busybox", "{{.Id}}");
    node.berth(&["tag", "busybox", "user/mine:v1"]).ok();
    node.berth(&["tag", &id[7..19], "localhost:5000/x:y"]).ok();
    assert_eq!(node.inspect("user/mine:v1", "{{.Id}}"), id);
    let listed = node.berth(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    let mut names: Vec<_> = listed.ok().lines().collect();
    names.sort_unstable();
    assert_eq!(names, ["busybox:latest", "localhost:5000/x:y", "user/mine:v1"]);
    assert!(node.berth(&["rmi", &id[7..19]]).fails(1).contains("must be forced"));
    assert_eq!(node.berth(&["rmi", "user/mine:v1"]).ok(), "Untagged: user/mine:v1");
    node.berth(&["create", "--name", "c", "busybox", "true"]).ok();
    node.berth(&["rmi", "localhost:5000/x:y"]).ok();
    let used = node.berth(&["rmi", "busybox"]).fails(1);
    assert!(used.contains("conflict") && used.contains("using"), "{used}");
    node.berth(&["rm", "c"]).ok();
    let removed = node.berth(&["rmi", "busybox"]);
    assert!(removed.ok().starts_with("Untagged: busybox:latest\nDeleted: sha256:"), "{removed:?}");
    assert_eq!(node.berth(&["images", "-q"]).ok(), "");
    node.finish();
}

#[test]
fn archives_of_both_kinds_are_loaded() {
    let node = Node::with(Setup::default());
    let layout = fixtures::layout("busybox");
    let docker = node.path("docker.tar");
    let mut skopeo = std::process::Command::new("skopeo");
    skopeo.args(["copy", "-q"]).arg(format!("oci:{}:latest", layout.display()));
    run(skopeo.arg(format!("docker-archive:{}:other/name:v2", docker.display())), b"").ok();
    assert_eq!(node.berth(&["load", "-i", docker.to_str().unwrap()]).ok(), "Loaded image: other/name:v2");
    let oci = std::fs::read(fixtures::archive("busybox")).unwrap();
    node.berth_with(&["load"], &oci).ok();
    assert_eq!(node.inspect("other/name:v2", "{{.Id}}"), node.inspect("busybox:latest", "{{.Id}}"));
    assert_eq!(node.berth(&["run", "--rm", "other/name:v2", "echo", "x"]).ok(), "x");
    node.finish();
}

#[test]
fn every_driver_runs_containers() {
    for driver in ["overlay2", "vfs"] {
        let node = Node::with(Setup { storage_driver: driver.into(), ..Setup::default() });
        node.load("busybox");
        assert_eq!(node.berth(&["info", "--format", "{{.Driver}}"]).ok(), driver);
        node.berth(&["run", "--name", "c", "busybox", "sh", "-c", "rm /bin/vi; echo x > /etc/passwd"]).ok();
        assert_eq!(
            node.berth(&["run", "--rm", "busybox", "sh", "-c", "ls /bin/vi; grep -c root /etc/passwd"]).ok(),
            "/bin/vi\n1"
        );
        assert_eq!(node.inspect("c", "{{.State.ExitCode}}"), "0");
        node.finish();
    }
}

#[test]
fn images_of_another_platform_or_time_are_told_apart() {
    let node = Node::start();
    let failed = node.berth(&["save", "--platform", "linux/s390x", "busybox"]).fails(1);
    assert!(failed.contains("linux/s390x"), "{failed}");
    let own = node.inspect("busybox", "{{.Os}}/{{.Architecture}}");
    assert_eq!(node.berth(&["save", "--platform", &own, "-o", "/dev/null", "busybox"]).code, 0);
    // A fixture is older than that, and not older than the world.
    assert!(!node.berth(&["images", "-q", "--filter", "until=1s"]).ok().is_empty());
    assert_eq!(node.berth(&["images", "-q", "--filter", "until=1970-01-01"]).ok(), "");
    assert!(node.berth(&["images", "--filter", "until=never"]).fails(1).contains("invalid time"));
    assert!(
        node.berth(&["images", "--filter", "dangling=maybe"]).fails(1).contains("invalid filter 'dangling=[maybe]'")
    );
    assert!(node.berth(&["images", "--tree"]).fails(1).contains("--tree is not supported"));
    let forced = node.berth(&["rmi", "-f", "nothing"]);
    assert!(forced.code == 0 && forced.error().contains("No such image: nothing:latest"), "{forced:?}");
    assert_ne!(node.inspect("busybox", "{{.GraphDriver.Name}}"), "");
    node.finish();
}
