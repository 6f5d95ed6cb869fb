//! Limits and devices: `--memory` and its kin, `--cpus`, `--ulimit`, `--device`.

use berth_proto::berth::runtime::v1::{Device, Resources, Ulimit};

use super::{rates, size};
use crate::{args::Given, outcome::Error};

/// Everything that limits a container.
///
/// # Errors
/// A value that is no number or size, or one that Docker refuses.
pub(crate) fn resources(given: &Given) -> Result<Resources, Error> {
    let swap = match given.text("memory-swap") {
        Some("-1") => -1,
        _ => bytes(given, "memory-swap")?,
    };
    let swappiness = number::<i64>(given, "memory-swappiness")?.filter(|n| *n != -1);
    if swappiness.is_some_and(|n| !(0..=100).contains(&n)) {
        return Err(Error::Invalid(
            "invalid value for --memory-swappiness: valid memory swappiness range is 0-100".into(),
        ));
    }
    let blkio_weight = number::<u32>(given, "blkio-weight")?.unwrap_or_default();
    if blkio_weight != 0 && !(10..=1000).contains(&blkio_weight) {
        return Err(Error::Invalid("range of blkio weight is from 10 to 1000".into()));
    }
    let resources = Resources {
        memory: bytes(given, "memory")?,
        memory_reservation: bytes(given, "memory-reservation")?,
        memory_swap: swap,
        oom_kill_disable: given.on("oom-kill-disable"),
        nano_cpus: given
            .text("cpus")
            .map(cpus)
            .transpose()
            .map_err(|why| wrong(given, "cpus", &why))?
            .unwrap_or_default(),
        cpu_shares: number(given, "cpu-shares")?.unwrap_or_default(),
        cpu_period: number(given, "cpu-period")?.unwrap_or_default(),
        cpu_quota: number(given, "cpu-quota")?.unwrap_or_default(),
        cpuset_cpus: given.text_or_empty("cpuset-cpus"),
        cpuset_mems: given.text_or_empty("cpuset-mems"),
        pids_limit: number(given, "pids-limit")?.unwrap_or_default(),
        blkio_weight,
        memory_swappiness: swappiness,
        cpu_rt_period: number(given, "cpu-rt-period")?.unwrap_or_default(),
        cpu_rt_runtime: number(given, "cpu-rt-runtime")?.unwrap_or_default(),
        blkio_weight_devices: rates::all(given, "blkio-weight-device", rates::weight)?,
        device_read_bps: rates::all(given, "device-read-bps", rates::bytes)?,
        device_write_bps: rates::all(given, "device-write-bps", rates::bytes)?,
        device_read_iops: rates::all(given, "device-read-iops", rates::operations)?,
        device_write_iops: rates::all(given, "device-write-iops", rates::operations)?,
    };
    if resources.nano_cpus > 0 && (resources.cpu_period > 0 || resources.cpu_quota > 0) {
        return Err(Error::Invalid("conflicting options: --cpus excludes --cpu-period and --cpu-quota".into()));
    }
    Ok(resources)
}

/// A flag's value that cannot be meant.
pub(crate) fn wrong(given: &Given, flag: &str, why: &str) -> Error {
    Error::Invalid(format!("invalid argument {:?} for \"--{flag}\" flag: {why}", given.text_or_empty(flag)))
}

/// A flag's value in bytes, 0 where it was not given.
///
/// # Errors
/// It is no size.
pub(crate) fn bytes(given: &Given, flag: &str) -> Result<i64, Error> {
    match given.text(flag).filter(|text| !text.is_empty()) {
        None => Ok(0),
        Some(text) => size::bytes(text).map_err(|why| wrong(given, flag, &why)),
    }
}

/// A flag's value as a number.
///
/// # Errors
/// It is none.
pub(crate) fn number<T: std::str::FromStr>(given: &Given, flag: &str) -> Result<Option<T>, Error> {
    let Some(text) = given.text(flag) else { return Ok(None) };
    text.parse().map(Some).map_err(|_| wrong(given, flag, "not a number that fits"))
}

