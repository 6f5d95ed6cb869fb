//! The same command lines on Debian's Docker and on berth, on the same images: exit code, output, errors and the
//! containers' state afterwards must agree, after a stated normalisation ([`normal`]). The command lines are in
//! `cases/*.case`, in the form that [`case`] tells; where the two differ, the case says why, and must still differ.
//!
//! Each file is a test of its own, with a Docker and a node in network namespaces of their own. Without Debian's docker.io of
//! the version that the cases were written beside, the tests say so and end. `BERTH_CASE=WORDS` runs only cases with these
//! words in their title.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod case;
mod docker;
mod engine;
mod normal;

use std::{fmt::Write as _, thread};

use berth_tests::{Node, Setup, patience::Watchdog};
use case::Step;
use docker::Docker;
use engine::{Engine, Told};

macro_rules! files {
    ($($name:ident),* $(,)?) => {
        $(#[test] fn $name() { compare(stringify!($name), include_str!(concat!("cases/", stringify!($name), ".case"))); })*
    };
}

files!(mission, states, run, errors, inspect, exec, images, commit, volumes, limits, looking, networks);

/// Runs all cases of a file on both engines, and says everything that is not as it is said to be.
fn compare(file: &str, text: &str) {
    let wanted = std::env::var("BERTH_CASE").unwrap_or_default();
    let mut cases = case::read(text).unwrap_or_else(|error| panic!("{file}.case: {error}"));
    cases.retain(|case| case.title.contains(&wanted));
    if cases.is_empty() {
        return;
    }
    if let Err(why) = docker::usable() {
        eprintln!("skipped: {why}");
        return;
    }
    let _watchdog = Watchdog::new(|| "the two engines are still compared".into());
    let docker = Docker::start();
    let node = Node::with(Setup { registry: true, ..Setup::default() });
    let engines = [&docker as &dyn Engine, &node];
    for engine in engines {
        engine.ask(&["pull", "-q", "busybox"]);
    }
    let mut report = String::new();
    for case in &cases {
        let [docker, berth] = thread::scope(|scope| {
            let both = engines.map(|engine| scope.spawn(|| engine::run(engine, case)));
            both.map(|one| one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        });
        let mut wrong = String::new();
        for (step, (docker, berth)) in case.steps.iter().zip(docker.iter().zip(&berth)) {
            judge(step, docker, berth, &mut wrong);
        }
        if !wrong.is_empty() {
            let _ = write!(report, "\n=== {file}: {}\n{wrong}", case.title);
        }
    }
    drop(docker);
    node.finish();
    assert!(report.is_empty(), "Docker and berth differ:\n{report}");
}

/// Compares what the two engines said to one command line.
fn judge(step: &Step, docker: &Told, berth: &Told, wrong: &mut String) {
    match step.codes {
        Some((d, b)) if (d, b) != (docker.code, berth.code) => {
            let _ = writeln!(wrong, "$ {}\n  codes {} and {}, not {d} and {b}", step.line, docker.code, berth.code);
        }
        None if docker.code != berth.code => {
            let _ = writeln!(wrong, "$ {}\n  codes {} and {}", step.line, docker.code, berth.code);
            let _ = writeln!(wrong, "  Docker: {}\n  berth:  {}", docker.error.trim_end(), berth.error.trim_end());
        }
        _ => {}
    }
    for (what, docker, berth) in [("output", &docker.output, &berth.output), ("error", &docker.error, &berth.error)] {
        match (docker == berth, step.differs.contains_key(what)) {
            (false, false) => {
                let indent = |text: &str| text.trim_end().replace('\n', "\n          ");
                let _ = writeln!(wrong, "$ {}\n  {what}", step.line);
                let _ = writeln!(wrong, "  Docker: {}\n  berth:  {}", indent(docker), indent(berth));
            }
            (true, true) => {
                let _ =
                    writeln!(wrong, "$ {}\n  {what} is said to differ and does not: {}", step.line, docker.trim_end());
            }
            _ => {}
        }
    }
}
