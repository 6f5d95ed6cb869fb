//! Root and state directory against each other: what must outlive a reboot cannot lie in what is cleared by one, and a
//! service's directory is that service's alone.

use berth_core::config::{Node, SERVICES};

/// Why the root cannot be used with this state directory.
pub(crate) fn conflict(node: &Node) -> Option<String> {
    let Node { root, state, .. } = node;
    if root == state {
        return Some("it is the state directory, too; a reboot clears that, so choose two".into());
    }
    if root.starts_with(state) {
        return Some(format!(
            "it lies in the state directory {}, which a reboot clears; choose a place outside of it",
            state.display()
        ));
    }
    let service = SERVICES.into_iter().find(|service| state.starts_with(node.root_of(service)))?;
    Some(format!(
        "the state directory {} lies in what belongs to the {service} service; choose a place outside of it",
        state.display()
    ))
}