/// Billionths of a CPU in a decimal number of CPUs.
fn cpus(text: &str) -> Result<i64, String> {
    let wrong = || format!("failed to parse {text} as a number of CPUs");
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 9 {
        return Err("value is too precise".into());
    }
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || (whole.is_empty() && fraction.is_empty()) {
        return Err(wrong());
    }
    let whole: i64 = format!("0{whole}").parse().map_err(|_| wrong())?;
    let fraction: i64 = format!("{fraction:0<9}").parse().map_err(|_| wrong())?;
    whole.checked_mul(1_000_000_000).and_then(|n| n.checked_add(fraction)).ok_or_else(wrong)
}

/// What one `--ulimit` means: `name=soft[:hard]`.
///
/// # Errors
/// It is none.
pub(crate) fn ulimit(text: &str) -> Result<Ulimit, String> {
    let wrong = |why: &str| format!("invalid ulimit argument: {text}: {why}");
    let (name, limits) = text.split_once('=').ok_or_else(|| wrong("write it as name=soft[:hard]"))?;
    const NAMES: [&str; 15] = [
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ];
    if !NAMES.contains(&name) {
        return Err(wrong("there is no such limit"));
    }
    let limit = |text: &str| match text {
        "unlimited" => Ok(-1),
        text => {
            text.parse::<i64>().ok().filter(|n| *n >= -1).ok_or_else(|| wrong("a limit is a number, or -1 for none"))
        }
    };
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let (soft, hard) = (limit(soft)?, limit(hard)?);
    if hard != -1 && (soft > hard || soft == -1) {
        return Err(format!("ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"));
    }
    Ok(Ulimit { name: name.to_owned(), soft, hard })
}

/// What one `--device` means: `host[:container][:permissions]`.
///
/// # Errors
/// It is none.
pub(crate) fn device(text: &str) -> Result<Device, String> {
    let permission = |text: &str| !text.is_empty() && text.bytes().all(|b| b"rwm".contains(&b));
    let parts: Vec<_> = text.split(':').collect();
    let (host, container, permissions) = match parts[..] {
        [host] => (host, host, "rwm"),
        [host, permissions] if permission(permissions) => (host, host, permissions),
        [host, container] => (host, container, "rwm"),
        [host, container, permissions] if permission(permissions) => (host, container, permissions),
        _ => return Err(format!("invalid device specification: {text}")),
    };
    if !host.starts_with('/') || !container.starts_with('/') {
        return Err(format!("{text} is not an absolute path to a device"));
    }
    Ok(Device { host_path: host.into(), container_path: container.into(), permissions: permissions.into() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_of_cpus() {
        assert_eq!(cpus("0.5"), Ok(500_000_000));
        assert_eq!(cpus("2"), Ok(2_000_000_000));
        assert_eq!(cpus(".25"), Ok(250_000_000));
        for text in ["", ".", "-1", "1e3", "0.1234567891", "99999999999999"] {
            assert!(cpus(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ulimits_and_devices() {
        assert_eq!(ulimit("nofile=1024:2048").unwrap(), Ulimit { name: "nofile".into(), soft: 1024, hard: 2048 });
        assert_eq!(ulimit("core=unlimited").unwrap().hard, -1);
        for text in ["nofile", "what=1", "nofile=2:1", "nofile=x", "core=-1:5"] {
            assert!(ulimit(text).is_err(), "{text}");
        }
        assert_eq!(device("/dev/null:r").unwrap().permissions, "r");
        assert_eq!(device("/dev/null:/dev/x:rw").unwrap().container_path, "/dev/x");
        assert!(device("dev/null").is_err() && device("/a:/b:x").is_err());
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,24}") {
            let _ = (cpus(&text), ulimit(&text), device(&text));
        }
    }
}
