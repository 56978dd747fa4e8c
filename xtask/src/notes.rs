//! What a test may note, a line of JSON each, in the file that `XTASK_EVENTS` names.

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::job::Rule;
use crate::kconfig::{Config, Running};
use crate::version::is_at_least;

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Note {
    /// The test cannot run on this kernel.
    Skip(Skip),
    /// The rule that the test proves.
    Rule(Rule),
    /// What this kernel does about the rule, where it differs from what the rule says.
    Answer(String),
    /// The program that it loads, from the workspace's root.
    Program(String),
    /// Something about the kernel that the table shows: a column, and a cell.
    Fact(Fact),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fact {
    name: String,
    value: String,
}

/// Says that the kernel is too old or too new for a test, or was built without what it needs.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Skip {
    /// The first kernel that it runs on, `MAJOR.MINOR`.
    pub needs: Option<String>,
    /// The first kernel that it no longer runs on, `MAJOR.MINOR`.
    pub before: Option<String>,
    /// The option that it needs, `CONFIG_…`.
    pub config: Option<String>,
    /// Why, with the commit that changed it.
    pub reason: String,
}

impl Skip {
    /// Why the test cannot run on this kernel; an error if it can, or says nothing to be checked.
    pub fn check(&self, on: &Running) -> Result<String> {
        let (needs, before) = (self.needs.as_deref(), self.before.as_deref());
        let range = match (needs, before, self.config.as_deref()) {
            (None, None, Some(option)) => return self.check_config(option, on.config.as_ref()),
            (_, _, Some(_)) => bail!("it skipped itself for an option and for a version at once"),
            (None, None, None) => {
                bail!("it skipped itself without saying which versions it is for")
            }
            (Some(needs), None, None) => format!("needs Linux {needs}"),
            (None, Some(before), None) => format!("is for kernels before Linux {before}"),
            (Some(needs), Some(before), None) => {
                format!("is for Linux {needs} to before {before}")
            }
        };
        let release = &on.release;
        let is = |version: Option<&str>| match version {
            Some(version) => is_at_least(release, version).map(Some),
            None => Ok(None),
        };
        if is(needs)? == Some(false) || is(before)? == Some(true) {
            return Ok(format!("{range}: {}", self.reason));
        }
        bail!("it skipped itself on {release}, which it can run on: it {range}")
    }

    fn check_config(&self, option: &str, config: Option<&Config>) -> Result<String> {
        if !option.starts_with("CONFIG_") {
            bail!("it skipped itself for {option}, which is no name of an option");
        }
        let reason = &self.reason;
        match config {
            None => {
                Ok(format!("needs {option}: {reason} (the kernel's configuration is not known)"))
            }
            Some(config) if config.is_set(option) => {
                bail!("it skipped itself for want of {option}, which this kernel has")
            }
            Some(_) => Ok(format!("needs {option}: {reason}")),
        }
    }
}

/// All that a test has noted.
#[derive(Default)]
pub struct Notes {
    /// The last skip.
    pub skip: Option<Skip>,
    /// The rule.
    pub rule: Option<Rule>,
    /// The last answer; empty if there is none.
    pub answer: String,
    /// Columns and cells.
    pub facts: Vec<(String, String)>,
}

impl Notes {
    /// Reads the file's text.
    pub fn parse(text: &str) -> Result<Self> {
        let mut notes = Notes::default();
        let mut first = None;
        for line in text.lines() {
            let note = serde_json::from_str(line)
                .with_context(|| format!("a line of its event file cannot be read: {line}"))?;
            match note {
                Note::Skip(skip) => notes.skip = Some(skip),
                Note::Rule(rule) => notes.rule = Some(rule),
                Note::Program(program) => _ = first.get_or_insert(program),
                Note::Answer(answer) => {
                    let word = answer.split(':').next().unwrap_or_default();
                    if !["yes", "no", "dies"].contains(&word) {
                        bail!("its answer is neither yes, no nor dies: {answer}");
                    }
                    notes.answer = answer;
                }
                Note::Fact(fact) => notes.facts.push((fact.name, fact.value)),
            }
        }
        if let Some(rule) = &mut notes.rule {
            rule.program = first;
        }
        Ok(notes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skip(fields: &str) -> Skip {
        let line = format!(r#"{{"skip":{{{fields},"reason":"why"}}}}"#);
        Notes::parse(&line).unwrap().skip.unwrap()
    }

    /// Why a test cannot run on a kernel of this configuration, if it cannot.
    fn check(fields: &str, config: Option<&str>) -> Result<String, String> {
        let config = config.map(Config::from);
        let on = Running { release: "6.12.1-x".into(), config, config_file: None };
        skip(fields).check(&on).map_err(|e| format!("{e:#}"))
    }

    #[test]
    fn a_skip_holds_only_outside_the_versions_that_it_names() {
        let holds = |fields| check(fields, None);
        assert_eq!(holds(r#""needs":"7.0""#).unwrap(), "needs Linux 7.0: why");
        assert!(holds(r#""needs":"6.12""#).unwrap_err().contains("which it can run on"));
        assert!(holds(r#""before":"6.12""#).is_ok());
        assert!(holds(r#""before":"7.0""#).is_err());
        assert!(holds(r#""needs":"6.10","before":"6.13""#).is_err());
        assert!(holds(r#""needs":"seven""#).is_err());
        assert!(holds(r#""needs":null"#).is_err());
    }

    #[test]
    fn a_skip_for_an_option_holds_where_the_kernel_lacks_it() {
        let needs_b = |config| check(r#""config":"CONFIG_B""#, config);
        assert_eq!(needs_b(Some("# CONFIG_B is not set\n")).unwrap(), "needs CONFIG_B: why");
        for has in ["CONFIG_B=y\n", "CONFIG_A=y\nCONFIG_B=m\n"] {
            assert!(needs_b(Some(has)).unwrap_err().contains("which this kernel has"), "{has}");
        }
        assert!(needs_b(None).unwrap().contains("the kernel's configuration is not known"));
        assert!(check(r#""config":"CONFIG_B","needs":"7.0""#, Some("")).is_err());
        assert!(check(r#""config":"B""#, Some("")).is_err());
    }

    #[test]
    fn notes_are_kept_by_kind() {
        let notes = Notes::parse(concat!(
            r#"{"rule":{"id":"10","group":"Running","statement":"three are one","file":"f.rs"}}"#,
            "\n",
            r#"{"program":"a.bpf.c"}"#,
            "\n",
            r#"{"program":"b.bpf.c"}"#,
            "\n",
            r#"{"answer":"no: -EBUSY"}"#,
            "\n",
            r#"{"fact":{"name":"ABI","value":"new"}}"#,
        ))
        .unwrap();
        let rule = notes.rule.unwrap();
        assert_eq!((rule.id.as_str(), rule.program.as_deref()), ("10", Some("a.bpf.c")));
        assert_eq!(notes.answer, "no: -EBUSY");
        assert_eq!(notes.facts, [("ABI".to_owned(), "new".to_owned())]);
    }

    #[test]
    fn a_note_that_cannot_be_read_is_an_error() {
        assert!(Notes::parse(r#"{"skipp":{}}"#).is_err());
        assert!(Notes::parse(r#"{"skip":{"reason":"why","need":"7.0"}}"#).is_err());
        assert!(Notes::parse(r#"{"answer""#).is_err());
        assert!(Notes::parse(r#"{"answer":"refused"}"#).is_err());
    }
}
