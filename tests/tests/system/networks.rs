//! Networks: containers reach each other, the host reaches published ports, and everything goes with the container.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use berth_tests::{Node, Setup, run};

use crate::node;

on_both_runtimes!(modes, published_ports_answer_and_go, hosts_and_resolver);

/// One HTTP exchange with an address in the node's network namespace.
pub(crate) fn fetch(node: &Node, address: &str) -> std::io::Result<String> {
    node.netns.within(|| {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })
}

fn modes(setup: Setup) {
    let node = node(setup);
    let links = |mode: &str| {
        let listed = node.berth(&["run", "--rm", "--network", mode, "busybox", "ls", "/sys/class/net"]);
        listed.ok().split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(links("none"), ["lo"]);
    assert_eq!(links("bridge"), ["eth0", "lo"]);
    assert!(links("host").contains(&"berth0".to_owned()), "the host's own links");
    node.berth(&["run", "-d", "--name", "a", "busybox", "sleep", "1000"]).ok();
    let shared = node.berth(&["run", "--rm", "--network", "container:a", "busybox", "hostname", "-i"]);
    assert_eq!(shared.ok().trim(), node.inspect("a", "{{.NetworkSettings.IPAddress}}"));
    let address = node.inspect("a", "{{.NetworkSettings.IPAddress}}");
    node.berth(&["run", "--rm", "busybox", "ping", "-c", "1", "-W", "5", &address]).ok();
    assert!(node.berth(&["run", "--rm", "--network", "nowhere", "busybox", "true"]).fails(125).contains("nowhere"));
    node.finish();
}

fn published_ports_answer_and_go(setup: Setup) {
    let node = node(setup);
    let serve = "echo hello > /index.html; exec httpd -f -p 80 -h /";
    node.berth(&["run", "-d", "--name", "web", "-p", "8080:80", "-p", "127.0.0.1::80", "busybox", "sh", "-c", serve])
        .ok();
    let address = node.inspect("web", "{{.NetworkSettings.IPAddress}}");
    // httpd is not listening the moment the process runs; its socket is what is waited for.
    let listening = "until grep -q ':0050 ' /proc/net/tcp /proc/net/tcp6; do :; done";
    node.berth(&["exec", "web", "sh", "-c", listening]).ok();
    for at in ["127.0.0.1:8080", &format!("{address}:80")] {
        assert!(fetch(&node, at).unwrap().ends_with("hello\n"), "{at}");
    }
    let random = node.inspect("web", r#"{{(index (index .NetworkSettings.Ports "80/tcp") 1).HostPort}}"#);
    assert!(fetch(&node, &format!("127.0.0.1:{random}")).unwrap().ends_with("hello\n"), "{random}");
    let gateway = node.inspect("web", "{{.NetworkSettings.Gateway}}");
    let other = node.berth(&["run", "--rm", "busybox", "wget", "-qO-", &format!("http://{gateway}:8080/")]);
    assert_eq!(other.ok(), "hello", "from another container, by the host's address");
    let taken = node.berth(&["run", "-d", "--name", "late", "-p", "8080:80", "busybox", "true"]).fails(125);
    assert!(taken.contains("8080") && taken.contains("already allocated"), "{taken}");
    node.berth(&["rm", "-f", "web", "late"]);
    assert!(fetch(&node, "127.0.0.1:8080").is_err(), "the port goes with the container");
    assert!(node.berth(&["run", "--rm", "-p", "70000:1", "busybox", "true"]).fails(125).contains("hostPort"));
    node.finish();
}

fn hosts_and_resolver(setup: Setup) {
    let node = node(setup);
    let hosts = node.berth(&["run", "--rm", "-h", "me", "--add-host", "db:10.1.2.3", "busybox", "cat", "/etc/hosts"]);
    assert!(hosts.ok().contains("10.1.2.3\tdb") && hosts.text().lines().any(|l| l.ends_with("\tme")), "{hosts:?}");
    let resolver = node.berth(&[
        "run",
        "--rm",
        "--dns",
        "10.9.8.7",
        "--dns-search",
        "example.org",
        "busybox",
        "cat",
        "/etc/resolv.conf",
    ]);
    assert!(resolver.ok().contains("nameserver 10.9.8.7") && resolver.text().contains("search example.org"));
    node.finish();
}

#[test]
fn redis_answers_through_a_published_port() {
    let node = Node::with(Setup { registry: true, ..Setup::default() });
    node.berth(&["run", "--name", "redis", "-d", "-p", "6379:6379", "redis:4-alpine"]).ok();
    let mut log = node.lines(&["logs", "-f", "redis"]);
    assert!(log.any(|line| line.contains("Ready to accept connections")), "redis starts");
    let mut ping = node.netns.command("redis-cli");
    assert_eq!(run(ping.arg("ping"), b"").ok(), "PONG");
    let netstat = node.berth(&["container", "exec", "redis", "netstat", "-tanlp"]);
    assert!(netstat.ok().contains(":6379"), "{netstat:?}");
    node.berth(&["stop", "redis"]).ok();
    node.berth(&["start", "redis"]).ok();
    node.finish();
}

#[test]
fn nginx_serves_its_page() {
    let node = Node::with(Setup { registry: true, ..Setup::default() });
    node.berth(&["image", "pull", "nginx:1.18-alpine"]).ok();
    node.berth(&["run", "--name", "web", "-d", "-p", "8081:80", "nginx:1.18-alpine"]).ok();
    let listening = "until grep -q ':0050 ' /proc/net/tcp; do :; done";
    node.berth(&["exec", "web", "sh", "-c", listening]).ok();
    let address = node.inspect("web", "{{.NetworkSettings.IPAddress}}");
    assert!(fetch(&node, &format!("{address}:80")).unwrap().contains("Welcome to nginx"));
    assert!(fetch(&node, "127.0.0.1:8081").unwrap().contains("Welcome to nginx"));
    assert!(node.berth(&["container", "exec", "web", "ifconfig"]).ok().contains(&address));
    node.berth(&["stop", "web"]).ok();
    assert_eq!(node.inspect("web", "{{.State.ExitCode}}"), "0", "stopped by its own SIGQUIT");
    node.finish();
}
