//! What the tests of the whole system stand on: a private node ([`Node`]), a real registry ([`Registry`]), images built
//! from Debian packages ([`fixtures`]), and a look at what is left behind ([`leftovers`]).
//!
//! Tests run as root. Each has its own directory, network namespace and cgroup, so they run side by side; binaries and
//! fixtures are made by `make test` beforehand.

pub mod command;
pub mod fixtures;
pub mod leftovers;
pub mod netns;
pub mod node;
pub mod registry;

pub use command::{Finished, run};
pub use node::{Node, Setup};
pub use registry::Registry;
