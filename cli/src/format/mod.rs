//! What is printed: tables, Go templates, JSON in Docker's shape, sizes and times as people read them.

pub(crate) mod container;
pub(crate) mod history;
pub(crate) mod image;
pub(crate) mod inspect_container;
pub(crate) mod inspect_image;
pub(crate) mod json;
pub(crate) mod ports;
pub(crate) mod rows;
pub(crate) mod table;
pub(crate) mod template;
pub(crate) mod units;
