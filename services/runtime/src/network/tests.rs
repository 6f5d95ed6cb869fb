//! Attach, detach and recover, judged from outside: real sockets, and what `ip` and `nft` see. Each test has a network
//! namespace of its own for the "host", entered by its threads and gone with them.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsFd as _, OwnedFd},
    process::Command,
    thread,
    time::Duration,
};

use berth_proto::berth::runtime::v1::PortMapping;
use nix::sched::{CloneFlags, setns, unshare};

use crate::network::{Attached, Error, Live, Mode, Networks, Request, Settings, link};

/// Runs a test in a new host's network namespace. Every thread of its runtime is in it.
fn on_a_host(test: impl AsyncFnOnce() + Send + 'static) {
    let host = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("tests run as root");
        sh("ip link set lo up");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(test());
    });
    host.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

fn sh(script: &str) -> String {
    let output = Command::new("sh").args(["-c", script]).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Runs `body` in a namespace.
fn within<T: Send>(netns: &OwnedFd, body: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let joined = scope.spawn(|| {
            setns(netns.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
            body()
        });
        joined.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Runs `body` in a container's namespace.
fn inside<T: Send>(attached: &Attached, body: impl FnOnce() -> T + Send) -> T {
    within(attached.netns.as_ref().unwrap(), body)
}

/// Another machine, 10.99.0.2, beside the host, 10.99.0.1. It routes everything to the host.
fn neighbour() -> OwnedFd {
    let netns = thread::spawn(|| link::make(None).unwrap()).join().unwrap();
    let host = link::current().unwrap();
    // The namespace has no name for `ip`, but the thread that is in it has one.
    within(&netns, || {
        sh("ip link add lan1 type veth peer name lan0 && ip addr add 10.99.0.2/24 dev lan1 && ip link set lan1 up");
        let tid = nix::unistd::gettid();
        within(&host, || sh(&format!("nsenter --net=/proc/{tid}/ns/net ip link set lan0 netns $$")));
    });
    sh("ip addr add 10.99.0.1/24 dev lan0 && ip link set lan0 up");
    within(&netns, || sh("ip route add default via 10.99.0.1"));
    netns
}

async fn networks() -> Networks {
    let networks = Networks::open(&Settings::default()).unwrap();
    networks.recover(Vec::new()).await.unwrap();
    networks
}

fn bridged(id: &str) -> Request {
    Request { id: id.into(), mode: Mode::parse("").unwrap(), ports: Vec::new() }
}

fn port(host_ip: &str, host_port: u32, container_port: u32, protocol: &str) -> PortMapping {
    PortMapping {
        host_ip: host_ip.into(),
        host_port,
        container_port,
        protocol: protocol.into(),
        ..PortMapping::default()
    }
}

/// A server that says its name to everyone, until the test ends.
fn serve(attached: &Attached, port: u16, name: &'static str) {
    let listener = inside(attached, || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.and_then(|mut stream| stream.write_all(name.as_bytes()));
        }
    });
}

/// What is said at an address, as seen from the calling thread's namespace.
fn ask(address: impl Into<SocketAddr>) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address.into(), Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    Ok(said)
}

fn at(address: &str, port: u32) -> SocketAddr {
    format!("{address}:{port}").parse().unwrap()
}

#[test]
fn a_container_has_an_address_that_the_host_reaches() {
    on_a_host(async || {
        let networks = networks().await;
        let attached = networks.attach(bridged("a")).await.unwrap();
        let endpoint = &attached.endpoints[0];
        let seen = inside(&attached, || sh("ip -br addr show eth0; ip route; ip -br link"));
        assert!(seen.contains(&format!("{}/16", endpoint.ip_address)), "{seen}");
        assert!(seen.contains(&format!("default via {}", endpoint.gateway)), "{seen}");
        assert!(seen.contains(&endpoint.mac_address), "{seen}");
        serve(&attached, 80, "a");
        assert_eq!(ask(at(&endpoint.ip_address, 80)).unwrap(), "a");
        networks.detach("a").await;
        networks.detach("a").await;
    });
}

