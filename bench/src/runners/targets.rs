//! vmtest.toml, with the job as the command of its targets.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use toml::Table;

/// vmtest.toml.
pub struct Targets(pub Table);

impl Targets {
    /// That of the workspace, whose files are named from `root`, with the job as the command.
    pub fn of(text: &str, root: &Path, job: &Path) -> Result<Self> {
        let mut config: Table = text.parse().context("vmtest.toml")?;
        let command = format!("'{}'; exit $?", job.display());
        let Some(targets) = config.get_mut("target").and_then(|targets| targets.as_array_mut())
        else {
            bail!("vmtest.toml has no target");
        };
        for target in targets.iter_mut().filter_map(|target| target.as_table_mut()) {
            let kernel = target.get("kernel").and_then(|kernel| kernel.as_str());
            let kernel = root.join(kernel.context("vmtest.toml: a target has no kernel")?);
            target.insert("kernel".into(), kernel.display().to_string().into());
            target.insert("command".into(), command.clone().into());
        }
        Ok(Self(config))
    }

    /// A target's CPUs and memory.
    pub fn size(&self, name: &str) -> Result<(i64, String)> {
        let mut targets = self.0["target"].as_array().into_iter().flatten();
        let found = targets.find(|target| target["name"].as_str() == Some(name));
        let vm = found.and_then(|target| target.get("vm"));
        let cpus = vm.and_then(|vm| vm.get("num_cpus")?.as_integer());
        let memory = vm.and_then(|vm| vm.get("memory")?.as_str());
        let size = cpus.zip(memory.map(str::to_owned));
        size.with_context(|| format!("vmtest.toml does not say how large {name} is"))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn vmtests_targets_are_the_projects_with_the_job() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let text = fs::read_to_string(root.join("vmtest.toml")).expect("it can be read");
        let targets = Targets::of(&text, Path::new("/w"), Path::new("/w/job")).expect("it is one");
        let before: Table = text.parse().expect("it is TOML");
        let all = |config: &Table| config["target"].as_array().expect("it has some").clone();
        assert_eq!(all(&targets.0).len(), all(&before).len());
        for (new, old) in all(&targets.0).iter().zip(all(&before)) {
            assert_eq!(new["command"].as_str(), Some("'/w/job'; exit $?"));
            let kernel = format!("/w/{}", old["kernel"].as_str().expect("a path"));
            assert_eq!(new["kernel"].as_str(), Some(&*kernel));
            for same in ["name", "kernel_args", "vm"] {
                assert_eq!(new[same], old[same]);
            }
        }
        assert_eq!(targets.size("7.3").expect("it is there"), (2, "2G".to_owned()));
        assert!(targets.size("7.4").is_err());
    }
}
