//! Memory: proportional set sizes of the idle services and of what is kept for each running container.

use std::fs;

use berth_tests::{Node, leftovers};

use crate::engine::Engine;

const CONTAINERS: usize = 20;

/// PSS of a process in KiB; 0 where it is gone.
fn pss(pid: u32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Pids of the shims that belong to a directory or a socket with this in their command line.
pub(crate) fn shims(mark: &str) -> Vec<u32> {
    let ours = |process: &std::path::PathBuf| {
        let cmdline = String::from_utf8_lossy(&fs::read(process.join("cmdline")).unwrap_or_default()).into_owned();
        let cwd = fs::read_link(process.join("cwd")).unwrap_or_default();
        let comm = fs::read_to_string(process.join("comm")).unwrap_or_default();
        let shim = cmdline.contains("containerd-shim") || comm.contains("shim");
        shim && (cmdline.contains(mark) || cwd.to_string_lossy().contains(mark))
    };
    let processes = leftovers::processes();
    processes.iter().filter(|p| ours(p)).filter_map(|p| p.file_name()?.to_str()?.parse().ok()).collect()
}

/// KiB of all these processes.
pub(crate) fn of(pids: &[u32]) -> u64 {
    pids.iter().map(|pid| pss(*pid)).sum()
}

/// Prints the daemons' memory and that of twenty containers' shims.
pub(crate) fn report(node: &Node, engines: &[Engine<'_>]) -> anyhow::Result<()> {
    println!("\nmemory (PSS)");
    for engine in engines {
        let total: u64 = engine.daemons.iter().map(|pid| pss(*pid)).sum();
        println!("  {:<12} daemons, idle      {:>8.1} MiB", engine.name, total as f64 / 1024.0);
    }
    let berth = &engines[0];
    for n in 0..CONTAINERS {
        berth.ask(&["run", "-d", "--name", &format!("m{n}"), "--network", "none", "busybox", "sleep", "100000"])?;
    }
    let shims = shims(&node.state().display().to_string());
    let total: u64 = shims.iter().map(|pid| pss(*pid)).sum();
    println!(
        "  {:<12} a running container {:>6.2} MiB (target 2.5; {} shims)",
        berth.name,
        total as f64 / 1024.0 / CONTAINERS as f64,
        shims.len()
    );
    let daemons: u64 = berth.daemons.iter().map(|pid| pss(*pid)).sum();
    println!(
        "  {:<12} daemons, {CONTAINERS} running {:>7.1} MiB (target 40 idle)",
        berth.name,
        daemons as f64 / 1024.0
    );
    for n in 0..CONTAINERS {
        berth.ask(&["rm", "-f", &format!("m{n}")])?;
    }
    Ok(())
}
