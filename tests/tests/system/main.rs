//! The whole system from outside: what a person types and what comes of it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

/// Each function becomes two tests: on our own low-level runtime, and on runc below our shim. The two must agree.
macro_rules! on_both_runtimes {
    ($($name:ident),* $(,)?) => {
        mod native {
            $(#[test] fn $name() { super::$name(berth_tests::Setup::default()); })*
        }
        mod runc {
            $(#[test] fn $name() {
                super::$name(berth_tests::Setup { runtime: "runc".into(), ..Default::default() });
            })*
        }
    };
}

mod bad_input;
mod commit;
mod containerd;
mod cp;
mod crash;
mod databases;
mod df;
mod events;
mod exec;
mod flags;
mod health;
mod images;
mod init;
mod lifecycle;
mod limits;
mod login;
mod logs;
mod looking;
mod mirror;
mod names;
mod namespaces;
mod nested;
mod networks;
mod own_networks;
mod prune;
mod push;
mod remote;
mod restart;
mod run;
mod states;
mod streams;
mod token;
mod tracing;
mod volumes;

use berth_tests::{Node, Setup};

/// A node with busybox.
fn node(setup: Setup) -> Node {
    let node = Node::with(setup);
    node.load("busybox");
    node
}
