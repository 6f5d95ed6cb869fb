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

use berth_proto::berth::runtime::v1::{AddressPool, CreateNetworkRequest, NetworkAttachment, PortMapping};
use nix::sched::{CloneFlags, setns, unshare};

use crate::network::{Attached, Definition, Error, Live, Namespace, Networks, Request, Settings, link};

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
    let netns = thread::spawn(|| link::make(&[], &[]).unwrap()).join().unwrap();
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

fn open_with(definitions: Vec<Definition>) -> Networks {
    // Nobody looks into it here.
    let zones = tempfile::tempdir().unwrap();
    Networks::open(&Settings::default(), definitions, zones.path()).unwrap()
}

async fn networks() -> Networks {
    let networks = open_with(Vec::new());
    networks.recover(Vec::new()).await.unwrap();
    networks
}

fn bridged(id: &str) -> Request {
    on(id, &["bridge"])
}

/// A container on these networks.
fn on(id: &str, networks: &[&str]) -> Request {
    let to = |network: &&str| NetworkAttachment { network: (*network).into(), ..NetworkAttachment::default() };
    let networks = networks.iter().map(to).collect();
    Request { id: id.into(), name: id.into(), namespace: Namespace::Own, networks, ports: Vec::new() }
}

/// Makes a network; what the store would keep is the answer.
async fn create(networks: &Networks, asked: CreateNetworkRequest) -> Result<Definition, Error> {
    let definition = networks.reserve(asked).await?;
    networks.build(&definition).await?;
    Ok((*definition).clone())
}

fn named(name: &str) -> CreateNetworkRequest {
    CreateNetworkRequest { name: name.into(), ..CreateNetworkRequest::default() }
}

