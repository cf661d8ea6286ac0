//! The least program that can be a shim.

fn main() {
    let args: Vec<std::ffi::OsString> = std::env::args_os().skip(1).collect();
    baton_agent::shim::main(&args)
}
