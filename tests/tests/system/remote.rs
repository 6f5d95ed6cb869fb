//! What is asked of a registry: all tags of a repository, repositories by a word, manifests.

use berth_tests::{Node, Registry, Setup, run};

const OURS: &str = "127.0.0.1:5001";

/// A node with busybox, and a registry where `team/app` has three tags of two images.
fn place() -> (Node, Registry) {
    let node = Node::with(Setup { registry: true, ..Setup::default() });
    std::fs::create_dir(node.path("pushed")).unwrap();
    let registry = Registry::serve(&node.netns, &node.path("pushed"), OURS);
    node.berth(&["pull", "-q", "busybox"]).ok();
    node.berth(&["run", "--name", "c", "busybox", "touch", "/here"]).ok();
    node.berth(&["commit", "c", &format!("{OURS}/team/app:new")]).ok();
    node.berth(&["rm", "c"]).ok();
    for tag in ["team/app:old", "team/app:older", "team/tool:1", "other:1"] {
        node.berth(&["tag", "busybox", &format!("{OURS}/{tag}")]).ok();
    }
    for repository in ["team/app", "team/tool", "other"] {
        node.berth(&["push", "-q", "-a", &format!("{OURS}/{repository}")]).ok();
    }
    (node, registry)
}

#[test]
fn every_tag_of_a_repository_is_pulled() {
    let (node, registry) = place();
    let repository = format!("{OURS}/team/app");
    for tag in ["new", "old", "older"] {
        node.berth(&["rmi", &format!("{repository}:{tag}")]).ok();
    }
    let pulled = node.berth(&["pull", "-a", &repository]);
    let lines: Vec<_> = pulled.ok().lines().filter(|line| line.contains(": Pulling from team/app")).collect();
    assert_eq!(lines, ["new", "old", "older"].map(|tag| format!("{tag}: Pulling from team/app")));
    assert!(
        pulled.text().ends_with(&format!("Status: Downloaded newer image for {repository}\n{repository}")),
        "{pulled:?}"
    );
    let again = node.berth(&["pull", "-a", &repository]);
    assert!(again.ok().contains(&format!("Status: Image is up to date for {repository}")), "{again:?}");
    assert_eq!(node.berth(&["pull", "-a", "-q", &repository]).ok(), repository);
    let listed = node.berth(&["images", "--format", "{{.Tag}}", &repository]);
    let mut tags: Vec<_> = listed.ok().lines().collect();
    tags.sort_unstable();
    assert_eq!(tags, ["new", "old", "older"]);
    let failed = node.berth(&["pull", "-a", &format!("{repository}:old")]).fails(1);
    assert!(failed.contains("tag can't be used with --all-tags/-a"), "{failed}");
    let failed = node.berth(&["pull", "-a", &format!("{OURS}/nono")]).fails(1);
    let said =
        "Error response from daemon: repository 127.0.0.1:5001/nono not found: name unknown: repository name not known";
    assert!(failed.contains(said), "{failed}");
    drop(registry);
    node.finish();
}

#[test]
fn repositories_are_found_by_a_word() {
    let (node, registry) = place();
    let found = node.berth(&["search", &format!("{OURS}/team")]);
    let rows: Vec<Vec<_>> = found.ok().lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["NAME", "DESCRIPTION", "STARS", "OFFICIAL"]);
    assert_eq!(rows[1..], [["127.0.0.1:5001/team/app", "0"], ["127.0.0.1:5001/team/tool", "0"]]);
    let names =
        |arguments: &[&str]| node.berth(&[&["search", "--format", "{{.Name}}"], arguments].concat()).ok().to_owned();
    assert_eq!(names(&["--limit", "1", &format!("{OURS}/team")]), "127.0.0.1:5001/team/app");
    assert_eq!(names(&["--filter", "stars=1", &format!("{OURS}/team")]), "");
    assert_eq!(names(&[&format!("{OURS}/nothing-like-it")]), "");
    for (arguments, said) in [
        (&["--limit", "200", "x"][..], "Limit 200 is outside the range of [1, 100]"),
        (&["--filter", "foo=1", "x"], "Invalid filter 'foo'"),
        (&["--filter", "is-official=x", "x"], "Invalid filter 'is-official=[x]'"),
        (&["127.0.0.1:1/x"], "it cannot be connected to"),
    ] {
        let failed = node.berth(&[&["search"], arguments].concat()).fails(1);
        assert!(failed.contains(said), "{failed}");
    }
    drop(registry);
    node.finish();
}

