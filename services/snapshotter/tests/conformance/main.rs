//! The snapshotter from outside: a process of its own in a private directory, spoken to through its socket. Every driver
//! passes the same suite.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod archive;
mod arrival;
mod blobs;
mod crash;
mod extract;
mod full;
mod hostile;
mod image;
mod mounted;
mod mutated;
mod oracle;
mod service;
mod snapshots;
mod stacks;

/// The same test for each driver.
macro_rules! both_drivers {
    ($($name:ident),+ $(,)?) => {
        mod overlay2 {
            $(#[tokio::test(flavor = "multi_thread")] async fn $name() { super::$name("overlay2").await; })+
        }
        mod vfs {
            $(#[tokio::test(flavor = "multi_thread")] async fn $name() { super::$name("vfs").await; })+
        }
    };
}
pub(crate) use both_drivers;
