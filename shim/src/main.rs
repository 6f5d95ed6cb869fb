//! `containerd-shim-berth-v2`: see the library.

use std::process::ExitCode;

use berth_shim::{
    Error, Inherited,
    arguments::{Action, Arguments},
};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("containerd-shim-berth-v2: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Error> {
    let (arguments, action) = Arguments::parse(std::env::args_os().skip(1))?;
    match action {
        Action::Serve => {
            let inherited = Inherited::take()?;
            berth_shim::serve(arguments, inherited)
        }
        Action::Start => berth_shim::start(&arguments),
        Action::Delete => berth_shim::delete(&arguments),
        Action::Version => {
            println!("containerd-shim-berth-v2 {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
    }
}
