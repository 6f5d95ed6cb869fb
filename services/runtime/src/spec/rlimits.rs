//! `--ulimit`.

use berth_proto::berth::runtime::v1::Ulimit;
use oci_spec::runtime::{PosixRlimit, PosixRlimitBuilder, PosixRlimitType, PosixRlimitType::*};

use super::Error;

fn named(name: &str) -> Option<PosixRlimitType> {
    Some(match name {
        "core" => RlimitCore,
        "cpu" => RlimitCpu,
        "data" => RlimitData,
        "fsize" => RlimitFsize,
        "locks" => RlimitLocks,
        "memlock" => RlimitMemlock,
        "msgqueue" => RlimitMsgqueue,
        "nice" => RlimitNice,
        "nofile" => RlimitNofile,
        "nproc" => RlimitNproc,
        "rss" => RlimitRss,
        "rtprio" => RlimitRtprio,
        "rttime" => RlimitRttime,
        "sigpending" => RlimitSigpending,
        "stack" => RlimitStack,
        _ => return None,
    })
}

/// The limits of a process. -1 means none.
pub(super) fn of(ulimits: &[Ulimit]) -> Result<Option<Vec<PosixRlimit>>, Error> {
    let limits: Vec<PosixRlimit> = ulimits.iter().map(one).collect::<Result<_, _>>()?;
    Ok(Some(limits).filter(|limits| !limits.is_empty()))
}

fn one(ulimit: &Ulimit) -> Result<PosixRlimit, Error> {
    let Ulimit { name, soft, hard } = ulimit;
    let typ = named(name).ok_or_else(|| Error::invalid(format!("invalid ulimit type: {name}")))?;
    if *soft < -1 || *hard < -1 {
        return Err(Error::invalid(format!("invalid ulimit {name}: {soft}:{hard}")));
    }
    // -1 is the highest number there is.
    let (low, high) = (*soft as u64, *hard as u64);
    if low > high {
        return Err(Error::invalid(format!(
            "ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
        )));
    }
    Ok(PosixRlimitBuilder::default().typ(typ).soft(low).hard(high).build()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_one(name: &str, soft: i64, hard: i64) -> Result<PosixRlimit, String> {
        one(&Ulimit { name: name.into(), soft, hard }).map_err(|error| error.to_string())
    }

    #[test]
    fn limits_are_read() {
        let limit = of_one("nofile", 1024, -1).unwrap();
        assert_eq!((limit.typ(), limit.soft(), limit.hard()), (RlimitNofile, 1024, u64::MAX));
        assert_eq!(of_one("x", 1, 1).unwrap_err(), "invalid ulimit type: x");
        assert!(of_one("core", 2, 1).unwrap_err().ends_with("2 > 1"));
        assert!(of_one("core", -1, 1).is_err() && of_one("core", -2, 1).is_err());
        assert_eq!(of(&[]).unwrap(), None);
    }
}
