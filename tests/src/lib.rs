//! What the tests of the whole system stand on: a private node ([`Node`]), a real registry ([`Registry`]), images built
//! from Debian packages ([`fixtures`]), a [`Terminal`] to type into, a look at what is left behind ([`leftovers`]), and
//! waiting that ends ([`patience`]), which the services' own tests use as well.
//!
//! Tests run as root. Each has its own directory, network namespace and cgroup, so they run side by side; binaries and
//! fixtures are made by `make test` beforehand.

pub mod command;
pub mod fixtures;
pub mod leftovers;
pub mod netns;
pub mod node;
pub mod patience;
pub mod registry;
pub mod terminal;

pub use command::{Finished, run};
pub use node::{Node, Setup};
pub use registry::Registry;
pub use terminal::Terminal;
