//! The works: what a user waits for, in Docker's words.

/// One thing to be timed on every engine that can do it.
pub(crate) struct Work {
    /// Short, for the command line.
    pub(crate) name: &'static str,
    /// For the table.
    pub(crate) title: &'static str,
    /// Asked once before.
    pub(crate) before: &'static [&'static [&'static str]],
    /// What is timed; several run side by side. `%` becomes a number that is used once.
    pub(crate) timed: &'static [&'static [&'static str]],
    /// How often `timed` is started side by side.
    pub(crate) parallel: usize,
    /// Asked after each round, not timed.
    pub(crate) after: &'static [&'static [&'static str]],
    /// Asked once at the end.
    pub(crate) end: &'static [&'static [&'static str]],
    /// Rounds.
    pub(crate) rounds: usize,
    /// Milliseconds that berth means to stay below here.
    pub(crate) target: f64,
}

const HELD: &[&str] = &["run", "-d", "--name", "held", "--network", "none", "busybox", "sleep", "100000"];

/// Other bytes each time: the same layer would be there already.
const WRITE: &[&str] = &["exec", "held", "sh", "-c", "head -c 50000000 /dev/urandom >/f"];

const NONE: Work =
    Work { name: "", title: "", before: &[], timed: &[], parallel: 1, after: &[], end: &[], rounds: 21, target: 0.0 };

/// All works.
pub(crate) fn all() -> Vec<Work> {
    vec![
        Work {
            name: "run",
            title: "run --rm --network none busybox true",
            timed: &[&["run", "--rm", "--network", "none", "busybox", "true"]],
            target: 30.0,
            ..NONE
        },
        Work {
            name: "bridge",
            title: "run --rm busybox true (default bridge)",
            timed: &[&["run", "--rm", "busybox", "true"]],
            target: 45.0,
            ..NONE
        },
        Work {
            name: "exec",
            title: "exec c true",
            before: &[HELD],
            timed: &[&["exec", "held", "true"]],
            end: &[&["rm", "-f", "held"]],
            target: 12.0,
            ..NONE
        },
        Work {
            name: "ps",
            title: "ps",
            before: &[HELD],
            timed: &[&["ps"]],
            end: &[&["rm", "-f", "held"]],
            target: 5.0,
            ..NONE
        },
        Work {
            name: "starts",
            title: "20 detached starts side by side",
            timed: &[&["run", "-d", "--name", "s%", "busybox", "sleep", "100000"]],
            parallel: 20,
            after: &[&["rm", "-f", "*"]],
            rounds: 5,
            target: 350.0,
            ..NONE
        },
        Work {
            name: "commit",
            title: "commit of 50 MB of changes",
            before: &[HELD, WRITE],
            timed: &[&["commit", "-p=false", "held", "made:v%"]],
            after: &[WRITE],
            end: &[&["rm", "-f", "held"]],
            rounds: 9,
            // A quarter of what Docker takes.
            target: 250.0,
            ..NONE
        },
    ]
}

/// What can be asked for by name.
pub(crate) fn names() -> Vec<&'static str> {
    all().iter().map(|work| work.name).chain(["memory", "crowd", "pull"]).collect()
}
