//! The processes of a container, as the node's own `ps` shows them.

use std::{collections::HashSet, process::Stdio, time::Duration};

use tokio::process::Command;

use crate::{
    container::{containers::Containers, live::Container, record::Status},
    error::{Error, Result},
};

/// `ps` reads `/proc`, which takes milliseconds.
const DEADLINE: Duration = Duration::from_secs(10);

/// A table: what its columns are called, and its rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) titles: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
}

impl Containers {
    /// Runs `ps` with these arguments, `-ef` where there are none, and leaves out what is not the container's.
    pub(crate) async fn top(&self, container: &Container, arguments: &[String]) -> Result<Table> {
        let live = container.now();
        let task = match live.record.state.status {
            Status::Running | Status::Paused => live.task,
            Status::Restarting => {
                return Err(Error::State(format!("Container {} is restarting, wait until it runs", container.id)));
            }
            _ => None,
        };
        let task = task.ok_or_else(|| Error::State(format!("container {} is not running", container.id)))?;
        let default = ["-ef".to_owned()];
        let arguments = if arguments.is_empty() { &default[..] } else { arguments };
        let (listed, pids) = tokio::join!(ps(arguments), task.pids());
        table(&listed?, &pids?.into_iter().collect())
    }
}

async fn ps(arguments: &[String]) -> Result<String> {
    let running = Command::new("ps").args(arguments).stdin(Stdio::null()).kill_on_drop(true).output();
    let output = match tokio::time::timeout(DEADLINE, running).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::Invalid("this node has no `ps`: install it (the package procps)".into()));
        }
        Ok(Err(error)) => return Err(Error::io("cannot run", "ps")(error)),
        Err(_) => return Err(Error::Late { what: "ps", seconds: DEADLINE.as_secs() }),
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Error::Invalid(format!("ps: {}", said.trim().lines().next().unwrap_or("it failed"))));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The rows of some processes. The last column has spaces; that of the pid can stand anywhere, but must be there.
fn table(listed: &str, pids: &HashSet<u32>) -> Result<Table> {
    let mut lines = listed.lines();
    let titles: Vec<String> = lines.next().unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    let column = titles
        .iter()
        .position(|title| title == "PID")
        .ok_or_else(|| Error::Invalid("Couldn't find PID field in ps output".into()))?;
    let mut rows = Vec::new();
    // Threads have lines of their own ("-"), which follow that of their process.
    let mut ours = false;
    for line in lines {
        let fields = split(line, titles.len());
        let Some(pid) = fields.get(column) else { continue };
        ours = if pid == "-" { ours } else { pid.parse().is_ok_and(|pid| pids.contains(&pid)) };
        if ours {
            rows.push(fields);
        }
    }
    Ok(Table { titles, rows })
}

fn split(line: &str, columns: usize) -> Vec<String> {
    let mut fields = Vec::with_capacity(columns);
    let mut rest = line.trim();
    while fields.len() + 1 < columns
        && let Some((field, after)) = rest.split_once(char::is_whitespace)
    {
        fields.push(field.to_owned());
        rest = after.trim_start();
    }
    fields.push(rest.to_owned());
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_the_container_alone() {
        let listed = "UID  PID PPID C STIME TTY TIME CMD\nroot  1 0 0 10:00 ?  00:00:01 init\n\
                      root 42 1 0 10:00 ? 00:00:00 sh -c  sleep 1\n user 43 42 0 10:00 ? 00:00:00 sleep 1\n";
        let table = table(listed, &HashSet::from([42, 43])).unwrap();
        assert_eq!(table.titles[7], "CMD");
        assert_eq!(table.rows.len(), 2);
        assert_eq!((table.rows[0][1].as_str(), table.rows[0][7].as_str()), ("42", "sh -c  sleep 1"));
        assert_eq!(table.rows[1][0], "user");
    }

    #[test]
    fn threads_follow_their_process_and_a_list_without_pids_is_refused() {
        let listed = "PID LWP CMD\n1 - a\n- 1 -\n2 - b\n- 2 -\n- 3 -\n";
        let rows = table(listed, &HashSet::from([2])).unwrap().rows;
        assert_eq!(rows.iter().map(|row| row[1].as_str()).collect::<Vec<_>>(), ["-", "2", "3"]);
        assert!(table("CMD\nx\n", &HashSet::new()).unwrap_err().to_string().contains("PID"));
    }
}
