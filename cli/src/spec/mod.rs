//! What is written on the command line of `run` and `create`, read as Docker reads it and put into a
//! [`ContainerSpec`](berth_proto::berth::runtime::v1::ContainerSpec).

mod build;
mod env;
mod flags;
mod health;
mod instant;
mod limits;
mod mount;
mod network;
mod port;
mod rates;
#[cfg(test)]
mod reference;
mod size;
mod unsupported;

pub(crate) use build::{build, check_restart, publish_all};
pub(crate) use env::{from_file as env_file, labels, variable};
pub(crate) use flags::{changeable_limits, container as flags};
pub(crate) use instant::instant;
pub(crate) use limits::resources;