#[test]
fn manifests_are_shown_as_they_are_there() {
    let (node, registry) = place();
    let name = format!("{OURS}/team/app:new");
    let shown = node.berth(&["manifest", "inspect", &name]);
    let mut skopeo = node.netns.command("skopeo");
    skopeo.args(["inspect", "--raw", "--tls-verify=false", &format!("docker://{name}")]);
    let raw = run(&mut skopeo, b"").stdout;
    let value = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).unwrap();
    assert!(shown.ok().starts_with("{\n\t\""), "{shown:?}");
    assert_eq!(value(&shown.stdout), value(&raw));
    let verbose = node.berth(&["manifest", "inspect", "-v", &name]);
    let verbose = value(verbose.ok().as_bytes());
    assert_eq!(verbose["Descriptor"]["size"], raw.len());
    assert_eq!(verbose["OCIManifest"], value(&raw));
    let failed = node.berth(&["manifest", "inspect", &format!("{OURS}/nono")]).fails(1);
    assert!(failed.contains("no such manifest: 127.0.0.1:5001/nono:latest"), "{failed}");
    drop(registry);
    node.finish();
}

#[test]
fn lists_for_several_platforms_are_made_and_pushed() {
    let (node, registry) = place();
    let tar = run(std::process::Command::new("tar").args(["-c", "-C", "/", "etc/hostname"]), b"");
    let arm = format!("{OURS}/team/arm:1");
    node.berth_with(&["import", "--platform", "linux/arm64", "-", &arm], &tar.stdout).ok();
    node.berth(&["push", "-q", &arm]).ok();
    let (list, here) = (format!("{OURS}/multi:1"), format!("{OURS}/team/app:old"));
    let create = ["manifest", "create", &list, &here, &arm];
    assert_eq!(node.berth(&create).ok(), format!("Created manifest list {list}"));
    assert!(node.berth(&create).fails(1).contains("refusing to amend an existing manifest list with no --amend flag"));
    node.berth(&["manifest", "create", "--amend", &list, &arm]).ok();
    node.berth(&["manifest", "annotate", "--variant", "v8", &list, &arm]).ok();
    let absent = node.berth(&["manifest", "annotate", "--variant", "v8", &list, "other"]).fails(1);
    assert!(absent.contains("manifest for image docker.io/library/other:latest does not exist in"), "{absent}");
    let value = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).unwrap();
    let shown = value(node.berth(&["manifest", "inspect", &list]).ok().as_bytes());
    let platforms = |list: &serde_json::Value| {
        let of = |entry: &serde_json::Value| {
            let text = |field: &str| entry["platform"][field].as_str().unwrap_or_default().to_owned();
            format!("{}/{}/{}", text("os"), text("architecture"), text("variant"))
        };
        let mut all: Vec<_> = list["manifests"].as_array().unwrap().iter().map(of).collect();
        all.sort_unstable();
        all
    };
    let own = node.inspect("busybox", "{{.Os}}/{{.Architecture}}/");
    assert_eq!(platforms(&shown), [own, "linux/arm64/v8".into()]);
    let digest = node.berth(&["manifest", "push", "--purge", &list]).ok().to_owned();
    let mut skopeo = node.netns.command("skopeo");
    skopeo.args(["inspect", "--raw", "--tls-verify=false", &format!("docker://{list}")]);
    let raw = run(&mut skopeo, b"").stdout;
    let sum = run(&mut std::process::Command::new("sha256sum"), &raw);
    assert_eq!(digest, format!("sha256:{}", sum.ok().split(' ').next().unwrap()));
    assert_eq!(value(&raw), shown);
    // Everything of it is in its own repository.
    let pulled = node.berth(&["pull", &list]);
    assert!(pulled.ok().contains(&format!("Digest: {digest}")), "{pulled:?}");
    assert_eq!(node.inspect(&list, "{{.Id}}"), node.inspect("busybox", "{{.Id}}"));
    node.berth(&["pull", "-q", "--platform", "linux/arm64", &list]).ok();
    assert_eq!(node.inspect(&list, "{{.Id}}"), node.inspect(&arm, "{{.Id}}"));
    let failed = node.berth(&["manifest", "rm", &list]).fails(1);
    assert!(failed.contains(&format!("No such manifest: {list}")), "{failed}");
    drop(registry);
    node.finish();
}
