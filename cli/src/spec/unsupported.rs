//! Docker's flags that cannot be passed on: each is refused with its reason, never ignored.

use std::io::{self, Write as _};

use crate::{args::Given, outcome::Error};

const WINDOWS: &str = "it exists on Windows only; leave it out";

/// Flags that are always refused.
const REFUSED: &[(&str, &str)] = &[
    ("cpu-count", WINDOWS),
    ("cpu-percent", WINDOWS),
    ("gpus", "this version does not read CDI files, which say what belongs to a GPU; name its devices with --device"),
    ("io-maxbandwidth", WINDOWS),
    ("io-maxiops", WINDOWS),
    ("link", "put both on a network of your own (berth network create), where they know each other by name"),
    ("link-local-ip", "link-local addresses are the kernel's to choose; leave it out"),
    (
        "use-api-socket",
        "it would hand the container the node and your registry passwords; mount the node's socket with -v",
    ),
];

/// Flags that are accepted with the values that change nothing.
const HARMLESS: &[(&str, &[&str], &str)] = &[
    ("isolation", &["", "default"], WINDOWS),
    ("volume-driver", &["", "local"], "this version has the driver local only"),
];

/// Flags that are taken and do nothing any more.
const DEPRECATED: &[(&str, &str)] = &[("kernel-memory", "the kernel no longer limits it; --memory does")];

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
    for (flag, why) in DEPRECATED.iter().filter(|(flag, _)| given.has(flag)) {
        let _ = writeln!(io::stderr(), "Flag --{flag} has been deprecated, and has no effect: {why}");
    }
    Ok(())
}
