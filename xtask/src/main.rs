//! Boots Linux kernels with vmtest and runs a workspace's tests in them.
fn main() {}