fn with_subnet(name: &str, subnet: &str) -> CreateNetworkRequest {
    CreateNetworkRequest { pools: vec![AddressPool { subnet: subnet.into(), ..AddressPool::default() }], ..named(name) }
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
fn namespaces() {
    on_a_host(async || {
        let networks = networks().await;
        let attach = async |id: &str, namespace| networks.attach(Request { namespace, ..on(id, &[]) }).await;
        let none = attach("none", Namespace::Own).await.unwrap();
        assert!(none.endpoints.is_empty());
        assert!(inside(&none, || sh("ip -br addr")).starts_with("lo               UNKNOWN        127.0.0.1/8"));
        assert!(attach("host", Namespace::Host).await.unwrap().netns.is_none());
        let nowhere = networks.attach(on("nowhere", &["nowhere"])).await.unwrap_err();
        assert_eq!(nowhere.to_string(), "network nowhere not found");
        let shared = attach("shared", Namespace::Of(std::process::id())).await.unwrap();
        assert!(shared.netns.is_some() && shared.endpoints.is_empty());
        let names: Vec<_> = networks.list(&[]).unwrap().into_iter().map(|network| network.name).collect();
        assert_eq!(names, ["bridge", "host", "none"]);
        attach("none", Namespace::Own).await.unwrap_err();
    });
}

#[test]
fn nft_reads_the_table_as_it_is_meant() {
    on_a_host(async || {
        let networks = networks().await;
        let options = [("com.docker.network.bridge.name".to_owned(), "br-inner".to_owned())].into();
        create(&networks, CreateNetworkRequest { internal: true, options, ..with_subnet("inner", "192.168.77.0/24") })
            .await
            .unwrap();
        let ports = vec![port("", 8080, 80, ""), port("127.0.0.1", 5353, 53, "udp")];
        networks.attach(Request { ports, ..bridged("a") }).await.unwrap();
        let ours = sh("nft list ruleset");
        let reference = concat!(env!("CARGO_MANIFEST_DIR"), "/src/network/nft/table.nft");
        // Elsewhere: here ours would be put back.
        assert_eq!(ours, sh(&format!("unshare -n sh -c 'nft -f {reference} && nft list ruleset'")));
        networks.detach("a").await;
        assert!(!sh("nft list ruleset").contains("8080"));
    });
}

#[test]
fn networks_are_apart_and_published_ports_join_them() {
    on_a_host(async || {
        let outside = neighbour();
        let networks = networks().await;
        create(&networks, with_subnet("front", "10.1.0.0/24")).await.unwrap();
        create(&networks, CreateNetworkRequest { internal: true, ..with_subnet("back", "10.2.0.0/24") }).await.unwrap();
        let ports = vec![port("", 8080, 80, "")];
        let web = networks.attach(Request { ports, ..on("web", &["front", "back"]) }).await.unwrap();
        serve(&web, 80, "web");
        let [one, two] = &web.endpoints[..] else { panic!("two networks") };
        assert_eq!((one.ip_address.as_str(), two.ip_address.as_str()), ("10.1.0.2", "10.2.0.2"));
        assert_eq!((one.gateway.as_str(), two.gateway.as_str()), ("10.1.0.1", ""));
        let seen = inside(&web, || sh("ip route; ip -br addr"));
        assert!(seen.contains("default via 10.1.0.1 dev eth0") && seen.contains("eth1"), "{seen}");
        let front = networks.attach(on("front", &["front"])).await.unwrap();
        let back = networks.attach(on("back", &["back"])).await.unwrap();
        let default = networks.attach(bridged("default")).await.unwrap();
        let try_at = |to: SocketAddr| TcpStream::connect_timeout(&to, Duration::from_millis(300));
        assert_eq!(inside(&front, || ask(at("10.1.0.2", 80))).unwrap(), "web");
        assert_eq!(inside(&back, || ask(at("10.2.0.2", 80))).unwrap(), "web");
        assert!(inside(&default, || try_at(at("10.1.0.2", 80))).is_err(), "another network");
        assert!(inside(&back, || try_at(at("10.1.0.2", 80))).is_err(), "no way out of an internal network");
        let gateway = web.endpoints[0].gateway.clone();
        for by_the_host in [at(&gateway, 8080), at("10.99.0.1", 8080), at("172.30.0.1", 8080)] {
            assert_eq!(inside(&default, || ask(by_the_host)).unwrap(), "web", "{by_the_host}");
            assert_eq!(inside(&front, || ask(by_the_host)).unwrap(), "web", "{by_the_host} from its own network");
        }
        assert_eq!(within(&outside, || ask(at("10.99.0.1", 8080))).unwrap(), "web");
        assert!(within(&outside, || try_at(at("10.1.0.2", 80))).is_err());
        // Answers to what a container asks outside come back; an internal network's container has no route there.
        let listener = within(&outside, || TcpListener::bind("10.99.0.2:80").unwrap());
        inside(&front, || TcpStream::connect("10.99.0.2:80").unwrap());
        assert_eq!(listener.accept().unwrap().1.ip(), Ipv4Addr::new(10, 99, 0, 1));
        assert!(inside(&back, || try_at(at("10.99.0.2", 80))).is_err());
        let forced = "ip route add default via 10.2.0.1";
        assert!(
            inside(&back, || {
                sh(forced);
                try_at(at("10.99.0.2", 80))
            })
            .is_err(),
            "nor does a route help"
        );
    });
}

#[test]
fn containers_of_a_network_without_icc_reach_no_other() {
    on_a_host(async || {
        let networks = networks().await;
        let options = [("com.docker.network.bridge.enable_icc".to_owned(), "false".to_owned())].into();
        create(&networks, CreateNetworkRequest { options, ..with_subnet("alone", "10.1.0.0/24") }).await.unwrap();
        let a = networks.attach(on("a", &["alone"])).await.unwrap();
        let b = networks.attach(on("b", &["alone"])).await.unwrap();
        serve(&a, 80, "a");
        assert_eq!(ask(at("10.1.0.2", 80)).unwrap(), "a", "the host does");
        assert!(inside(&b, || TcpStream::connect_timeout(&at("10.1.0.2", 80), Duration::from_millis(300))).is_err());
    });
}

#[test]
fn a_network_that_cannot_be_is_not_made() {
    on_a_host(async || {
        let networks = networks().await;
        create(&networks, with_subnet("front", "10.1.0.0/16")).await.unwrap();
        let refused = async |asked| create(&networks, asked).await.unwrap_err().to_string();
        assert_eq!(refused(named("front")).await, "network with name front already exists");
        assert!(refused(with_subnet("other", "10.1.2.0/24")).await.contains("Pool overlaps with other one"));
        assert!(refused(with_subnet("other", "172.30.0.0/16")).await.contains("Pool overlaps with other one"));
        sh("ip link add lan0 type bridge && ip addr add 10.9.0.1/24 dev lan0 && ip link set lan0 up");
        let route = refused(with_subnet("other", "10.9.0.0/16")).await;
        assert!(route.contains("10.9.0.0/24 of lan0"), "{route}");
        let options = [("com.docker.network.bridge.name".to_owned(), "lan0".to_owned())].into();
        assert!(
            refused(CreateNetworkRequest { options, ..named("other") }).await.contains("lan0 is a link of the host")
        );
        assert!(sh("ip -br link").lines().filter(|line| line.starts_with("br-")).count() == 1);
        assert_eq!(networks.list(&["type=custom".into()]).unwrap().len(), 1);
    });
}

#[test]
fn a_network_goes_and_comes_back() {
    on_a_host(async || {
        let before = networks().await;
        let front = create(&before, with_subnet("front", "10.1.0.0/24")).await.unwrap();
        let gone = create(&before, named("gone")).await.unwrap();
        let a = before.attach(on("a", &["front"])).await.unwrap();
        let refused = before.close("front").unwrap_err().to_string();
        assert!(refused.contains(r#"network front has active endpoints (name:"a" id:"a")"#), "{refused}");
        for name in ["bridge", "host", "none"] {
            let refused = before.close(name).unwrap_err().to_string();
            assert_eq!(refused, format!("{name} is a pre-defined network and cannot be removed"));
        }
        let closed = before.close(&gone.id[..12]).unwrap();
        assert!(before.attach(on("b", &["gone"])).await.is_err(), "on its way out");
        assert_eq!(before.close("gone").unwrap_err().to_string(), "network gone not found");
        drop(before);
        // Killed between striking out and taking down: the next start does the rest.
        assert!(sh("ip -br link").contains(&closed.interface));
        let after = open_with(vec![front.clone()]);
        let live = Live { id: "a".into(), name: "a".into(), endpoints: a.endpoints.clone(), ports: Vec::new() };
        after.recover(vec![live]).await.unwrap();
        assert!(!sh("ip -br link").contains(&closed.interface));
        let listed = after.inspect("front").unwrap();
        assert_eq!((listed.id.as_str(), listed.members.len()), (front.id.as_str(), 1));
        assert_eq!(listed.members[0].ipv4_address, "10.1.0.2/24");
        assert_eq!(after.attach(on("b", &["front"])).await.unwrap().endpoints[0].ip_address, "10.1.0.3");
        after.detach("a").await;
        after.detach("b").await;
        // Somebody took the bridge away: the next container brings it back.
        sh(&format!("ip link del {}", front.interface));
        let c = after.attach(on("c", &["front"])).await.unwrap();
        serve(&c, 80, "c");
        assert_eq!(ask(at(&c.endpoints[0].ip_address, 80)).unwrap(), "c");
        after.detach("c").await;
        let definition = after.close("front").unwrap();
        after.take_down(&definition).await;
        assert!(!sh("ip -br link").contains("br-") && !sh("nft list ruleset").contains("br-"));
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
                let said = inside(container, || ask(by_the_host));
                let said = said.unwrap_or_else(|error| panic!("{by_the_host} from {container:?}: {error}"));
                assert_eq!(said, "web", "{by_the_host}");
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
            name: id.into(),
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

        let after = open_with(Vec::new());
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
        let ruleset = sh("nft list ruleset");
        assert!(!ruleset.contains("tcp . 1"), "{ruleset}");
        if sh("ip -br link | grep -c veth || true") != "0" {
            let gone = events.map_while(Result::ok).filter(|line| line.starts_with("Deleted") && line.contains("veth"));
            for _ in gone.take_while(|_| sh("ip -br link | grep -c veth || true") != "0") {}
        }
        monitor.kill().unwrap();
        monitor.wait().unwrap();
    });
}
