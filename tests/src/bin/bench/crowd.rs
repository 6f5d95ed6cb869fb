//! Many containers at once: 500 that run, started as fast as it goes while somebody else asks the node for other things,
//! and 2,000 that do not.

use std::{
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use berth_tests::{Node, run};

use crate::{engine::Engine, measure::median, memory};

const RUNNING: usize = 500;
const FEW: usize = 50;
const STOPPED: usize = 2000;
/// Commands side by side.
const ABREAST: usize = 4;
const ROUNDS: usize = 11;
/// Milliseconds between the two samples that a share of CPU time is told from.
const WINDOW: f64 = 250.0;
/// Between two calls of the other client.
const PAUSE: Duration = Duration::from_millis(100);

/// Prints how many starts a second there were, what each container takes, and how long others waited meanwhile.
pub(crate) fn report(node: &Node, berth: &Engine<'_>) -> anyhow::Result<()> {
    println!("\nmany containers");
    let idle = memory::of(&berth.daemons);
    abreast(FEW, |n| ask(berth, &["run", "-d", "--name", &format!("r{n}"), "busybox", "sleep", "100000"]))?;
    let stats = timed(berth, &["stats", "--no-stream"])? - WINDOW;
    println!(
        "  stats --no-stream of {FEW:<20} {stats:>8.1} ms (target 100), and {WINDOW} ms in which CPU time is counted"
    );

    let slowest = AtomicUsize::new(0);
    let (done, until) = mpsc::channel::<()>();
    let started = Instant::now();
    let time = thread::scope(|scope| {
        let slowest = &slowest;
        let others = scope.spawn(move || {
            for words in [&["ps", "-a"][..], &["inspect", "r0"], &["images"]].into_iter().cycle() {
                let begun = Instant::now();
                ask(berth, words)?;
                slowest.fetch_max(begun.elapsed().as_millis() as usize, Ordering::Relaxed);
                // Somebody who asks now and then, not a load of its own.
                if until.recv_timeout(PAUSE) != Err(RecvTimeoutError::Timeout) {
                    break;
                }
            }
            anyhow::Ok(())
        });
        let all = abreast(RUNNING - FEW, |n| {
            let begun = Instant::now();
            ask(berth, &["run", "-d", "--name", &format!("r{}", FEW + n), "busybox", "sleep", "100000"])?;
            slowest.fetch_max(begun.elapsed().as_millis() as usize, Ordering::Relaxed);
            Ok(())
        });
        let time = started.elapsed();
        drop(done);
        others.join().map_err(|_| anyhow::anyhow!("the other client panicked"))??;
        all.map(|()| time)
    })?;
    let rate = (RUNNING - FEW) as f64 / time.as_secs_f64();
    println!("  starts of {RUNNING}, {ABREAST} abreast {rate:>18.1} /s (target 25)");
    println!("  slowest call meanwhile {:>19} ms (target 1000)", slowest.load(Ordering::Relaxed));
    let shims = memory::shims(&node.state().display().to_string());
    let each = (memory::of(&shims) + memory::of(&berth.daemons).saturating_sub(idle)) as f64 / 1024.0 / RUNNING as f64;
    println!("  a running container, services' part included {each:>6.2} MiB (target 2.5; {} shims)", shims.len());
    println!("  ps with {RUNNING} running {:>21.1} ms", timed(berth, &["ps"])?);
    println!("  stats --no-stream of {RUNNING:<20} {:>8.1} ms", timed(berth, &["stats", "--no-stream"])? - WINDOW);
    let begun = Instant::now();
    remove(berth)?;
    println!("  rm -f of {RUNNING} {:>29.1} s", begun.elapsed().as_secs_f64());

    abreast(STOPPED, |n| ask(berth, &["create", "--name", &format!("c{n}"), "--network", "none", "busybox", "true"]))?;
    println!("  ps -a with {STOPPED} stopped {:>18.1} ms (target 40)", timed(berth, &["ps", "-a"])?);
    remove(berth)
}

fn ask(berth: &Engine<'_>, words: &[&str]) -> anyhow::Result<()> {
    berth.ask(words)
}

fn remove(berth: &Engine<'_>) -> anyhow::Result<()> {
    let mut list = berth.command(&["ps", "-aq"]).context("berth has every command")?;
    let listed = run(&mut list, b"");
    ensure!(listed.code == 0, "{}", listed.error());
    let ids: Vec<&str> = listed.text().split_whitespace().collect();
    ask(berth, &[&["rm", "-f"], &ids[..]].concat())
}

/// Median of whole commands, in milliseconds.
fn timed(berth: &Engine<'_>, words: &[&str]) -> anyhow::Result<f64> {
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        ask(berth, words)?;
        times.push(begun.elapsed().as_secs_f64() * 1000.0);
    }
    Ok(median(times))
}

/// Does something `count` times, a few at once.
fn abreast(count: usize, act: impl Fn(usize) -> anyhow::Result<()> + Sync) -> anyhow::Result<()> {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        let work = || {
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= count {
                    return Ok(());
                }
                act(n)?;
            }
        };
        let threads: Vec<_> = (0..ABREAST).map(|_| scope.spawn(work)).collect();
        let ended = threads.into_iter().map(|one| one.join().map_err(|_| anyhow::anyhow!("a client panicked"))?);
        ended.collect::<anyhow::Result<Vec<()>>>().map(drop)
    })
}
