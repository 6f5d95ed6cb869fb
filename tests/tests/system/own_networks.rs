//! Networks that people make: apart from one another, there again after a crash and after a reboot, and gone when they are
//! removed.

use berth_tests::Setup;

use crate::node;

on_both_runtimes!(made_used_and_removed, there_again, what_cannot_be);

fn made_used_and_removed(setup: Setup) {
    let node = node(setup);
    let id =
        node.berth(&["network", "create", "--subnet", "10.77.0.0/24", "--label", "tier=web", "front"]).ok().to_owned();
    node.berth(&["network", "create", "--internal", "back"]).ok();
    let listed = node.berth(&["network", "ls", "--format", "{{.Name}} {{.Driver}} {{.Internal}}"]);
    assert_eq!(
        listed.ok(),
        "back bridge true\nbridge bridge false\nfront bridge false\nhost host false\nnone null false"
    );
    assert_eq!(node.berth(&["network", "ls", "-q", "--no-trunc", "--filter", "label=tier=web"]).ok(), id);
    let run = |name: &str, network: &str| {
        node.berth(&["run", "-d", "--name", name, "--network", network, "busybox", "sleep", "1000"]).ok();
        let format = format!("{{{{.NetworkSettings.Networks.{network}.IPAddress}}}}");
        node.inspect(name, &format)
    };
    let web = run("web", "front");
    assert_eq!(web, "10.77.0.2");
    let inner = run("inner", "back");
    let ping = |network: &str, address: &str| {
        node.berth(&["run", "--rm", "--network", network, "busybox", "ping", "-c", "1", "-W", "1", address])
    };
    ping("front", &web).ok();
    ping("back", &inner).ok();
    for (network, address) in [("bridge", &web), ("front", &inner), ("back", &web)] {
        ping(network, address).fails(1);
    }
    let shown =
        node.berth(&["network", "inspect", "-f", "{{range .Containers}}{{.Name}} {{.IPv4Address}}{{end}}", "front"]);
    assert_eq!(shown.ok(), "web 10.77.0.2/24");
    assert_eq!(
        node.berth(&["ps", "-q", "--filter", "network=front", "--format", "{{.Names}} {{.Networks}}"]).ok(),
        "web front"
    );
    let refused = node.berth(&["network", "rm", "front"]).fails(1).to_owned();
    assert!(refused.contains("network front has active endpoints (name:\"web\""), "{refused}");
    node.berth(&["rm", "-f", "web"]).ok();
    assert_eq!(node.berth(&["network", "rm", "front"]).ok(), "front");
    // One that a stopped container is connected to stays.
    node.berth(&["kill", "inner"]).ok();
    node.berth(&["network", "create", "unused"]).ok();
    assert_eq!(node.berth(&["network", "prune", "-f"]).ok(), "Deleted Networks:\nunused");
    node.berth(&["rm", "-f", "inner"]).ok();
    assert_eq!(node.berth(&["network", "prune", "-f"]).ok(), "Deleted Networks:\nback");
    let links = node.netns.command("ip").args(["-br", "link"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&links.stdout).contains("br-"), "no bridge is left");
    node.finish();
}

fn there_again(setup: Setup) {
    let node = node(setup);
    node.berth(&["network", "create", "--subnet", "10.78.0.0/24", "front"]).ok();
    let start = |name: &str| {
        node.berth(&["run", "-d", "--name", name, "--network", "front", "busybox", "sleep", "1000"]).ok();
    };
    start("web");
    node.crash("all");
    node.boot();
    node.answers();
    start("more");
    let format = "{{.NetworkSettings.Networks.front.IPAddress}}";
    assert_eq!((node.inspect("web", format), node.inspect("more", format)), ("10.78.0.2".into(), "10.78.0.3".into()));
    let ping = |address: &str| {
        node.berth(&["run", "--rm", "--network", "front", "busybox", "ping", "-c", "1", "-W", "5", address]).ok();
    };
    ping("10.78.0.2");
    let listed = || node.berth(&["network", "ls", "-q", "--filter", "name=front"]).ok().to_owned();
    let id = listed();
    node.reboot();
    assert_eq!(listed(), id);
    node.berth(&["start", "web"]).ok();
    ping(&node.inspect("web", format));
    node.finish();
}

fn what_cannot_be(setup: Setup) {
    let node = node(setup);
    node.berth(&["network", "create", "--subnet", "10.79.0.0/16", "front"]).ok();
    for (arguments, why) in [
        (&["front"][..], "network with name front already exists"),
        (&["--subnet", "10.79.1.0/24", "x"], "Pool overlaps with other one on this address space"),
        (&["bridge"], "operation is not permitted on predefined bridge network"),
        (&["-d", "overlay", "x"], "plugin not found"),
        (&["--gateway", "10.80.0.1", "x"], "every ip-range or gateway must have a corresponding subnet"),
        (&["--scope", "swarm", "x"], "--scope is not supported"),
        (&["a/b"], "invalid network name"),
    ] {
        let refused = node.berth(&[&["network", "create"], arguments].concat()).fails(1).to_owned();
        assert!(refused.contains(why), "{arguments:?}: {refused}");
    }
    for name in ["bridge", "host", "none"] {
        let refused = node.berth(&["network", "rm", name]).fails(1).to_owned();
        assert!(refused.contains(&format!("{name} is a pre-defined network and cannot be removed")), "{refused}");
    }
    assert!(node.berth(&["network", "rm", "nope"]).fails(1).contains("network nope not found"));
    node.berth(&["network", "rm", "-f", "nope"]).ok();
    assert!(node.berth(&["network", "inspect", "nope"]).fails(1).contains("network nope not found"));
    node.finish();
}

/// Whoever reloads the whole firewall takes our rules away; they are back before anybody asks for anything.
#[test]
fn rules_come_back_when_they_are_flushed() {
    let node = node(Setup::default());
    node.berth(&["network", "create", "--subnet", "10.79.0.0/24", "front"]).ok();
    let serve = "mkdir /w; echo page >/w/index.html; exec httpd -f -h /w";
    let run = ["run", "-d", "--name", "web", "--network", "front", "-p", "8080:80", "busybox", "sh", "-c", serve];
    node.berth(&run).ok();
    node.berth(&["exec", "web", "sh", "-c", "until wget -q -O - http://127.0.0.1/; do :; done 2>/dev/null"]).ok();
    let nft = |words: &[&str]| berth_tests::run(node.netns.command("nft").args(words), b"").ok().to_owned();
    let before = nft(&["list", "ruleset"]);
    nft(&["add", "table", "ip", "others"]);
    for _ in 0..3 {
        nft(&["flush", "ruleset"]);
        let begun = std::time::Instant::now();
        while nft(&["list", "ruleset"]) != before {
            assert!(begun.elapsed() < berth_tests::patience::PATIENCE, "{}", nft(&["list", "ruleset"]));
        }
    }
    let mut curl = node.netns.command("curl");
    assert_eq!(berth_tests::run(curl.args(["-s", "http://127.0.0.1:8080/"]), b"").ok(), "page");
    // Somebody else's table is nobody's business, and ours is not made anew for it.
    nft(&["add", "table", "ip", "others"]);
    nft(&["delete", "table", "ip", "others"]);
    assert_eq!(nft(&["list", "ruleset"]), before);
    node.finish();
}