#[test]
fn modes() {
    on_a_host(async || {
        let networks = networks().await;
        let attach = async |id: &str, mode| networks.attach(Request { mode, ..bridged(id) }).await;
        let none = attach("none", Mode::None).await.unwrap();
        assert!(none.endpoints.is_empty());
        assert!(inside(&none, || sh("ip -br addr")).starts_with("lo               UNKNOWN        127.0.0.1/8"));
        assert!(attach("host", Mode::Host).await.unwrap().netns.is_none());
        let nowhere = attach("nowhere", Mode::parse("nowhere").unwrap()).await.unwrap_err();
        assert_eq!(nowhere.to_string(), "network nowhere not found");
        let shared = attach("shared", Mode::Container { pid: std::process::id() }).await.unwrap();
        assert!(shared.netns.is_some() && shared.endpoints.is_empty());
        let names: Vec<_> = networks.list().into_iter().map(|network| network.name).collect();
        assert_eq!(names, ["bridge", "host", "none"]);
        attach("none", Mode::None).await.unwrap_err();
    });
}

#[test]
fn nft_reads_the_table_as_it_is_meant() {
    on_a_host(async || {
        let networks = networks().await;
        let ports = vec![port("", 8080, 80, ""), port("127.0.0.1", 5353, 53, "udp")];
        networks.attach(Request { ports, ..bridged("a") }).await.unwrap();
        let ours = sh("nft list ruleset");
        let reference = concat!(env!("CARGO_MANIFEST_DIR"), "/src/network/nft/table.nft");
        sh(&format!("nft flush ruleset; nft -f {reference}"));
        assert_eq!(ours, sh("nft list ruleset"));
        networks.detach("a").await;
        assert!(!sh("nft list ruleset").contains("elements"));
    });
}

#[test]
fn published_ports_are_reached_from_everywhere() {
    on_a_host(async || {
        let outside = neighbour();
        let networks = networks().await;
        let ports = vec![port("", 8080, 80, "tcp"), port("127.0.0.1", 0, 80, ""), port("10.99.0.1", 8081, 80, "")];
        let web = networks.attach(Request { ports, ..bridged("web") }).await.unwrap();
        let other = networks.attach(bridged("other")).await.unwrap();
        serve(&web, 80, "web");
        let address = web.endpoints[0].ip_address.as_str();
        let gateway = web.endpoints[0].gateway.as_str();
        let chosen = web.ports[1].host_port;
        assert_eq!(web.ports[1].host_ip, "127.0.0.1");
        let hosts = [at("127.0.0.1", 8080), at("127.0.0.1", chosen), at("10.99.0.1", 8080), at("10.99.0.1", 8081)];
        for from_host in hosts.into_iter().chain([at(gateway, 8080)]) {
            assert_eq!(ask(from_host).unwrap(), "web", "from the host to {from_host}");
        }
        for from_outside in [at("10.99.0.1", 8080), at("10.99.0.1", 8081)] {
            assert_eq!(within(&outside, || ask(from_outside)).unwrap(), "web", "{from_outside}");
        }
        for container in [&other, &web] {
            for by_the_host in [at(gateway, 8080), at("10.99.0.1", 8080), at("10.99.0.1", 8081), at(address, 80)] {
                assert_eq!(inside(container, || ask(by_the_host)).unwrap(), "web", "{by_the_host}");
            }
        }
        // Neither is a port reached on an address that it is not published on, nor the container without a port.
        assert!(ask(at("10.99.0.1", chosen)).is_err());
        assert!(ask(at("127.0.0.1", 8081)).is_err());
        let unpublished = |to: SocketAddr| TcpStream::connect_timeout(&to, Duration::from_millis(300));
        assert!(within(&outside, || unpublished(at(address, 80))).is_err());
        networks.detach("web").await;
        assert!(ask(at("127.0.0.1", 8080)).is_err());
    });
}

