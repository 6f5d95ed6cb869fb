//! Health checks as they are asked for, by a person and by the image.

use berth_proto::berth::runtime::v1::{ContainerSpec, HealthCheck};
use serde::Deserialize;

use super::Error;

/// Nanoseconds; less is taken for a mistake.
const SHORTEST: i64 = 1_000_000;

/// What is beside the OCI configuration in a Docker image's.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Image {
    config: Config,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Config {
    healthcheck: Option<Check>,
    shell: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Check {
    test: Option<Vec<String>>,
    interval: i64,
    timeout: i64,
    start_period: i64,
    start_interval: i64,
    retries: u32,
}

/// Refuses what cannot be meant.
pub(super) fn check(spec: &ContainerSpec) -> Result<(), Error> {
    let Some(check) = &spec.health_check else { return Ok(()) };
    for (name, nanoseconds) in [
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
        ("StartInterval", check.start_interval),
    ] {
        if nanoseconds != 0 && nanoseconds < SHORTEST {
            return Err(Error::invalid(format!("{name} in Healthcheck cannot be less than 1ms")));
        }
    }
    if check.test.iter().any(|word| word.contains('\0')) {
        return Err(Error::invalid("a health check cannot hold a zero byte"));
    }
    match check.test.first().map(String::as_str) {
        None | Some("NONE" | "CMD" | "CMD-SHELL") => Ok(()),
        Some(kind) => {
            Err(Error::invalid(format!("Unknown healthcheck type '{kind}' (expected 'CMD', 'CMD-SHELL' or 'NONE')")))
        }
    }
}

/// Completes what a person asks for with what the image says; `image` is its configuration, whole.
pub(crate) fn complete(spec: &mut ContainerSpec, image: &[u8]) {
    let config = serde_json::from_slice::<Image>(image).unwrap_or_default().config;
    let theirs = config.healthcheck.filter(|check| check.test.as_ref().is_some_and(|test| !test.is_empty()));
    let ours = spec.health_check.take();
    if ours.is_none() && theirs.is_none() {
        return;
    }
    let (mut check, theirs) = (ours.unwrap_or_default(), theirs.unwrap_or_default());
    let number = |ours: &mut i64, theirs: i64| *ours = if *ours == 0 { theirs.max(0) } else { *ours };
    if check.test.is_empty() {
        check.test = theirs.test.unwrap_or_default();
    }
    number(&mut check.interval, theirs.interval);
    number(&mut check.timeout, theirs.timeout);
    number(&mut check.start_period, theirs.start_period);
    number(&mut check.start_interval, theirs.start_interval);
    if check.retries == 0 {
        check.retries = theirs.retries;
    }
    check.shell = config.shell.unwrap_or_default();
    spec.health_check = Some(check).filter(|check| *check != HealthCheck::default());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(ours: Option<HealthCheck>, image: &str) -> Option<HealthCheck> {
        let mut spec = ContainerSpec { health_check: ours, ..ContainerSpec::default() };
        complete(&mut spec, image.as_bytes());
        spec.health_check
    }

    #[test]
    fn a_persons_word_goes_before_the_images() {
        let image = r#"{"config":{"Healthcheck":{"Test":["CMD","x"],"Interval":5000000000,"Retries":7},"Shell":["/bin/ash","-c"]}}"#;
        let check = merged(None, image).unwrap();
        assert_eq!((&*check.test, check.interval, check.retries), (&["CMD".into(), "x".into()][..], 5_000_000_000, 7));
        let ours = HealthCheck { test: vec!["CMD-SHELL".into(), "y".into()], retries: 2, ..HealthCheck::default() };
        let check = merged(Some(ours), image).unwrap();
        assert_eq!(
            (&*check.test[1], check.interval, check.retries, &*check.shell[0]),
            ("y", 5_000_000_000, 2, "/bin/ash")
        );
        let none = HealthCheck { test: vec!["NONE".into()], ..HealthCheck::default() };
        assert_eq!(merged(Some(none), image).unwrap().test, ["NONE"]);
        for image in ["", "{}", r#"{"config":{"Healthcheck":null}}"#, r#"{"config":{"Healthcheck":{"Test":7}}}"#] {
            assert_eq!(merged(None, image), None, "{image}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let refused = |check: HealthCheck| {
            let spec = ContainerSpec { health_check: Some(check), ..ContainerSpec::default() };
            super::check(&spec).unwrap_err().to_string()
        };
        let none = HealthCheck::default;
        assert_eq!(refused(HealthCheck { interval: 5, ..none() }), "Interval in Healthcheck cannot be less than 1ms");
        assert_eq!(refused(HealthCheck { timeout: -1, ..none() }), "Timeout in Healthcheck cannot be less than 1ms");
        assert!(refused(HealthCheck { test: vec!["SHELL".into()], ..none() }).contains("Unknown healthcheck type"));
    }
}
