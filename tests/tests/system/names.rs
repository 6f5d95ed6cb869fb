//! Names on networks of one's own: who is there, by name, alias and id, as long as it is; everything else is asked outside.

use std::{net::UdpSocket, thread};

use berth_tests::{Node, Setup};

use crate::node;

on_both_runtimes!(
    those_on_one_network_know_each_other_by_name,
    a_container_is_on_several_networks,
    a_container_comes_to_a_network_and_leaves_it,
);

/// The address that a name has for a container; empty where it is not known.
fn ask(node: &Node, container: &str, name: &str) -> String {
    let asked = node.berth(&["exec", container, "nslookup", "-type=a", name]);
    let said = asked.text().to_owned();
    let answers = said.lines().skip_while(|line| !line.starts_with("Name:"));
    let addresses =
        answers.filter_map(|line| line.strip_prefix("Address: ").or_else(|| line.strip_prefix("Address 1: ")));
    addresses.map(|line| line.split(' ').next().unwrap_or_default().to_owned()).collect::<Vec<_>>().join(" ")
}

fn on(node: &Node, name: &str, network: &str) -> String {
    node.berth(&["run", "-d", "--name", name, "--network", network, "--dns", "127.0.0.1", "busybox", "sleep", "1000"])
        .ok();
    node.inspect(name, "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}")
}

fn those_on_one_network_know_each_other_by_name(setup: Setup) {
    let node = node(setup);
    node.berth(&["network", "create", "--subnet", "10.71.0.0/24", "front"]).ok();
    node.berth(&["network", "create", "--subnet", "10.72.0.0/24", "back"]).ok();
    let (web, db) = (on(&node, "web", "front"), on(&node, "db", "front"));
    on(&node, "other", "back");
    on(&node, "plain", "bridge");
    let short = node.inspect("db", "{{slice .Id 0 12}}");
    assert_eq!((ask(&node, "web", "db"), ask(&node, "db", "web")), (db.clone(), web.clone()));
    assert_eq!((ask(&node, "web", &short), ask(&node, "web", "DB.front")), (db.clone(), db.clone()));
    assert_eq!((ask(&node, "other", "db"), ask(&node, "plain", "db")), (String::new(), String::new()));
    node.berth(&["exec", "web", "ping", "-c", "1", "-W", "5", "db"]).ok();
    let conf = node.berth(&["exec", "web", "cat", "/etc/resolv.conf"]).ok().to_owned();
    assert!(conf.starts_with("nameserver 127.0.0.11\n") && conf.contains("ndots:0"), "{conf}");
    assert!(!node.berth(&["exec", "plain", "cat", "/etc/resolv.conf"]).ok().contains("127.0.0.11"));
    // As things change.
    node.berth(&["rename", "db", "data"]).ok();
    assert_eq!((ask(&node, "web", "data"), ask(&node, "web", "db")), (db.clone(), String::new()));
    node.berth(&["kill", "data"]).ok();
    node.berth(&["wait", "data"]).ok();
    node.berth(&["rm", "data"]).ok();
    assert_eq!(ask(&node, "web", "data"), "");
    // Without the service, and after it is back.
    let late = on(&node, "late", "front");
    node.crash("runtime");
    node.answers();
    assert_eq!(ask(&node, "web", "late"), late);
    let last = on(&node, "last", "front");
    assert_eq!((ask(&node, "web", "last"), ask(&node, "late", "web")), (last, web));
    node.finish();
}

