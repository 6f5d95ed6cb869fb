//! What containers have written: images of it, lists, tars.

use std::{path::Path, process::Command};

use berth_tests::{Node, Setup, run};

use super::node;

on_both_runtimes!(the_missions_commits, paused_while_it_is_read, changes_are_told);

fn the_missions_commits(setup: Setup) {
    let node = node(setup);
    let write = "mkdir -p /data/web/html && echo hello >/data/web/html/index.html && rm /bin/vi && ln -s html /data/web/l \
                 && mkfifo /data/f && ln /data/web/html/index.html /data/hard && chmod 4711 /data/hard && touch -d @7 /data";
    node.berth(&["run", "--name", "b1", "-e", "A=1", "--label", "l=v", "-w", "/data", "busybox", "sh", "-c", write])
        .ok();
    let id = node.berth(&["commit", "b1", "user/myimg:v0.1"]).ok().to_owned();
    assert!(id.starts_with("sha256:") && id.len() == 71, "{id}");
    let malformed = "CMD ['/bin/httpd -f -h /data/web/html']";
    let second =
        node.berth(&["commit", "-p", "-a", "name <x@y>", "-m", "why", "-c", malformed, "b1", "user/myimg:v0.2"]);
    second.ok();
    assert!(
        second.error().contains(r#"WARNING: CMD ['/bin/httpd -f -h /data/web/html'] is no list in JSON"#),
        "{second:?}"
    );
    assert!(second.error().contains(r#"CMD ["/bin/httpd","-f","-h","/data/web/html"]"#), "{second:?}");
    assert_eq!(
        node.inspect("user/myimg:v0.2", "{{json .Config.Cmd}} {{.Author}} {{.Comment}}"),
        r#"["/bin/sh","-c","['/bin/httpd -f -h /data/web/html']"] name <x@y> why"#
    );
    node.berth(&["tag", "user/myimg:v0.2", "user/myimg:latest"]).ok();
    // The container's own configuration, not only its image's.
    assert_eq!(
        node.inspect("user/myimg:v0.1", "{{index .Config.Env 0}} {{.Config.Labels.l}} {{.Config.WorkingDir}}"),
        "A=1 v /data"
    );
    assert_eq!(node.inspect("user/myimg:v0.1", "{{.Parent}}"), node.inspect("busybox", "{{.Id}}"));
    let look = "cat web/l/index.html; stat -c '%a %h %F' hard f; test -e /bin/vi || echo gone; stat -c %Y /data; pwd";
    let looked = node.berth(&["run", "--rm", "user/myimg:v0.1", "sh", "-c", look]);
    assert_eq!(looked.ok(), "hello\n4711 2 regular file\n644 1 fifo\ngone\n7\n/data");
    // As Docker says of the malformed one.
    let malformed = node.berth(&["run", "--rm", "user/myimg:v0.2"]);
    assert!(malformed.fails(127).contains("[/bin/httpd -f -h /data/web/html]: not found"), "{malformed:?}");
    // The same files give the same layer; a container that has written nothing gives none.
    let layers = |name: &str| node.inspect(name, "{{join .RootFS.Layers \" \"}}");
    assert_eq!(layers("user/myimg:v0.1"), layers("user/myimg:v0.2"));
    node.berth(&["create", "--name", "still", "busybox", "true"]).ok();
    let still = node.berth(&["container", "commit", "-c", "USER 7", "still"]).ok().to_owned();
    assert_eq!(layers(&still), layers("busybox"));
    assert_eq!(node.inspect(&still, "{{.Config.User}} {{json .RepoTags}}"), "7 []");
    for (change, why) in [("RUN x", "RUN is not a valid change command"), ("EXPOSE x", "invalid containerPort: x")] {
        assert!(node.berth(&["commit", "-c", change, "b1", "user/no:v1"]).fails(1).contains(why));
    }
    assert!(node.berth(&["commit", "nobody"]).fails(1).contains("No such container: nobody"));
    assert!(node.berth(&["commit", "b1", "Bad/Name"]).fails(1).contains("lower"));
    assert!(node.berth(&["inspect", "user/no:v1"]).fails(1).contains("No such"));
    // Images on images, and away again.
    node.berth(&["run", "--name", "b2", "user/myimg:v0.1", "sh", "-c", "rm -r /data/web; echo 2 >/second"]).ok();
    node.berth(&["commit", "b2", "user/two"]).ok();
    assert_eq!(node.berth(&["run", "--rm", "user/two", "sh", "-c", "ls /data; cat /second"]).ok(), "f\nhard\n2");
    node.berth(&["rm", "b1", "b2", "still"]).ok();
    for image in ["user/two", "user/myimg:v0.1", "user/myimg:v0.2", "user/myimg", &still] {
        node.berth(&["rmi", image]).ok();
    }
    assert_eq!(node.berth(&["images", "--format", "{{.Repository}}"]).ok(), "busybox");
    node.finish();
}

fn paused_while_it_is_read(setup: Setup) {
    let node = node(setup);
    node.berth(&["run", "-d", "--name", "c", "busybox", "sh", "-c", "head -c 3000000 /dev/urandom >/f; sleep 1000"])
        .ok();
    let mut events = node.lines(&["events", "--format", "{{.Action}}", "--filter", "type=container"]);
    // What is written down here comes behind the events' beginning.
    while node.berth(&["exec", "c", "sh", "-c", "test $(stat -c %s /f) = 3000000"]).code != 0 {}
    node.berth(&["commit", "c", "one"]).ok();
    node.berth(&["commit", "--no-pause", "c", "two"]).ok();
    node.berth(&["commit", "--pause=false", "c", "three"]).ok();
    assert_eq!(node.inspect("c", "{{.State.Status}}"), "running");
    node.berth(&["pause", "c"]).ok();
    node.berth(&["commit", "c", "four"]).ok();
    assert_eq!(node.inspect("c", "{{.State.Status}}"), "paused", "who paused it lets it go on");
    node.berth(&["unpause", "c"]).ok();
    let interesting = |line: &String| ["pause", "unpause", "commit"].contains(&line.as_str());
    let told: Vec<String> = events.by_ref().filter(interesting).take(8).collect();
    assert_eq!(told, ["pause", "unpause", "commit", "commit", "commit", "pause", "commit", "unpause"]);
    drop(events);
    for image in ["one", "two", "three", "four"] {
        assert_eq!(node.berth(&["run", "--rm", image, "stat", "-c", "%s", "/f"]).ok(), "3000000");
    }
    node.finish();
}

fn changes_are_told(setup: Setup) {
    let node = node(setup);
    let script = "echo x >/new; mkdir /etc/dir; echo y >/etc/dir/f; rm /bin/vi; chmod 700 /bin/busybox; mv /etc/passwd /etc/p; \
                  : >>/etc/group; mkdir /tmp/gone; rmdir /tmp/gone; rm -r /root && mkdir /root && touch '/root/a b'";
    node.berth(&["run", "--name", "c", "busybox", "sh", "-c", script]).ok();
    let told = node.berth(&["diff", "c"]);
    let lines: Vec<&str> = told.ok().lines().collect();
    for line in [
        "A /new",
        "C /etc",
        "A /etc/dir",
        "A /etc/dir/f",
        "C /bin",
        "D /bin/vi",
        "D /etc/passwd",
        "A /etc/p",
        "C /root",
        "A /root/a b",
    ] {
        assert!(lines.contains(&line), "{line}: {told:?}");
    }
    assert!(lines.is_sorted_by_key(|line| &line[2..]), "{told:?}");
    for nothing in ["/etc/group", "/tmp/gone", "/etc/hosts", "/proc", "/dev/pts"] {
        assert!(lines.iter().all(|line| line[2..] != *nothing), "{nothing}: {told:?}");
    }
    node.berth(&["create", "--name", "still", "busybox", "true"]).ok();
    assert_eq!(node.berth(&["container", "diff", "still"]).ok(), "");
    assert!(node.berth(&["diff", "nobody"]).fails(1).contains("No such container: nobody"));
    // A tar of all of it, read by another's program.
    let tar = node.path("c.tar");
    node.berth(&["export", "-o", tar.to_str().unwrap(), "c"]).ok();
    let listed = run(Command::new("tar").arg("tf").arg(&tar), b"");
    let names: Vec<&str> = listed.ok().lines().collect();
    assert!(names.contains(&"new") && names.contains(&"etc/dir/f") && names.contains(&"bin/sh"), "{listed:?}");
    assert!(!names.contains(&"bin/vi") && !names.contains(&"etc/passwd"), "{listed:?}");
    assert_eq!(node.berth(&["container", "export", "c"]).stdout, std::fs::read(&tar).unwrap());
    // And back.
    let imported = node.berth(&["import", "-c", "CMD cat /new", "-m", "from afar", tar.to_str().unwrap(), "back:1"]);
    assert_eq!(imported.ok(), node.inspect("back:1", "{{.Id}}"));
    assert_eq!(node.berth(&["run", "--rm", "back:1"]).ok(), "x");
    assert_eq!(node.inspect("back:1", "{{.Comment}} {{len .RootFS.Layers}}"), "from afar 1");
    node.finish();
}

#[test]
fn on_vfs_it_is_the_same() {
    let node = node(Setup { storage_driver: "vfs".into(), ..Setup::default() });
    let script = "echo x >/new; mkdir -p /a/b; echo y >/a/b/c; rm /bin/vi; ln /new /a/hard";
    node.berth(&["run", "--name", "c", "busybox", "sh", "-c", script]).ok();
    assert_eq!(node.berth(&["diff", "c"]).ok(), "A /a\nA /a/b\nA /a/b/c\nA /a/hard\nC /bin\nD /bin/vi\nA /new");
    node.berth(&["commit", "c", "i"]).ok();
    let look = "cat /new /a/b/c; stat -c %h /new; test -e /bin/vi || echo gone";
    assert_eq!(node.berth(&["run", "--rm", "i", "sh", "-c", look]).ok(), "x\ny\n2\ngone");
    node.berth(&["export", "-o", "/dev/null", "c"]).ok();
    node.finish();
}

#[test]
fn a_commit_that_is_cut_off_leaves_nothing() {
    let node = super::node(Setup::default());
    node.berth(&["run", "-d", "--name", "c", "busybox", "sh", "-c", "head -c 60000000 /dev/urandom >/f; sleep 1000"])
        .ok();
    while node.berth(&["exec", "c", "sh", "-c", "test $(stat -c %s /f) = 60000000"]).code != 0 {}
    let layers = |node: &Node| std::fs::read_dir(node.root().join("image/blobs/sha256")).unwrap().count();
    let before = layers(&node);
    for service in ["image", "snapshotter", "runtime"] {
        let mut commit = node.command(&["commit", "c", "never"]);
        let mut commit =
            commit.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
        // As soon as the container is held still the commit is under way.
        while node.inspect("c", "{{.State.Status}}") != "paused" && commit.try_wait().unwrap().is_none() {}
        node.crash(service);
        commit.wait().unwrap();
        node.answers();
        while node.inspect("c", "{{.State.Status}}") != "running" {}
        assert_eq!(node.berth(&["exec", "c", "echo", "on"]).ok(), "on");
    }
    let _ = node.berth(&["rmi", "-f", "never"]);
    let again = node.berth(&["commit", "c", "after"]).ok().to_owned();
    assert_eq!(node.berth(&["run", "--rm", "after", "stat", "-c", "%s", "/f"]).ok(), "60000000");
    node.berth(&["rmi", &again]).ok();
    assert_eq!(layers(&node), before);
    node.finish();
}

#[test]
fn saved_images_are_read_by_others() {
    let node = super::node(Setup::default());
    node.berth(&["run", "--name", "c", "busybox", "sh", "-c", "echo x >/new"]).ok();
    node.berth(&["commit", "-m", "mine", "c", "user/mine:v1"]).ok();
    let history = node.berth(&["history", "--format", "{{.ID}}|{{.CreatedBy}}|{{.Comment}}", "user/mine:v1"]);
    let lines: Vec<&str> = history.ok().lines().collect();
    assert!(lines[0].ends_with("|sh -c echo x >/new|mine"), "{history:?}");
    assert_eq!(lines[1].split('|').next().unwrap(), &node.inspect("busybox", "{{.Id}}")[7..19]);
    assert!(node.berth(&["history", "user/mine:v1"]).ok().starts_with("IMAGE          CREATED"), "{history:?}");
    assert!(node.berth(&["image", "history", "nobody"]).fails(1).contains("No such image: nobody"));
    let tar = node.path("saved.tar");
    node.berth(&["save", "-o", tar.to_str().unwrap(), "user/mine:v1"]).ok();
    assert_eq!(node.berth(&["image", "save", "user/mine:v1"]).stdout, std::fs::read(&tar).unwrap(), "the same bytes");
    let id = node.inspect("user/mine:v1", "{{.Id}}");
    for form in ["docker-archive", "oci-archive"] {
        let copy = node.path(form);
        let mut skopeo = Command::new("skopeo");
        let target = format!("oci:{}:x", copy.display());
        run(skopeo.args(["copy", "-q", &format!("{form}:{}", tar.display()), &target]), b"").ok();
        let config = run(Command::new("skopeo").args(["inspect", "--config", "--raw", &target]), b"");
        let config: serde_json::Value = serde_json::from_slice(&config.stdout).unwrap();
        assert_eq!(config["history"].as_array().unwrap().last().unwrap()["comment"], "mine", "{form}");
        assert!(Path::new(&copy).join("index.json").exists());
    }
    node.berth(&["rm", "c"]).ok();
    node.berth(&["rmi", "user/mine:v1"]).ok();
    assert_eq!(node.berth(&["load", "-i", tar.to_str().unwrap()]).ok(), "Loaded image: user/mine:v1");
    assert_eq!(node.inspect("user/mine:v1", "{{.Id}}"), id);
    assert_eq!(node.berth(&["run", "--rm", "user/mine:v1", "cat", "/new"]).ok(), "x");
    assert!(node.berth(&["save", "nobody"]).fails(1).contains("No such image: nobody"));
    node.finish();
}
