//! Attach, detach and recover, judged from outside: real sockets, and what `ip` and `nft` see. Each test has a network
//! namespace of its own for the "host", entered by its thread and gone with it.

use std::{
    net::{TcpListener, TcpStream},
    os::fd::AsFd as _,
    process::Command,
    thread,
};

use nix::sched::{CloneFlags, setns, unshare};

use crate::network::{Attached, Live, Mode, Networks, Request, Settings};

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

/// Runs `body` in a container's namespace.
fn inside<T: Send>(attached: &Attached, body: impl FnOnce() -> T + Send) -> T {
    let netns = attached.netns.as_ref().unwrap();
    thread::scope(|scope| {
        let joined = scope.spawn(|| {
            setns(netns.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
            body()
        });
        joined.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

async fn networks() -> Networks {
    let networks = Networks::open(&Settings::default()).unwrap();
    networks.recover(Vec::new()).await.unwrap();
    networks
}

fn bridged(id: &str) -> Request {
    Request { id: id.into(), mode: Mode::parse("").unwrap(), ports: Vec::new() }
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
        let listener = inside(&attached, || TcpListener::bind("0.0.0.0:80").unwrap());
        TcpStream::connect((endpoint.ip_address.as_str(), 80)).unwrap();
        listener.accept().unwrap();
        networks.detach("a").await;
        networks.detach("a").await;
    });
}
