//! `container prune`, and what all prunes have in common: the question before, and the report after.

use std::io::{self, BufRead as _, Write as _};

use berth_proto::berth::runtime::v1::PruneRequest;

use super::each::print;
use crate::{
    args::{
        Entry, Given,
        flag::{list, switch},
    },
    client::Client,
    format::units,
    outcome::Error,
    spec,
};

pub(crate) const CONTAINERS: Entry = Entry {
    paths: &["container prune"],
    about: "Remove all containers that do not run",
    usage: "[OPTIONS]",
    flags: || {
        vec![
            list("filter", "filter", "Only those for which this holds (until=24h, label=tier, label!=keep)"),
            switch("force", "Do not ask").short('f'),
        ]
    },
    run: |client, given| Box::pin(containers(client, given)),
    ..Entry::PLAIN
};

async fn containers(client: Client, given: Given) -> Result<u8, Error> {
    if !given.on("force") && !confirmed("WARNING! This will remove all stopped containers.")? {
        return Err(Error::Invalid("container prune has been cancelled".into()));
    }
    let request = PruneRequest { filters: filters(&given)? };
    let pruned = client.containers().await?.prune(request).await?.into_inner();
    report("Deleted Containers:", &pruned.containers, pruned.reclaimed)?;
    Ok(0)
}

/// The filters, with the moments in them told as the service wants them.
fn filters(given: &Given) -> Result<Vec<String>, Error> {
    let moment = |filter: &str| match filter.strip_prefix("until=") {
        Some(text) => spec::instant(text).map(|moment| format!("until={moment}")),
        None => Ok(filter.to_owned()),
    };
    Ok(given.all("filter").into_iter().map(moment).collect::<Result<_, _>>()?)
}

/// Asks whether to go on. Only a plain yes is one; where nobody is there to answer, nothing goes.
///
/// # Errors
/// The terminal is gone.
pub(super) fn confirmed(warning: &str) -> Result<bool, Error> {
    print(&format!("{warning}\nAre you sure you want to continue? [y/N] "))?;
    let _ = io::stdout().flush();
    let mut answer = String::new();
    let failed = |source| Error::Io { what: "cannot read the answer".into(), source };
    io::stdin().lock().read_line(&mut answer).map_err(failed)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes" | "YES" | "Yes"))
}

/// What went, and what that freed.
///
/// # Errors
/// Standard output is gone.
pub(super) fn report(heading: &str, gone: &[String], bytes: u64) -> Result<(), Error> {
    let list = if gone.is_empty() { String::new() } else { format!("{heading}\n{}\n\n", gone.join("\n")) };
    print(&format!("{list}Total reclaimed space: {}\n", units::size(bytes)))
}
