//! What is said of single devices: their rates and weights (`/dev/sda:1mb`), and rules of the device cgroup
//! (`c 1:3 rwm`). The messages are Docker's.

use berth_proto::berth::runtime::v1::{DeviceRate, DeviceWeight};

use super::size;
use crate::{args::Given, outcome::Error};

/// Each value of a flag.
///
/// # Errors
/// One cannot be meant.
pub(crate) fn all<T>(given: &Given, flag: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, Error> {
    let named = |text: &str| {
        read(text).map_err(|why| Error::Invalid(format!("invalid argument \"{text}\" for \"--{flag}\" flag: {why}")))
    };
    given.all(flag).into_iter().map(named).collect()
}

fn device(text: &str) -> Result<(&str, &str), String> {
    match text.split_once(':') {
        Some((path, value)) if !value.is_empty() && path.starts_with("/dev/") => Ok((path, value)),
        Some((_, value)) if !value.is_empty() => Err(format!("bad format for device path: {text}")),
        _ => Err(format!("bad format: {text}")),
    }
}

/// `/dev/sda:200`
///
/// # Errors
/// It is no weight of a device.
pub(crate) fn weight(text: &str) -> Result<DeviceWeight, String> {
    let (path, value) = device(text)?;
    // 0 takes a weight back.
    let weight = value.parse().ok().filter(|weight| *weight == 0 || (10..=1000).contains(weight));
    let weight = weight.ok_or_else(|| format!("invalid weight for device: {text}"))?;
    Ok(DeviceWeight { path: path.into(), weight })
}

/// `/dev/sda:1mb`
///
/// # Errors
/// It is no rate of a device.
pub(crate) fn bytes(text: &str) -> Result<DeviceRate, String> {
    let (path, value) = device(text)?;
    let rate = size::bytes(value).map_err(|_| {
        format!(
            "invalid rate for device: {text}. The correct format is <device-path>:<number>[<unit>]. Number must be a \
             positive integer. Unit is optional and can be kb, mb, or gb"
        )
    })?;
    Ok(DeviceRate { path: path.into(), rate: rate.unsigned_abs() })
}

/// `/dev/sda:100`
///
/// # Errors
/// It is no rate of a device.
pub(crate) fn operations(text: &str) -> Result<DeviceRate, String> {
    let (path, value) = device(text)?;
    let rate = value.parse().map_err(|_| {
        format!(
            "invalid rate for device: {text}. The correct format is <device-path>:<number>. Number must be a positive \
             integer"
        )
    })?;
    Ok(DeviceRate { path: path.into(), rate })
}

/// A rule of the device cgroup, as the kernel's v1 lists write it.
///
/// # Errors
/// It is none.
pub(crate) fn rule(text: &str) -> Result<String, String> {
    let number = |text: &str| text == "*" || (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()));
    let parts: Vec<_> = text.split(' ').collect();
    let fine = match parts[..] {
        ["a" | "b" | "c", numbers, access] => {
            numbers.split_once(':').is_some_and(|(major, minor)| number(major) && number(minor))
                && (1..=3).contains(&access.len())
                && access.bytes().all(|b| b"rwm".contains(&b))
        }
        _ => false,
    };
    if fine { Ok(text.to_owned()) } else { Err(format!("invalid device cgroup format '{text}'")) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn devices_with_rates_and_weights() {
        assert_eq!(weight("/dev/sda:200").unwrap(), DeviceWeight { path: "/dev/sda".into(), weight: 200 });
        assert_eq!(bytes("/dev/sda:1mb").unwrap().rate, 1 << 20);
        assert_eq!(operations("/dev/sda:7").unwrap().rate, 7);
        for (text, why) in [
            ("/dev/sda", "bad format: /dev/sda"),
            ("sda:1", "bad format for device path: sda:1"),
            ("/dev/sda:5", "invalid weight for device: /dev/sda:5"),
        ] {
            assert_eq!(weight(text).unwrap_err(), why);
        }
        assert!(bytes("/dev/sda:-1").unwrap_err().contains("positive integer. Unit is optional"));
        assert!(operations("/dev/sda:1mb").unwrap_err().ends_with("must be a positive integer"));
    }

    #[test]
    fn rules_of_the_device_cgroup() {
        assert!(rule("c 1:3 rwm").is_ok() && rule("a *:* m").is_ok());
        for text in ["", "c 1:3", "d 1:3 r", "c 1 r", "c 1:x r", "c 1:3 x", "c 1:3 rwmr", "c  1:3 r"] {
            assert_eq!(rule(text).unwrap_err(), format!("invalid device cgroup format '{text}'"));
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,24}") {
            let _ = (weight(&text), bytes(&text), operations(&text), rule(&text));
        }
    }
}
