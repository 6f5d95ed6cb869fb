//! `make bench`: the same work on berth and on whichever of Docker, containerd and Podman is installed here, interleaved
//! in one run, as medians and ratios. Absolute times of a shared machine say little; the ratios of one run say much.
//!
//!     bench BINARIES FIXTURES [WORK]...
//!
//! Everything runs in a private directory, network namespace and cgroup, on the release binaries.

mod crowd;
mod engine;
mod measure;
mod memory;
mod pull;
mod streams;
mod work;

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use berth_tests::{Node, Registry, Setup};

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(binaries), Some(fixtures)) = (arguments.next(), arguments.next()) else {
        bail!("usage: bench BINARIES FIXTURES [WORK]...; works are {}", work::names().join(" "));
    };
    let wanted: Vec<String> = arguments.collect();
    let absolute = |path: &str| std::path::absolute(path).with_context(|| format!("no such directory: {path}"));
    // SAFETY: no other thread runs yet.
    unsafe {
        std::env::set_var("BERTH_BIN", absolute(&binaries)?);
        std::env::set_var("BERTH_FIXTURES", absolute(&fixtures)?);
    }
    let fixtures: PathBuf = absolute(&fixtures)?;

    let node = Node::with(Setup::default());
    node.load("busybox");
    let storage = tempfile::tempdir()?;
    let registry = Registry::serve(&node.netns, storage.path(), "127.0.0.1:5000");
    registry.push(&fixtures.join("busybox"), "library/busybox:latest");
    let engines = engine::all(&node)?;
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|w| w == name);

    let mut table = measure::Table::new(&engines);
    for work in work::all() {
        if is_wanted(work.name) {
            table.add(measure::interleaved(&work, &engines)?);
        }
    }
    if is_wanted("memory") {
        memory::report(&node, &engines)?;
    }
    if is_wanted("crowd") {
        crowd::report(&node, &engines[0])?;
    }
    if is_wanted("attach") {
        streams::attach(&node)?;
    }
    if is_wanted("logs") {
        streams::logs(&node)?;
    }
    drop(engines);
    node.finish();
    if is_wanted("pull") && fixtures.join("big").exists() {
        registry.push(&fixtures.join("big"), "library/big:latest");
        pull::report(&fixtures.join("big"), registry.netns())?;
    }
    println!("{table}");
    Ok(())
}
