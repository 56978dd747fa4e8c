//! What a test may note, a line of JSON each, in the file that `XTASK_EVENTS` names.

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::job::Rule;
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
    /// Something about the kernel that the table shows: a column, and a cell.
    Fact(Fact),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fact {
    name: String,
    value: String,
}

/// Says that the kernel is too old or too new for a test.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Skip {
    /// The first kernel that it runs on, `MAJOR.MINOR`.
    pub needs: Option<String>,
    /// The first kernel that it no longer runs on, `MAJOR.MINOR`.
    pub before: Option<String>,
    /// Why, with the commit that changed it.
    pub reason: String,
}

impl Skip {
    /// The kernels that the test is for.
    pub fn range(&self) -> String {
        match (&self.needs, &self.before) {
            (Some(needs), None) => format!("needs Linux {needs}"),
            (None, Some(before)) => format!("is for kernels before Linux {before}"),
            (Some(needs), Some(before)) => format!("is for Linux {needs} to before {before}"),
            (None, None) => "names no version".into(),
        }
    }

    /// Whether this kernel is none of those that the test is for.
    pub fn holds_on(&self, release: &str) -> Result<bool> {
        if self.needs.is_none() && self.before.is_none() {
            bail!("it skipped itself without saying which versions it is for");
        }
        let is = |version: &Option<String>| match version {
            Some(version) => is_at_least(release, version).map(Some),
            None => Ok(None),
        };
        Ok(is(&self.needs)? == Some(false) || is(&self.before)? == Some(true))
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
        for line in text.lines() {
            let note = serde_json::from_str(line)
                .with_context(|| format!("a line of its event file cannot be read: {line}"))?;
            match note {
                Note::Skip(skip) => notes.skip = Some(skip),
                Note::Rule(rule) => notes.rule = Some(rule),
                Note::Answer(answer) => notes.answer = answer,
                Note::Fact(fact) => notes.facts.push((fact.name, fact.value)),
            }
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

    #[test]
    fn a_skip_holds_only_outside_the_versions_that_it_names() {
        let on = "6.12.1-x";
        assert!(skip(r#""needs":"7.0""#).holds_on(on).unwrap());
        assert!(!skip(r#""needs":"6.12""#).holds_on(on).unwrap());
        assert!(skip(r#""before":"6.12""#).holds_on(on).unwrap());
        assert!(!skip(r#""before":"7.0""#).holds_on(on).unwrap());
        assert!(!skip(r#""needs":"6.10","before":"6.13""#).holds_on(on).unwrap());
        assert!(skip(r#""needs":"seven""#).holds_on(on).is_err());
        assert!(skip(r#""needs":null"#).holds_on(on).is_err());
    }

    #[test]
    fn notes_are_kept_by_kind() {
        let notes = Notes::parse(concat!(
            r#"{"rule":{"id":"10","group":"Running","statement":"three are one","file":"f.rs"}}"#,
            "\n",
            r#"{"answer":"no: -EBUSY"}"#,
            "\n",
            r#"{"fact":{"name":"ABI","value":"new"}}"#,
        ))
        .unwrap();
        assert_eq!(notes.rule.unwrap().id, "10");
        assert_eq!(notes.answer, "no: -EBUSY");
        assert_eq!(notes.facts, [("ABI".to_owned(), "new".to_owned())]);
    }

    #[test]
    fn a_note_that_cannot_be_read_is_an_error() {
        assert!(Notes::parse(r#"{"skipp":{}}"#).is_err());
        assert!(Notes::parse(r#"{"skip":{"reason":"why","need":"7.0"}}"#).is_err());
        assert!(Notes::parse(r#"{"answer""#).is_err());
    }
}
