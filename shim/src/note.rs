//! A line for people, in the shim's log.

/// Writes a line to standard error. Where that is full or gone, nobody reads it, and nothing else happens: `eprintln!`
/// would end the shim.
macro_rules! note {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($words)*);
    }};
}

pub(crate) use note;
