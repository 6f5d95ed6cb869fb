//! Docker's flags that cannot be passed on: each is refused with its reason, never ignored.

use crate::{args::Given, outcome::Error};

const WINDOWS: &str = "it exists on Windows only; leave it out";
const HEALTH: &str = "this version does not run health checks; leave it out and check from outside";
const ADDRESS: &str = "addresses are chosen by the node in this version; leave it out";
const DEVICE_RATES: &str = "rates per device are not limited in this version; leave it out";

/// Flags that are always refused.
const REFUSED: &[(&str, &str)] = &[
    ("annotation", "annotations are not passed to the runtime in this version; use --label"),
    ("blkio-weight-device", DEVICE_RATES),
    ("cpu-count", WINDOWS),
    ("cpu-percent", WINDOWS),
    ("cpu-rt-period", "real-time scheduling is not set up in this version; leave it out"),
    ("cpu-rt-runtime", "real-time scheduling is not set up in this version; leave it out"),
    ("device-cgroup-rule", "name the devices with --device instead"),
    ("device-read-bps", DEVICE_RATES),
    ("device-read-iops", DEVICE_RATES),
    ("device-write-bps", DEVICE_RATES),
    ("device-write-iops", DEVICE_RATES),
    ("gpus", "name the devices with --device instead"),
    ("health-cmd", HEALTH),
    ("health-interval", HEALTH),
    ("health-retries", HEALTH),
    ("health-start-interval", HEALTH),
    ("health-start-period", HEALTH),
    ("health-timeout", HEALTH),
    ("io-maxbandwidth", WINDOWS),
    ("io-maxiops", WINDOWS),
    ("ip", ADDRESS),
    ("ip6", ADDRESS),
    ("kernel-memory", "the kernel no longer limits it; use --memory"),
    ("link", "use --network container:NAME, or the other container's address"),
    ("link-local-ip", ADDRESS),
    ("mac-address", ADDRESS),
    ("network-alias", "names on networks are not resolved in this version; use --add-host"),
    ("storage-opt", "the size of one container's disk is not limited in this version; leave it out"),
    ("use-api-socket", "mount the node's socket with -v instead"),
];

/// Flags that are accepted with the values that change nothing.
const HARMLESS: &[(&str, &[&str], &str)] = &[
    ("isolation", &["", "default"], WINDOWS),
    ("userns", &["", "host"], "user namespaces are not set up in this version; leave it out"),
    ("volume-driver", &["", "local"], "this version has the driver local only"),
];

/// Whether a flag is always refused.
pub(crate) fn is_refused(flag: &str) -> bool {
    REFUSED.iter().any(|(name, _)| *name == flag)
}

/// Refuses what cannot be passed on.
///
/// # Errors
/// A flag that has no effect here.
pub(crate) fn refuse(given: &Given) -> Result<(), Error> {
    let error = |flag: &str, why: &str| Err(Error::Unsupported { flag: flag.into(), why: why.into() });
    for (flag, why) in REFUSED {
        if given.has(flag) {
            return error(flag, why);
        }
    }
    for (flag, harmless, why) in HARMLESS {
        if given.text(flag).is_some_and(|value| !harmless.contains(&value)) {
            return error(flag, why);
        }
    }
    if given.has("expose") && !given.on("publish-all") {
        return error("expose", "a container's ports can be reached by its address anyway; publish them with -p or -P");
    }
    Ok(())
}
