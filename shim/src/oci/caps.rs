//! Capabilities (capabilities(7)).

use std::collections::HashSet;

use ::caps::{CapSet, Capability, CapsHashSet};
use oci_spec::runtime::{Capabilities, LinuxCapabilities};

use super::{
    channel::Child,
    error::{Error, Step as _},
};

fn set(wanted: Option<&Capabilities>) -> CapsHashSet {
    let mut set = HashSet::new();
    for capability in wanted.into_iter().flatten() {
        let name = format!("CAP_{}", capability.to_string().trim_start_matches("CAP_"));
        // A capability that this kernel or this build does not know cannot be had by anybody.
        if let Ok(capability) = name.parse::<Capability>() {
            set.insert(capability);
        }
    }
    set
}

/// Takes everything out of the bounding set that the process must never get.
pub(crate) fn bound(capabilities: &LinuxCapabilities) -> Result<(), Error> {
    let keep = set(capabilities.bounding().as_ref());
    for capability in ::caps::runtime::thread_all_supported() {
        if !keep.contains(&capability) && ::caps::has_cap(None, CapSet::Bounding, capability).unwrap_or(false) {
            ::caps::drop(None, CapSet::Bounding, capability).step(|| format!("dropping {capability}"))?;
        }
    }
    Ok(())
}

/// Gives the process its sets, once it has its user. What the shim itself does not have is left out: nobody can give it.
pub(crate) fn apply(capabilities: &LinuxCapabilities, channel: &Child) -> Result<(), Error> {
    let own = ::caps::read(None, CapSet::Permitted).step(|| "reading the own capabilities")?;
    let within = |wanted: CapsHashSet| wanted.intersection(&own).copied().collect::<CapsHashSet>();
    let wanted = set(capabilities.permitted().as_ref());
    let permitted = within(wanted.clone());
    let mut missing: Vec<String> = wanted.difference(&permitted).map(ToString::to_string).collect();
    if !missing.is_empty() {
        missing.sort();
        channel.warn(&format!("not to be had on this machine: {}", missing.join(", ")));
    }
    let effective: CapsHashSet = set(capabilities.effective().as_ref()).intersection(&permitted).copied().collect();
    let inheritable = within(set(capabilities.inheritable().as_ref()));
    let step = |which: &'static str| move || format!("setting the {which} capabilities");
    // Inheritable may grow only while the permitted set is still whole.
    ::caps::set(None, CapSet::Inheritable, &inheritable).step(step("inheritable"))?;
    ::caps::set(None, CapSet::Effective, &effective).step(step("effective"))?;
    ::caps::set(None, CapSet::Permitted, &permitted).step(step("permitted"))?;
    let ambient: CapsHashSet = set(capabilities.ambient().as_ref())
        .into_iter()
        .filter(|c| permitted.contains(c) && inheritable.contains(c))
        .collect();
    ::caps::clear(None, CapSet::Ambient).step(step("ambient"))?;
    for capability in ambient {
        ::caps::raise(None, CapSet::Ambient, capability).step(step("ambient"))?;
    }
    Ok(())
}
