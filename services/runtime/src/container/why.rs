//! Why a container is as it is, in one sentence, and what a person can do about it. Everything here follows from its
//! record; nothing is guessed that the record does not say.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::container::{
    record::{Record, Status, Time},
    restart::Policy,
};

/// What is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Why {
    /// One sentence about the container, by its name.
    pub(crate) sentence: String,
    /// The next step; empty where all is well.
    pub(crate) hint: String,
}

/// Explains a container; `busy` where a command changes it just now.
pub(crate) fn why(record: &Record, busy: bool, now: Time) -> Why {
    let name = &record.name;
    let started = record.state.started.map_or_else(String::new, |at| format!(" for {}", duration(now.since(at))));
    let told = |sentence: String, hint: String| Why { sentence: format!("{name} {sentence}"), hint };
    match record.state.status {
        Status::Running if busy => told(
            format!("runs{started}, and another command is at work on it: a stop waits for the program to end"),
            format!("`berth kill {name}` ends it at once"),
        ),
        Status::Running => {
            let (ails, hint) = ails(record);
            told(format!("runs{started} as process {}{ails}", record.state.pid), hint)
        }
        Status::Paused => told(
            "is paused: its processes are frozen and get no CPU time".into(),
            format!("`berth unpause {name}` lets them go on"),
        ),
        Status::Removing => told("is being removed".into(), String::new()),
        Status::Restarting => {
            let due = Duration::from_millis(record.restart.wait_ms);
            let left = due.saturating_sub(now.since(record.state.finished.unwrap_or(now)));
            let policy = &record.spec.restart_policy;
            let times =
                if record.restart.count == 1 { "time".into() } else { format!("{} times", record.restart.count) };
            told(
                format!(
                    "{}, and its policy {policy} starts it again in {}: it has ended {times} in a row{}",
                    ending(record),
                    duration(left),
                    because(record),
                ),
                format!("`berth logs --tail 20 {name}` shows what it says; `berth stop {name}` keeps it stopped"),
            )
        }
        Status::Created if record.state.error.is_empty() => {
            told("was made and never started".into(), format!("`berth start {name}` starts it"))
        }
        Status::Created => told(format!("could not be started: {}", record.state.error), start_again(record)),
        Status::Exited if !record.state.error.is_empty() && record.state.pid == 0 && failed_start(record) => {
            told(format!("could not be started again: {}", record.state.error), start_again(record))
        }
        Status::Exited => {
            let ago = record.state.finished.map_or_else(String::new, |at| format!(" {} ago", duration(now.since(at))));
            told(format!("{}{ago}{}{}", ending(record), because(record), stays(record)), next_step(record))
        }
    }
}

/// What its health check says, where that is not good.
fn ails(record: &Record) -> (String, String) {
    let Some(health) = record.state.health.as_ref().filter(|health| health.streak > 0) else {
        return (String::new(), String::new());
    };
    let times = if health.streak == 1 { "once".into() } else { format!("{} times in a row", health.streak) };
    let last = health.log.last();
    let said = last.map(|checked| checked.output.trim()).filter(|said| !said.is_empty());
    // The end of what it says is where the reason is; the rest is in `inspect`.
    let said = said.and_then(|said| said.lines().last()).map(|line| format!(": {line}")).unwrap_or_default();
    let code = last.map_or(0, |checked| checked.exit_code);
    let how = if code == -1 { String::new() } else { format!(" with exit code {code}") };
    let sentence = format!("; it is {}: its health check failed {times}{how}{said}", health.condition.name());
    (sentence, format!("`berth inspect --format '{{{{json .State.Health}}}}' {}` shows the last checks", record.name))
}

/// A start that failed leaves an error; one that a reboot ended leaves one too, and an exit code of a signal.
fn failed_start(record: &Record) -> bool {
    matches!(record.state.exit_code, 126..=128)
}

fn ending(record: &Record) -> String {
    let code = record.state.exit_code;
    match code {
        0 => "ended by itself, with exit code 0".into(),
        137 if record.state.oom_killed => "was killed by the kernel, because it had used up its memory".into(),
        129..=192 => match Signal::try_from(code - 128) {
            Ok(signal) => format!("was ended by {} (exit code {code})", signal.as_str()),
            Err(_) => format!("was ended by signal {} (exit code {code})", code - 128),
        },
        _ => format!("ended by itself, with exit code {code}"),
    }
}

fn because(record: &Record) -> String {
    let state = &record.state;
    if state.oom_killed {
        let limit = record.spec.resources.as_ref().map_or(0, |resources| resources.memory);
        return if limit > 0 {
            format!(" (its limit is {} MiB)", limit >> 20)
        } else {
            " (the machine's: it has no limit of its own)".into()
        };
    }
    if !state.error.is_empty() {
        return format!(": {}", state.error);
    }
    match state.exit_code {
        137 => ": by `kill`, by a `stop` whose time was over, or by somebody on the machine".into(),
        139 => ": its program read or wrote where it has no memory".into(),
        143 | 130 => ": as a `stop` or a terminal asks for".into(),
        _ => String::new(),
    }
}