fn a_container_is_on_several_networks(setup: Setup) {
    let node = node(setup);
    node.berth(&["network", "create", "--subnet", "10.75.0.0/24", "front"]).ok();
    node.berth(&["network", "create", "--subnet", "10.76.0.0/24", "back"]).ok();
    let (front, back) =
        ("name=front,ip=10.75.0.9,alias=www", "name=back,alias=store,gw-priority=1,mac-address=02:00:00:00:00:09");
    let run = ["run", "-d", "--name", "both", "--network", front, "--network", back, "busybox", "sleep", "1000"];
    node.berth(&run).ok();
    on(&node, "f", "front");
    on(&node, "b", "back");
    let told = |what: &str| node.inspect("both", &format!("{{{{{what}}}}}"));
    let back_ip = told(".NetworkSettings.Networks.back.IPAddress");
    assert_eq!(told(".NetworkSettings.Networks.front.IPAddress"), "10.75.0.9");
    assert_eq!(told("json .NetworkSettings.Networks.front.IPAMConfig"), r#"{"IPv4Address":"10.75.0.9"}"#);
    assert_eq!(told("json .NetworkSettings.Networks.front.Aliases"), r#"["www"]"#);
    assert_eq!(told(".NetworkSettings.Networks.back.MacAddress"), "02:00:00:00:00:09");
    assert_eq!((ask(&node, "f", "www"), ask(&node, "b", "store")), ("10.75.0.9".into(), back_ip));
    assert_eq!((ask(&node, "f", "store"), ask(&node, "b", "www")), (String::new(), String::new()));
    let links =
        node.berth(&["exec", "both", "sh", "-c", "ip -o link | grep -c eth; ip route | grep default"]).ok().to_owned();
    assert_eq!(links.trim_end(), "2\ndefault via 10.76.0.1 dev eth1", "the way out is that of the highest priority");
    for (words, why) in [
        (&["--network", "front", "--ip", "10.75.0.9"][..], "Address already in use"),
        (&["--network", "front", "--ip", "10.99.0.9"], "no configured subnet or ip-range contain the IP address"),
        (&["--ip", "10.75.0.10"], "user specified IP address is supported on user defined networks only"),
        (&["--network-alias", "x"], "network-scoped aliases are only supported for user-defined networks"),
        (&["--network", "front", "--network", "front"], "specified multiple times"),
        (&["--network", "nosuch"], "network nosuch not found"),
    ] {
        let refused = node.berth(&[&["run", "--rm"], words, &["busybox", "true"]].concat()).fails(125);
        assert!(refused.contains(why), "{words:?}: {refused}");
    }
    node.finish();
}

/// Of one that runs, of one that does not; and as it was after the service was killed.
fn a_container_comes_to_a_network_and_leaves_it(setup: Setup) {
    let node = node(setup);
    node.berth(&["network", "create", "--subnet", "10.77.0.0/24", "front"]).ok();
    node.berth(&["network", "create", "--subnet", "10.78.0.0/24", "back"]).ok();
    node.berth(&["run", "-d", "--name", "moves", "busybox", "sleep", "1000"]).ok();
    let (f, b) = (on(&node, "f", "front"), on(&node, "b", "back"));
    let mut events =
        node.lines(&["events", "--filter", "type=network", "--format", "{{.Action}} {{.Actor.Attributes.name}}"]);
    assert_eq!(ask(&node, "moves", "f"), "");
    // From the default bridge, where there are no names, to two networks.
    node.berth(&["network", "connect", "--alias", "www", "--ip", "10.77.0.9", "front", "moves"]).ok();
    node.berth(&["network", "connect", "back", "moves"]).ok();
    assert_eq!(events.next().as_deref(), Some("connect front"));
    assert_eq!(events.next().as_deref(), Some("connect back"));
    assert_eq!((ask(&node, "moves", "f"), ask(&node, "moves", "b")), (f.clone(), b.clone()));
    assert_eq!((ask(&node, "f", "www"), ask(&node, "f", "moves")), ("10.77.0.9".into(), "10.77.0.9".into()));
    node.berth(&["exec", "f", "ping", "-c", "1", "-W", "5", "www"]).ok();
    let networks = || node.inspect("moves", "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}");
    assert_eq!(networks(), "back bridge front ");
    let again = node.berth(&["network", "connect", "front", "moves"]).fails(1);
    assert!(again.contains("endpoint with name moves already exists in network front"), "{again}");
    let taken = node.berth(&["network", "connect", "--ip", "10.77.0.9", "front", "b"]).fails(1);
    assert!(taken.contains("Address already in use"), "{taken}");
    node.crash("runtime");
    node.answers();
    assert_eq!((networks(), ask(&node, "b", "moves").is_empty()), ("back bridge front ".into(), false));
    let taken = node.berth(&["network", "connect", "--ip", "10.77.0.9", "front", "b"]).fails(1);
    assert!(taken.contains("Address already in use"), "{taken}");
    node.berth(&["network", "disconnect", "bridge", "moves"]).ok();
    node.berth(&["network", "disconnect", "back", "moves"]).ok();
    assert_eq!((ask(&node, "b", "moves"), networks()), (String::new(), "front ".into()));
    let way = node.berth(&["exec", "moves", "ip", "route", "show", "default"]).ok().to_owned();
    assert!(way.contains("via 10.77.0.1"), "{way}");
    let not = node.berth(&["network", "disconnect", "back", "moves"]).fails(1);
    assert!(not.contains("container moves is not connected to network back"), "{not}");
    // Of one that does not run; it is there with the next start.
    node.berth(&["stop", "-t", "0", "moves"]).ok();
    node.berth(&["network", "connect", "back", "moves"]).ok();
    node.berth(&["start", "moves"]).ok();
    assert_eq!((ask(&node, "b", "moves").is_empty(), ask(&node, "f", "www")), (false, "10.77.0.9".into()));
    node.berth(&["run", "-d", "--name", "hosted", "--network", "host", "busybox", "sleep", "1000"]).ok();
    assert!(node.berth(&["network", "connect", "back", "hosted"]).code == 1);
    drop(events);
    node.finish();
}

#[test]
fn other_names_are_asked_outside() {
    let node = node(Setup::default());
    node.berth(&["network", "create", "--subnet", "10.73.0.0/24", "front"]).ok();
    node.berth(&["network", "create", "--internal", "--subnet", "10.74.0.0/24", "hidden"]).ok();
    let server = node.netns.within(|| UdpSocket::bind("10.73.0.1:53")).unwrap();
    // Answers 192.0.2.1 to whatever is asked, until the test is over.
    thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok((size, from)) = server.recv_from(&mut query) {
            let mut answer = query[..size].to_vec();
            let question = 12 + query[12..size].iter().position(|byte| *byte == 0).unwrap_or(0) + 5;
            answer.truncate(question);
            (answer[2], answer[3], answer[7]) = (0x81, 0x80, 1);
            answer[8..12].fill(0);
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1]);
            let _ = server.send_to(&answer, from);
        }
    });
    for (name, network) in [("web", "front"), ("db", "hidden")] {
        let run = ["run", "-d", "--name", name, "--network", network, "--dns", "10.73.0.1"];
        node.berth(&[&run[..], &["busybox", "sleep", "1000"]].concat()).ok();
    }
    assert_eq!(ask(&node, "web", "example.org"), "192.0.2.1");
    assert_eq!(ask(&node, "db", "example.org"), "", "nothing leaves an internal network");
    node.finish();
}
