//! `--health-*`: how it is found out whether a container is well. The messages are Docker's.

use berth_proto::berth::runtime::v1::HealthCheck;

use super::{
    instant,
    limits::{number, wrong},
};
use crate::{args::Given, outcome::Error};

const FLAGS: [&str; 6] = [
    "health-cmd",
    "health-interval",
    "health-retries",
    "health-start-interval",
    "health-start-period",
    "health-timeout",
];

/// The check that the flags mean; `None` where the image has the only word.
///
/// # Errors
/// A value that cannot be meant, or a check that is both asked for and not wanted.
pub(crate) fn check(given: &Given) -> Result<Option<HealthCheck>, Error> {
    let any = FLAGS.iter().any(|flag| given.has(flag));
    if given.on("no-healthcheck") {
        if any {
            return Err(Error::Invalid("--no-healthcheck conflicts with --health-* options".into()));
        }
        return Ok(Some(HealthCheck { test: vec!["NONE".into()], ..HealthCheck::default() }));
    }
    if !any {
        return Ok(None);
    }
    let command = given.text("health-cmd").filter(|command| !command.is_empty());
    let retries: i64 = number(given, "health-retries")?.unwrap_or_default();
    Ok(Some(HealthCheck {
        test: command.map(|command| vec!["CMD-SHELL".into(), command.to_owned()]).unwrap_or_default(),
        interval: duration(given, "health-interval")?,
        timeout: duration(given, "health-timeout")?,
        start_period: duration(given, "health-start-period")?,
        start_interval: duration(given, "health-start-interval")?,
        retries: u32::try_from(retries).map_err(|_| Error::Invalid("--health-retries cannot be negative".into()))?,
        shell: Vec::new(),
    }))
}

/// Nanoseconds of a flag, 0 where it was not given.
fn duration(given: &Given, flag: &str) -> Result<i64, Error> {
    let Some(text) = given.text(flag) else { return Ok(0) };
    // Go takes a bare 0, and nothing else, for a duration without a unit.
    let duration = if text == "0" { Some(jiff::SignedDuration::ZERO) } else { instant::duration(text) };
    let duration = duration.ok_or_else(|| wrong(given, flag, &format!("time: invalid duration {text:?}")))?;
    if duration.is_negative() {
        return Err(Error::Invalid(format!("--{flag} cannot be negative")));
    }
    i64::try_from(duration.as_nanos()).map_err(|_| wrong(given, flag, &format!("time: invalid duration {text:?}")))
}