/// Why its policy does nothing.
fn stays(record: &Record) -> String {
    match Policy::parse(&record.spec.restart_policy).unwrap_or(Policy::No) {
        Policy::No => String::new(),
        policy if record.restart.stopped_by_hand => {
            let until = if policy == Policy::Always { ", until the node starts anew" } else { "" };
            format!("; somebody stopped it, so its policy leaves it stopped{until}")
        }
        Policy::OnFailure(limit) if record.state.exit_code != 0 && limit > 0 => {
            format!("; its policy has tried {limit} times and gives up")
        }
        Policy::OnFailure(_) => "; its policy starts it again after failures only".into(),
        Policy::Always | Policy::UnlessStopped => String::new(),
    }
}

fn next_step(record: &Record) -> String {
    let name = &record.name;
    match record.state.exit_code {
        0 => format!("`berth logs {name}` shows what it said; `berth start {name}` starts it again"),
        137 if record.state.oom_killed => {
            format!(
                "`berth update -m SIZE {name}` gives it more, then `berth start {name}`; `berth stats` shows its use"
            )
        }
        143 | 137 | 130 => format!("`berth start {name}` starts it again"),
        _ => format!("`berth logs --tail 20 {name}` shows what it said last"),
    }
}

fn start_again(record: &Record) -> String {
    match record.state.exit_code {
        127 => {
            "look for the program in the image: `berth run --rm --entrypoint sh IMAGE`; its path may be wrong".into()
        }
        126 => "the file is there and cannot be executed: give it the x bit, or name its interpreter".into(),
        _ => format!("mend that, then `berth start {}`", record.name),
    }
}

/// Two digits of time are enough.
fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let one = |count: u64, unit: &str| if count == 1 { format!("1 {unit}") } else { format!("{count} {unit}s") };
    match seconds {
        0 => format!("{} ms", duration.as_millis()),
        1..=119 => one(seconds, "second"),
        120..=7199 => one(seconds / 60, "minute"),
        7200..=172_799 => one(seconds / 3600, "hour"),
        _ => one(seconds / 86_400, "day"),
    }
}

#[cfg(test)]
mod tests {
    use berth_proto::berth::runtime::v1::Resources;

    use super::*;
    use crate::container::record::Restart;

    const SECOND: u64 = 1_000_000_000;

    fn ended(code: i32, change: impl FnOnce(&mut Record)) -> Why {
        let mut record = Record { name: "web".into(), ..Record::default() };
        record.end(code, false, Time(100 * SECOND));
        change(&mut record);
        why(&record, false, Time(103 * SECOND))
    }

    #[test]
    fn every_state_has_a_sentence() {
        let mut record = Record { name: "web".into(), ..Record::default() };
        let now = Time(200 * SECOND);
        let sentence = |record: &Record, busy| why(record, busy, now).sentence;
        assert_eq!(sentence(&record, false), "web was made and never started");
        record.state.error = "exec: \"x\": not found".into();
        record.state.exit_code = 127;
        assert_eq!(sentence(&record, false), "web could not be started: exec: \"x\": not found");
        assert!(why(&record, false, now).hint.contains("look for the program"));
        record.state = crate::container::State {
            status: Status::Running,
            pid: 7,
            started: Some(Time(80 * SECOND)),
            ..Default::default()
        };
        assert_eq!(sentence(&record, false), "web runs for 2 minutes as process 7");
        assert!(sentence(&record, true).contains("another command"));
        record.state.status = Status::Paused;
        assert!(why(&record, false, now).hint.contains("unpause web"));
    }

    #[test]
    fn every_end_has_its_reason() {
        assert_eq!(ended(0, |_| ()).sentence, "web ended by itself, with exit code 0 3 seconds ago");
        assert_eq!(ended(3, |_| ()).hint, "`berth logs --tail 20 web` shows what it said last");
        assert!(ended(139, |_| ()).sentence.contains("SIGSEGV (exit code 139) 3 seconds ago: its program read"));
        assert!(ended(137, |_| ()).sentence.contains("SIGKILL (exit code 137) 3 seconds ago: by `kill`"));
        let memory = ended(137, |record| {
            record.state.oom_killed = true;
            record.spec.resources = Some(Resources { memory: 64 << 20, ..Resources::default() });
        });
        assert!(memory.sentence.ends_with("used up its memory 3 seconds ago (its limit is 64 MiB)"), "{memory:?}");
        assert!(memory.hint.contains("update -m"));
        let reboot = ended(255, |record| record.state.error = "the machine went down while it ran".into());
        assert!(reboot.sentence.ends_with(": the machine went down while it ran"));
    }

    #[test]
    fn policies_say_what_they_do() {
        let by_hand = |policy: &str| {
            ended(143, |record| {
                record.spec.restart_policy = policy.into();
                record.restart.stopped_by_hand = true;
            })
        };
        assert!(by_hand("always").sentence.contains("until the node starts anew"));
        assert!(by_hand("unless-stopped").sentence.ends_with("leaves it stopped"));
        let tired = ended(1, |record| record.spec.restart_policy = "on-failure:3".into());
        assert!(tired.sentence.ends_with("has tried 3 times and gives up"));
        let again = ended(1, |record| {
            record.spec.restart_policy = "always".into();
            record.state.status = Status::Restarting;
            record.restart = Restart { count: 5, wait_ms: 4600, stopped_by_hand: false };
        });
        assert_eq!(
            again.sentence,
            "web ended by itself, with exit code 1, and its policy always starts it again in 1 second: it has ended 5 \
             times in a row"
        );
    }
}
