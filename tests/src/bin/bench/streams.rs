//! What passes through: bytes both ways through eight attached containers, and output into a log.

use std::{
    fs,
    io::{Read as _, Write as _},
    process::Stdio,
    thread,
    time::Instant,
};

use anyhow::{Context as _, ensure};
use berth_tests::Node;

use crate::memory;

const PIPES: usize = 8;
/// Each way, through each container.
const PIPED: usize = 256 << 20;
const BLOCK: usize = 1 << 20;
/// A line with its end, as a program of a server prints them.
const LINE: usize = 100;
const LOGGED: usize = 2_000_000_000;

/// Prints how much passes, both ways counted, with every byte compared.
pub(crate) fn attach(node: &Node) -> anyhow::Result<()> {
    let begun = Instant::now();
    thread::scope(|scope| {
        let clients: Vec<_> = (0..PIPES).map(|n| scope.spawn(move || pipe(node, n as u8))).collect();
        clients.into_iter().try_for_each(|client| client.join().map_err(|_| anyhow::anyhow!("a client panicked"))?)
    })?;
    let rate = (2 * PIPES * PIPED) as f64 / begun.elapsed().as_secs_f64() / 1e9;
    println!("\nattach: {PIPES} containers, both ways {rate:>20.2} GB/s (target 1)");
    Ok(())
}

/// One whose length is no power of two, so that what is lost or doubled shifts the rest.
fn pattern(seed: u8) -> Vec<u8> {
    let mix = |n: usize| (n as u32).wrapping_mul(2_654_435_761).rotate_left(u32::from(seed)).to_le_bytes();
    (0..BLOCK / 4 - 13).flat_map(mix).collect()
}

fn pipe(node: &Node, seed: u8) -> anyhow::Result<()> {
    let block = pattern(seed);
    let mut command = node.command(&["run", "--rm", "-i", "--network", "none", "busybox", "cat"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut input = child.stdin.take().context("it has an input")?;
    let mut output = child.stdout.take().context("it has an output")?;
    let rounds = PIPED / block.len();
    thread::scope(|scope| {
        let sent = &block;
        let writer = scope.spawn(move || (0..rounds).try_for_each(|_| input.write_all(sent)));
        let mut came = vec![0; block.len()];
        for round in 0..rounds {
            output.read_exact(&mut came)?;
            ensure!(came == block, "bytes of block {round} are not those that were sent");
        }
        writer.join().map_err(|_| anyhow::anyhow!("the writer panicked"))??;
        anyhow::Ok(())
    })?;
    ensure!(output.read(&mut [0])? == 0, "more came than was sent");
    ensure!(child.wait()?.success(), "cat failed");
    Ok(())
}

/// Prints how fast a container's output is in its log, whether all of it is, what its shim needed for it, and how long it
/// takes to find the end of it by its time.
pub(crate) fn logs(node: &Node) -> anyhow::Result<()> {
    let line = "x".repeat(LINE - 1);
    let print = format!("yes {line} | head -c {LOGGED}; echo the end; exec sleep 100000");
    let begun = Instant::now();
    node.berth(&["run", "-d", "--name", "logged", "--network", "none", "busybox", "sh", "-c", &print]).ok();
    let path = node.inspect("logged", "{{.LogPath}}");
    // The file's last bytes are looked at as fast as it grows, which costs nothing beside it.
    let told = format!(r#"tail -n 1 -F -s 0.05 {path} 2>/dev/null | grep -m 1 -q '"the end'"#);
    ensure!(node.netns.command("sh").args(["-c", &told]).status()?.success(), "the end comes");
    let seconds = begun.elapsed().as_secs_f64();
    let shims = memory::shims(&node.state().display().to_string());
    let most = shims.iter().filter_map(|pid| peak(*pid)).max().unwrap_or_default();
    println!("\nlogs: lines of {LINE} bytes {:>31.0} MB/s (target 200)", LOGGED as f64 / 1e6 / seconds);
    println!("  most that its shim had in memory {:>20.1} MiB", most as f64 / 1024.0);
    let since = node.berth(&["logs", "--timestamps", "--tail", "1", "logged"]).ok().to_owned();
    let since = since.split(' ').next().unwrap_or_default().to_owned();
    let begun = Instant::now();
    let found = node.berth(&["logs", "--since", &since, "logged"]);
    println!("  logs --since its last line {:>26.1} ms", begun.elapsed().as_secs_f64() * 1000.0);
    ensure!(found.ok() == "the end", "the last line is found");
    let mut all = node.command(&["logs", "logged"]).stdout(Stdio::piped()).spawn()?;
    let mut output = all.stdout.take().context("it has an output")?;
    let (mut buffer, mut bytes) = (vec![0; BLOCK], 0);
    let begun = Instant::now();
    loop {
        match output.read(&mut buffer)? {
            0 => break,
            read => bytes += read,
        }
    }
    println!("  logs of all of it {:>35.0} MB/s", bytes as f64 / 1e6 / begun.elapsed().as_secs_f64());
    ensure!(all.wait()?.success() && bytes == LOGGED + "the end\n".len(), "{bytes} bytes are there");
    node.berth(&["rm", "-f", "logged"]).ok();
    Ok(())
}

/// The most that a process ever had in memory, in KiB.
fn peak(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}