#[test]
fn containers_reach_the_outside_with_the_hosts_address() {
    on_a_host(async || {
        let outside = neighbour();
        let networks = networks().await;
        let a = networks.attach(bridged("a")).await.unwrap();
        let listener = within(&outside, || TcpListener::bind("10.99.0.2:80").unwrap());
        let _stream = inside(&a, || TcpStream::connect("10.99.0.2:80").unwrap());
        assert_eq!(listener.accept().unwrap().1.ip(), Ipv4Addr::new(10, 99, 0, 1));
    });
}

#[test]
fn the_hosts_loopback_is_out_of_reach() {
    on_a_host(async || {
        let outside = neighbour();
        let networks = networks().await;
        let a =
            networks.attach(Request { ports: vec![port("127.0.0.1", 8080, 80, "")], ..bridged("a") }).await.unwrap();
        serve(&a, 80, "a");
        let _host = UdpSocket::bind("127.0.0.1:99").unwrap();
        let gateway = a.endpoints[0].gateway.clone();
        let prepare = |link: &str, gateway: &str| {
            sh(&format!(
                "echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet; ip route del local 127.0.0.0/8 table local; \
                 ip addr flush dev lo; ip route add 127.0.0.0/8 via {gateway} dev {link}"
            ));
            TcpStream::connect_timeout(&at("127.0.0.1", 8080), Duration::from_millis(300))
        };
        assert!(within(&outside, || prepare("lan1", "10.99.0.1")).is_err());
        assert!(inside(&a, || prepare("eth0", &gateway)).is_err());
    });
}

#[test]
fn udp_is_published_too() {
    on_a_host(async || {
        let networks = networks().await;
        let a = networks.attach(Request { ports: vec![port("", 5353, 53, "udp")], ..bridged("a") }).await.unwrap();
        let server = inside(&a, || UdpSocket::bind("0.0.0.0:53").unwrap());
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        let limit = Some(Duration::from_secs(5));
        client.set_read_timeout(limit).unwrap();
        server.set_read_timeout(limit).unwrap();
        client.send_to(b"?", "127.0.0.1:5353").unwrap();
        let (_, from) = server.recv_from(&mut [0; 9]).unwrap();
        server.send_to(b"!", from).unwrap();
        assert_eq!(client.recv_from(&mut [0; 9]).unwrap().1, at("127.0.0.1", 5353));
    });
}

