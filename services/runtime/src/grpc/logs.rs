//! `Containers.Logs`.
