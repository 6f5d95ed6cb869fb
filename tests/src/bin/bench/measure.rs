//! Timing: rounds that go around all engines, so that a slow minute of the machine hits all alike.

use std::{
    fmt,
    process::Stdio,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::ensure;

use crate::{engine::Engine, work::Work};

/// The engines' times for one work, in the engines' order; `None` where one cannot do it.
pub(crate) struct Row {
    title: &'static str,
    target: f64,
    medians: Vec<Option<f64>>,
}

/// Times a work on every engine, round by round.
pub(crate) fn interleaved(work: &Work, engines: &[Engine<'_>]) -> anyhow::Result<Row> {
    let able: Vec<bool> = engines.iter().map(|engine| engine.command(work.timed[0]).is_some()).collect();
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); engines.len()];
    for engine in engines {
        for words in work.before {
            engine.ask(words)?;
        }
    }
    // One round to warm up.
    for round in 0..=work.rounds {
        for (at, engine) in engines.iter().enumerate().filter(|(at, _)| able[*at]) {
            let (time, names) = once(work, engine)?;
            if round > 0 {
                times[at].push(time.as_secs_f64() * 1000.0);
            }
            for words in work.after {
                let words: Vec<&str> = words
                    .iter()
                    .flat_map(|w| if *w == "*" { names.iter().map(String::as_str).collect() } else { vec![*w] })
                    .collect();
                engine.ask(&words)?;
            }
        }
    }
    for engine in engines {
        for words in work.end {
            engine.ask(words)?;
        }
    }
    let medians = times.into_iter().map(|times| (!times.is_empty()).then(|| median(times))).collect();
    Ok(Row { title: work.title, target: work.target, medians })
}

fn once(work: &Work, engine: &Engine<'_>) -> anyhow::Result<(Duration, Vec<String>)> {
    static NUMBER: AtomicU32 = AtomicU32::new(1);
    let base = NUMBER.fetch_add(work.parallel as u32, Ordering::Relaxed);
    let numbers: Vec<u32> = (0..work.parallel as u32).map(|n| base + n).collect();
    let started = Instant::now();
    let failed = thread::scope(|scope| {
        let threads: Vec<_> = numbers
            .iter()
            .map(|number| {
                scope.spawn(move || {
                    let words = numbered(work.timed[0], *number);
                    let words: Vec<&str> = words.iter().map(|w| &**w).collect();
                    let Some(mut command) = engine.command(&words) else { return false };
                    command.stdin(Stdio::null()).stdout(Stdio::null()).status().is_ok_and(|status| status.success())
                })
            })
            .collect();
        threads.into_iter().filter_map(|t| t.join().ok()).filter(|well| !well).count()
    });
    let time = started.elapsed();
    ensure!(failed == 0, "{}: {} failed {failed} times", engine.name, work.title);
    Ok((time, numbers.iter().map(|n| format!("s{n}")).collect()))
}

fn numbered<'a>(words: &[&'a str], number: u32) -> Vec<std::borrow::Cow<'a, str>> {
    words
        .iter()
        .map(|word| match word.strip_suffix('%') {
            Some(stem) => format!("{stem}{number}").into(),
            None => (*word).into(),
        })
        .collect()
}

/// The middle one of some numbers.
pub(crate) fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// What is printed at the end.
pub(crate) struct Table {
    engines: Vec<&'static str>,
    rows: Vec<Row>,
}

impl Table {
    pub(crate) fn new(engines: &[Engine<'_>]) -> Self {
        Self { engines: engines.iter().map(|engine| engine.name).collect(), rows: Vec::new() }
    }

    pub(crate) fn add(&mut self, row: Row) {
        self.rows.push(row);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\n{:<42}{:>9}", "median of whole commands", "target")?;
        for engine in &self.engines {
            write!(f, "{engine:>22}")?;
        }
        writeln!(f)?;
        for row in &self.rows {
            write!(f, "{:<42}{:>6} ms", row.title, row.target)?;
            let ours = row.medians[0];
            for (at, median) in row.medians.iter().enumerate() {
                let cell = match (median, ours) {
                    (None, _) => "–".to_owned(),
                    (Some(median), Some(ours)) if at > 0 => format!("{median:.1} ms ({:.1} ×)", median / ours),
                    (Some(median), _) => format!("{median:.1} ms"),
                };
                write!(f, "{cell:>22}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
