//! Runs bundles with the low-level runtime, for tests and benchmarks: one thread, and nothing between.
//!
//!     oci_run run BUNDLE ID [--runtime BINARY] [--cache DIR] [--tty] [--exec PROCESS.json]... [--signal N]
//!                           [--pause] [--stats] [--kill-before-start]
//!     oci_run bench BUNDLE COUNT [--runtime BINARY] [--cache DIR]
//!     oci_run remove BUNDLE
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::{Read as _, Write as _},
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use berth_shim::oci::{
    Container, Create, Engine, Error, Started, Stdio, binary::Binary, native, native::Native, remove,
};
use nix::sys::wait::{WaitStatus, waitpid};

struct Options {
    runtime: Option<PathBuf>,
    cache: Option<PathBuf>,
    tty: bool,
    execs: Vec<PathBuf>,
    signal: Option<i32>,
    pause: bool,
    stats: bool,
    die: bool,
}

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let mut plain = Vec::new();
    let mut options = Options {
        runtime: None,
        cache: None,
        tty: false,
        execs: Vec::new(),
        signal: None,
        pause: false,
        stats: false,
        die: false,
    };
    while let Some(word) = words.next() {
        match word.as_str() {
            "--runtime" => options.runtime = words.next().map(PathBuf::from),
            "--cache" => options.cache = words.next().map(PathBuf::from),
            "--tty" => options.tty = true,
            "--exec" => options.execs.extend(words.next().map(PathBuf::from)),
            "--signal" => options.signal = words.next().and_then(|n| n.parse().ok()),
            "--pause" => options.pause = true,
            "--stats" => options.stats = true,
            "--kill-before-start" => options.die = true,
            _ => plain.push(word),
        }
    }
    let words: Vec<&str> = plain.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["run", bundle, id] => run(&options, Path::new(bundle), id),
        ["bench", bundle, count] => bench(&options, Path::new(bundle), count.parse().unwrap()),
        ["remove", bundle] => remove(Path::new(bundle)).map(|()| 0),
        _ => panic!("see the source for usage"),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(match error {
                Error::CommandNotFound(_) => 127,
                Error::NotExecutable(_) => 126,
                _ => 125,
            })
        }
    }
}

fn engine(options: &Options, bundle: &Path) -> Result<Box<dyn Engine>, Error> {
    Ok(match &options.runtime {
        Some(runtime) => Box::new(Binary::new(runtime.clone(), bundle.join("runtime-state"))?),
        None => Box::new(Native::new(options.cache.clone())),
    })
}

fn stdio(tty: bool) -> Stdio {
    let own = |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned().unwrap();
    if tty {
        return Stdio::Terminal { columns: 81, rows: 23 };
    }
    Stdio::Streams { stdin: None, stdout: own(std::io::stdout().as_fd()), stderr: own(std::io::stderr().as_fd()) }
}

fn run(options: &Options, bundle: &Path, id: &str) -> Result<u8, Error> {
    let engine = engine(options, bundle)?;
    let spec = native::read_spec(bundle)?;
    let mut container = engine.create(Create { id, bundle, spec: &spec, stdio: stdio(options.tty) })?;
    if options.die {
        std::process::exit(99);
    }
    let result = live(options, engine.as_ref(), &mut container);
    let deleted = engine.delete(&container);
    if result.is_err() {
        wait(container.pid);
    }
    let code = result?;
    deleted?;
    engine.delete(&container)?;
    Ok(code)
}

fn live(options: &Options, engine: &dyn Engine, container: &mut Container) -> Result<u8, Error> {
    engine.start(container)?;
    for warning in &container.warnings {
        eprintln!("warning: {warning}");
    }
    for path in &options.execs {
        let process = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        let Started { pid, console, .. } = engine.exec(container, &process, stdio(options.tty))?;
        show(console);
        println!("exec exited {}", wait(pid));
    }
    if options.pause {
        engine.pause(container)?;
        let process = container_process(container);
        assert!(
            matches!(engine.exec(container, &process, stdio(false)), Err(Error::Paused)) || options.runtime.is_some()
        );
        println!("paused");
        engine.resume(container)?;
    }
    if options.stats {
        let stats = engine.stats(container)?;
        assert!(stats.cpu.total > 0, "{stats:?}");
        assert!(!engine.pids(container)?.is_empty());
        println!("stats pids={} limit={} memory-limit={}", stats.pids.current, stats.pids.limit, stats.memory.limit);
        let _ = engine.oom_events(container)?;
    }
    if let Some(signal) = options.signal {
        engine.kill(container, signal, false)?;
    }
    show(container.console.take());
    Ok(wait(container.pid) as u8)
}

fn container_process(container: &Container) -> oci_spec::runtime::Process {
    native::read_spec(&container.bundle).unwrap().process().clone().unwrap()
}

/// Prints what a terminal says until its other end is closed.
fn show(console: Option<OwnedFd>) {
    let Some(console) = console else { return };
    let mut console = fs::File::from(console);
    let mut bytes = [0; 4096];
    while let Ok(length @ 1..) = console.read(&mut bytes) {
        std::io::stdout().write_all(&bytes[..length]).unwrap();
    }
}

fn wait(pid: u32) -> i32 {
    match waitpid(nix::unistd::Pid::from_raw(pid as i32), None) {
        Ok(WaitStatus::Exited(_, code)) => code,
        Ok(WaitStatus::Signaled(_, signal, _)) => 128 + signal as i32,
        other => panic!("{other:?}"),
    }
}

fn bench(options: &Options, bundle: &Path, count: usize) -> Result<u8, Error> {
    let engine = engine(options, bundle)?;
    let spec = native::read_spec(bundle)?;
    let mut phases: [Vec<Duration>; 5] = Default::default();
    for number in 0..count + 2 {
        let null = || OwnedFd::from(fs::OpenOptions::new().read(true).write(true).open("/dev/null").unwrap());
        let stdio = Stdio::Streams { stdin: None, stdout: null(), stderr: null() };
        let id = format!("bench-{}-{number}", std::process::id());
        let times = [Instant::now(); 5];
        let mut times = times;
        let mut container = engine.create(Create { id: &id, bundle, spec: &spec, stdio })?;
        times[1] = Instant::now();
        engine.start(&mut container)?;
        times[2] = Instant::now();
        wait(container.pid);
        times[3] = Instant::now();
        engine.delete(&container)?;
        times[4] = Instant::now();
        // The first two warm the caches.
        if number >= 2 {
            for phase in 0..4 {
                phases[phase].push(times[phase + 1] - times[phase]);
            }
            phases[4].push(times[4] - times[0]);
        }
    }
    let names = ["create", "start", "wait", "delete", "total"];
    for (name, phase) in names.iter().zip(&mut phases) {
        phase.sort();
        println!("{name} {:.2} ms", phase[phase.len() / 2].as_secs_f64() * 1000.0);
    }
    Ok(0)
}