#[test]
fn a_taken_port_is_refused_and_a_held_one_is_held() {
    on_a_host(async || {
        let networks = networks().await;
        let publish = async |id: &str, ports: Vec<PortMapping>| networks.attach(Request { ports, ..bridged(id) }).await;
        let a = publish("a", vec![port("", 8080, 80, ""), port("", 8080, 80, "udp")]).await.unwrap();
        let taken = publish("b", vec![port("127.0.0.1", 8080, 80, "")]).await.unwrap_err();
        assert_eq!(taken.to_string(), "Bind for 127.0.0.1:8080 failed: port is already allocated");
        // Rust's listeners set SO_REUSEADDR, as servers do.
        assert_eq!(TcpListener::bind("0.0.0.0:8080").unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(UdpSocket::bind("127.0.0.1:8080").unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let host = TcpListener::bind("127.0.0.1:9090").unwrap();
        let taken = publish("b", vec![port("", 9090, 80, "")]).await.unwrap_err();
        assert_eq!(taken.to_string(), "Bind for 0.0.0.0:9090 failed: port is already allocated");
        // A refused container has nothing; an ended connection is in nobody's way.
        let client = TcpStream::connect("127.0.0.1:9090").unwrap();
        drop(host.accept().unwrap());
        drop((client, host));
        assert!(sh("ss -tanH state time-wait").contains(":9090"));
        publish("b", vec![port("", 9090, 80, "")]).await.unwrap();
        networks.detach("a").await;
        drop(a);
        TcpListener::bind("0.0.0.0:8080").unwrap();
    });
}

#[test]
fn a_port_is_chosen_that_nobody_has() {
    on_a_host(async || {
        sh("echo 40000 40003 > /proc/sys/net/ipv4/ip_local_port_range");
        let networks = networks().await;
        let _host = TcpListener::bind("127.0.0.1:40001").unwrap();
        let ports = vec![port("", 0, 80, ""), port("", 0, 81, ""), port("", 40002, 82, "")];
        let a = networks.attach(Request { ports, ..bridged("a") }).await.unwrap();
        let mut chosen: Vec<_> = a.ports.iter().map(|port| port.host_port).collect();
        assert_eq!(chosen[2], 40002);
        chosen.sort_unstable();
        assert_eq!(chosen, [40000, 40002, 40003]);
        let none = networks.attach(Request { ports: vec![port("", 0, 80, "")], ..bridged("b") }).await.unwrap_err();
        assert!(matches!(none, Error::NoPortLeft { .. }), "{none}");
    });
}

#[test]
fn a_new_service_takes_over() {
    on_a_host(async || {
        let live = |id: &str, attached: &Attached| Live {
            id: id.into(),
            endpoints: attached.endpoints.clone(),
            ports: attached.ports.clone(),
        };
        let before = networks().await;
        let attach = async |id: &str, host_port| {
            let a = before.attach(Request { ports: vec![port("", host_port, 80, "")], ..bridged(id) }).await.unwrap();
            serve(&a, 80, "here");
            a
        };
        let stays = attach("stays", 8080).await;
        let gone = attach("gone", 8081).await;
        let mut open = TcpStream::connect("127.0.0.1:8080").unwrap();
        let lives = vec![live("stays", &stays)];
        drop((before, gone));

        let after = Networks::open(&Settings::default()).unwrap();
        after.recover(lives).await.unwrap();
        let mut said = String::new();
        open.read_to_string(&mut said).unwrap();
        assert_eq!(said, "here", "a connection goes on");
        assert_eq!(ask(at("127.0.0.1", 8080)).unwrap(), "here");
        assert!(TcpListener::bind("0.0.0.0:8080").is_err(), "the port is held again");
        TcpListener::bind("0.0.0.0:8081").unwrap();
        assert!(!sh("nft list ruleset").contains("8081"));
        let next = after.attach(bridged("next")).await.unwrap();
        assert_ne!(next.endpoints[0].ip_address, stays.endpoints[0].ip_address);
        // Somebody reloads the whole firewall: the next change puts ours back.
        sh("nft flush ruleset");
        after.attach(Request { ports: vec![port("", 9090, 80, "")], ..bridged("more") }).await.unwrap();
        assert_eq!(ask(at("127.0.0.1", 8080)).unwrap(), "here");
    });
}

#[test]
fn many_at_once_and_the_links_go_with_their_namespaces() {
    on_a_host(async || {
        let networks = networks().await;
        let many = (0..20).map(|n| {
            let networks = networks.clone();
            tokio::spawn(async move {
                let ports = vec![port("", 10_000 + n, 80, ""), port("", 0, 80, "")];
                networks.attach(Request { ports, ..bridged(&format!("c{n}")) }).await.unwrap()
            })
        });
        let mut attached = Vec::new();
        for one in many.collect::<Vec<_>>() {
            attached.push(one.await.unwrap());
        }
        let mut addresses: Vec<_> = attached.iter().map(|a| a.endpoints[0].ip_address.clone()).collect();
        addresses.sort_unstable();
        addresses.dedup();
        assert_eq!(addresses.len(), 20);
        let mut monitor =
            Command::new("ip").args(["monitor", "link"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
        let events = io::BufRead::lines(io::BufReader::new(monitor.stdout.take().unwrap()));
        for n in 0..20 {
            networks.detach(&format!("c{n}")).await;
        }
        drop(attached);
        assert!(!sh("nft list ruleset").contains("elements"));
        if sh("ip -br link | grep -c veth || true") != "0" {
            let gone = events.map_while(Result::ok).filter(|line| line.starts_with("Deleted") && line.contains("veth"));
            for _ in gone.take_while(|_| sh("ip -br link | grep -c veth || true") != "0") {}
        }
        monitor.kill().unwrap();
        monitor.wait().unwrap();
    });
}
