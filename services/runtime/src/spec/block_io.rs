//! Block I/O: its weight, and weights and rates of single devices. What this kernel has not is left out with a warning, in
//! Docker's words.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::Path,
};

use berth_proto::berth::runtime::v1::{DeviceRate, Resources};
use oci_spec::runtime::{LinuxBlockIo, LinuxThrottleDevice, LinuxThrottleDeviceBuilder, LinuxWeightDeviceBuilder};

use super::{Error, host::Host};

/// Refuses what cannot be meant; answers with warnings about what is discarded.
pub(super) fn check(asked: &Resources, host: &Host) -> Result<Vec<String>, Error> {
    let wrong = |weight: u32| weight > 0 && !(10..=1000).contains(&weight);
    if wrong(asked.blkio_weight) {
        return Err(Error::invalid("Range of blkio weight is from 10 to 1000"));
    }
    if let Some(device) = asked.blkio_weight_devices.iter().find(|device| wrong(device.weight)) {
        return Err(Error::invalid(format!("Range of blkio weight is from 10 to 1000: {}", device.path)));
    }
    let paths = [&asked.device_read_bps, &asked.device_write_bps, &asked.device_read_iops, &asked.device_write_iops];
    let paths = paths.into_iter().flatten().map(|device| &device.path);
    let mut paths = paths.chain(asked.blkio_weight_devices.iter().map(|device| &device.path));
    if let Some(path) = paths.find(|path| !path.starts_with('/')) {
        return Err(Error::invalid(format!("invalid device path: {path}: it must be absolute")));
    }
    let discarded = [
        (
            asked.blkio_weight > 0 && !host.io_weight,
            "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.",
        ),
        (
            !asked.blkio_weight_devices.is_empty() && !host.io_weight,
            "Your kernel does not support Block I/O weight_device or the cgroup is not mounted. Weight-device discarded.",
        ),
        (
            !asked.device_read_bps.is_empty() && !host.io_rates,
            "Your kernel does not support BPS Block I/O read limit or the cgroup is not mounted. Block I/O BPS read \
             limit discarded.",
        ),
        (
            !asked.device_write_bps.is_empty() && !host.io_rates,
            "Your kernel does not support BPS Block I/O write limit or the cgroup is not mounted. Block I/O BPS write \
             limit discarded.",
        ),
        (
            !asked.device_read_iops.is_empty() && !host.io_rates,
            "Your kernel does not support IOPS Block read limit or the cgroup is not mounted. Block I/O IOPS read \
             limit discarded.",
        ),
        (
            !asked.device_write_iops.is_empty() && !host.io_rates,
            "Your kernel does not support IOPS Block write limit or the cgroup is not mounted. Block I/O IOPS write \
             limit discarded.",
        ),
    ];
    Ok(discarded.into_iter().filter(|(discarded, _)| *discarded).map(|(_, why)| why.to_owned()).collect())
}

/// What the cgroup is told, without what [`check`] says is discarded.
///
/// # Errors
/// A device is not there.
pub(super) fn of(asked: &Resources, host: &Host) -> Result<Option<LinuxBlockIo>, Error> {
    let mut block = LinuxBlockIo::default();
    if host.io_weight {
        block.set_weight(u16::try_from(asked.blkio_weight).ok().filter(|weight| *weight > 0));
        let mut weights = Vec::new();
        for device in &asked.blkio_weight_devices {
            let (major, minor) = number(&device.path)?;
            let weight = device.weight.min(1000) as u16;
            let one = LinuxWeightDeviceBuilder::default().major(major).minor(minor).weight(weight).build();
            weights.push(one.map_err(|error| Error::invalid(error.to_string()))?);
        }
        block.set_weight_device(Some(weights).filter(|weights| !weights.is_empty()));
    }
    if host.io_rates {
        block
            .set_throttle_read_bps_device(rates(&asked.device_read_bps)?)
            .set_throttle_write_bps_device(rates(&asked.device_write_bps)?)
            .set_throttle_read_iops_device(rates(&asked.device_read_iops)?)
            .set_throttle_write_iops_device(rates(&asked.device_write_iops)?);
    }
    Ok(Some(block).filter(|block| *block != LinuxBlockIo::default()))
}

fn rates(devices: &[DeviceRate]) -> Result<Option<Vec<LinuxThrottleDevice>>, Error> {
    let mut rates = Vec::new();
    for device in devices {
        let (major, minor) = number(&device.path)?;
        let one = LinuxThrottleDeviceBuilder::default().major(major).minor(minor).rate(device.rate).build();
        rates.push(one.map_err(|error| Error::invalid(error.to_string()))?);
    }
    Ok(Some(rates).filter(|rates| !rates.is_empty()))
}

/// Major and minor number of a block device.
fn number(path: &str) -> Result<(i64, i64), Error> {
    let failed = |source| Error::Device { path: Path::new(path).into(), source };
    let metadata = fs::metadata(path).map_err(failed)?;
    if !metadata.file_type().is_block_device() {
        return Err(failed(io::Error::other("not a block device")));
    }
    Ok((i64::from(libc::major(metadata.rdev())), i64::from(libc::minor(metadata.rdev()))))
}

#[cfg(test)]
mod tests {
    use berth_proto::berth::runtime::v1::DeviceWeight;

    use super::*;

    fn all(path: &str) -> Resources {
        let rate = || vec![DeviceRate { path: path.into(), rate: 1 << 20 }];
        Resources {
            blkio_weight: 500,
            blkio_weight_devices: vec![DeviceWeight { path: path.into(), weight: 200 }],
            device_read_bps: rate(),
            device_write_bps: rate(),
            device_read_iops: rate(),
            device_write_iops: rate(),
            ..Resources::default()
        }
    }

    #[test]
    fn what_the_kernel_has_not_is_discarded_and_told() {
        let mut host = Host::whole(false);
        assert_eq!(check(&all("/dev/x"), &host).unwrap(), Vec::<String>::new());
        (host.io_weight, host.io_rates) = (false, false);
        let warnings = check(&all("/dev/x"), &host).unwrap();
        assert_eq!(warnings.len(), 6);
        assert!(warnings.iter().all(|warning| warning.ends_with("discarded.")), "{warnings:?}");
        assert_eq!(of(&all("/dev/x"), &host).unwrap(), None);
    }

    #[test]
    fn a_device_has_to_be_a_block_device() {
        let host = Host::whole(false);
        assert!(of(&all("/dev/not-there"), &host).unwrap_err().to_string().contains("No such file"));
        assert!(of(&all("/dev/null"), &host).unwrap_err().to_string().contains("not a block device"));
        assert!(check(&all("sda"), &host).unwrap_err().to_string().contains("must be absolute"));
        let heavy = Resources { blkio_weight: 9, ..Resources::default() };
        assert!(check(&heavy, &host).unwrap_err().to_string().contains("from 10 to 1000"));
    }
}
