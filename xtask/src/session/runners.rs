//! `cargo xtask bench --runners`: how long this runner and others take to a verdict, as the package
//! that measures has it.

use anyhow::{Context, Result};

use super::Session;
use crate::accel::Accel;
use crate::bench::{Host, HostKernel};
use crate::failure::{Exit, usage};
use crate::kernels::{self, Choice};
use crate::setup;

impl Session<'_> {
    /// Makes all ready that runners need, and has the package's binary compare them.
    pub fn bench_runners(&self) -> Result<Exit> {
        let (name, bench) = self.workspace.bench()?;
        let Some(args) = &bench.runners else {
            return Err(usage(format!(
                "{name} compares no runners: its [package.metadata.xtask.bench] has no `runners`"
            )));
        };
        if self.place.accel == Some(Accel::Icount) {
            return Err(usage("a runner's time is the machine's: --accel kvm or tcg"));
        }
        setup::ensure_tools()?;
        setup::ensure_runner_tools()?;
        let program = self.workspace.build_bench(name)?;
        let newest = Choice::Pinned(self.matrix.newest().clone());
        let accel = self.choose_accel(&self.candidate(&newest)?.kernel)?;
        let mut host = Host::new(accel, &self.workspace)?;
        for pinned in &self.matrix.kernel {
            if !pinned.default || pinned.build.is_some() {
                continue;
            }
            let choice = Choice::Pinned(pinned.clone());
            let mirror = self.place.mirror.as_deref();
            let kernel = kernels::ensure(&choice, &self.matrix, &self.place.cache()?, mirror)?;
            let dir = kernel.vmlinuz.parent().context("a kernel in no directory")?.to_owned();
            let (kernel, release) = (pinned.series.clone(), pinned.release.clone());
            host.kernels.push(HostKernel { kernel, release, dir });
        }
        host.compare(&program, args, &self.workspace.target.join("results").join(name))?;
        Ok(Exit::Passed)
    }
}
