//! Boots Linux kernels with vmtest and runs a workspace's tests in them. It knows nothing of what
//! the tests are about: any workspace with a `kernels.toml` and a `vmtest.toml` can use it.

pub mod accel;
pub mod batch;
pub mod cache;
pub mod cli;
pub mod compatibility;
pub mod config;
pub mod console;
pub mod deb;
pub mod download;
pub mod expected;
pub mod failure;
pub mod guardian;
pub mod guest;
pub mod initramfs;
pub mod interrupt;
pub mod job;
pub mod judge;
pub mod junit;
pub mod kconfig;
pub mod kernels;
pub mod libtest;
pub mod mirror;
pub mod modules;
pub mod notes;
pub mod page;
pub mod report;
pub mod rules;
pub mod session;
pub mod setup;
pub mod terminal;
pub mod test;
pub mod ui;
pub mod version;
pub mod vm;
pub mod workspace;
