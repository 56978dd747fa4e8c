//! The rules by kernels as one HTML page, with all that it needs inside.

use std::fmt::Write;
use std::sync::LazyLock;

use anyhow::Result;
use regex::Regex;

use crate::rules::{Answer, Group, Kind, Row};

/// The page.
pub fn html(subject: &str, kernels: &[&str], groups: &[Group]) -> Result<String> {
    let usual = usual(kernels.len(), groups);
    let mut said = String::new();
    for (kernel, answer) in kernels.iter().zip(&usual) {
        if let Some(Answer { kind, how }) = answer {
            let (word, how) = (kind.word(), marked(how));
            writeln!(said, "<p><b>{kernel}</b>, where nothing else is said: {word}: {how}.</p>")?;
        }
    }
    let mut sections = String::new();
    for group in groups {
        writeln!(sections, "<section>\n<h2>{}</h2>", escaped(&group.name))?;
        group.rows.iter().try_for_each(|row| article(row, kernels, &usual, &mut sections))?;
        sections.push_str("</section>\n");
    }
    let options: String =
        kernels.iter().map(|k| format!("<option>{}</option>", escaped(k))).collect();
    let rules: usize = groups.iter().map(|group| group.rows.len()).sum();
    Ok(include_str!("page.html")
        .replace("{{subject}}", &escaped(subject))
        .replace("{{rules}}", &rules.to_string())
        .replace("{{kernels}}", &kernels.len().to_string())
        .replace("{{options}}", &options)
        .replace("{{usual}}", &said)
        .replace("{{groups}}", sections.trim_end()))
}

/// Of each kernel, the answer that it gives to more than half of the rules: it is said once.
fn usual(kernels: usize, groups: &[Group]) -> Vec<Option<Answer>> {
    let rows: Vec<&Row> = groups.iter().flat_map(|group| &group.rows).collect();
    let of = |column: usize| {
        let answers = || rows.iter().flat_map(|row| &row.answers[column]);
        let count = |answer: &Answer| answers().filter(|other| *other == answer).count();
        answers().find(|a| !a.how.is_empty() && 2 * count(a) > rows.len()).cloned()
    };
    (0..kernels).map(of).collect()
}

fn article(row: &Row, kernels: &[&str], usual: &[Option<Answer>], text: &mut String) -> Result<()> {
    let rule = &row.rule;
    let (id, statement) = (escaped(&rule.id), marked(&rule.statement));
    write!(
        text,
        "<article id=\"{id}\"><div class=\"rule\"><span class=\"id\">{id}</span>{statement}"
    )?;
    write!(text, "<span class=\"links\"> <a href=\"../{}\">test</a>", escaped(&rule.file))?;
    if let Some(program) = &rule.program {
        write!(text, " <a href=\"../{}\">program</a>", escaped(program))?;
    }
    text.push_str("</span></div>\n<ul class=\"cells\">");
    for (kernel, answers) in kernels.iter().zip(&row.answers) {
        let kind = answers.iter().map(|answer| answer.kind).max_by_key(|kind| weight(*kind));
        let word = kind.unwrap_or(Kind::NotRun).word();
        let kernel = escaped(kernel);
        write!(text, "<li class=\"{word}\" data-k=\"{kernel}\"><b>{kernel}</b>{word}</li>")?;
    }
    text.push_str("</ul>\n");
    let how = by_kernels(row, kernels, usual);
    if !how.is_empty() {
        text.push_str("<ul class=\"how\">");
        for (Answer { kind, how }, range) in how {
            write!(text, "<li><b>{range}</b> {}: {}</li>", kind.word(), marked(&how))?;
        }
        text.push_str("</ul>\n");
    }
    text.push_str("</article>\n");
    Ok(())
}

/// Of several answers, the one that a reader has to see.
fn weight(kind: Kind) -> u8 {
    match kind {
        Kind::Failed => 5,
        Kind::Dies => 4,
        Kind::No => 3,
        Kind::Yes => 2,
        Kind::NotFor => 1,
        Kind::NotRun => 0,
    }
}

/// Each answer that says more than its word, with the kernels that give it.
fn by_kernels(row: &Row, kernels: &[&str], usual: &[Option<Answer>]) -> Vec<(Answer, String)> {
    let mut columns: Vec<(Answer, Vec<usize>)> = Vec::new();
    for (column, answers) in row.answers.iter().enumerate() {
        let unusual = |answer: &&Answer| usual[column].as_ref() != Some(*answer);
        for answer in answers.iter().filter(|a| !a.how.is_empty()).filter(unusual) {
            match columns.iter_mut().find(|(known, _)| known == answer) {
                Some((_, known)) => known.push(column),
                None => columns.push((answer.clone(), vec![column])),
            }
        }
    }
    let named = |(answer, columns): (Answer, Vec<usize>)| (answer, ranges(&columns, kernels));
    columns.into_iter().map(named).collect()
}

/// `6.12–6.19, 7.1`, of neighbours in the matrix.
fn ranges(columns: &[usize], kernels: &[&str]) -> String {
    let parts = columns.chunk_by(|a, b| a + 1 == *b).map(|run| match run {
        [one] => kernels[*one].to_owned(),
        [first, .., last] => format!("{}–{}", kernels[*first], kernels[*last]),
        [] => unreachable!("chunks are not empty"),
    });
    parts.collect::<Vec<_>>().join(", ")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Escaped, and as code what stands in backticks, and errnos, which are not broken at their hyphen.
fn marked(text: &str) -> String {
    static CODE: LazyLock<Regex> =
        LazyLock::new(|| Regex::new("`([^`]+)`|(-E[A-Z0-9]+)").expect("a constant pattern"));
    CODE.replace_all(&escaped(text), "<code>$1$2</code>").into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Outcome;
    use crate::rules::{groups, sample};

    #[test]
    fn the_page_holds_every_rule_and_answer() {
        let page = html("bpf", &["6.12", "7.3"], &groups(&sample())).unwrap();
        assert!(page.contains("3 rules, each proved by a test on 2 unmodified kernels"), "{page}");
        assert!(page.contains("<span class=\"id\">10</span>a | &lt;b&gt;"), "{page}");
        assert!(page.contains("<li class=\"dies\" data-k=\"6.12\"><b>6.12</b>dies</li>"), "{page}");
        assert!(page.contains("<li><b>6.12</b> no: <code>-EBUSY</code></li>"), "{page}");
        assert!(!page.contains("{{"), "{page}");
    }

    #[test]
    fn what_a_kernel_says_to_most_rules_is_said_once() {
        let mut reports = sample();
        for test in &mut reports[0].tests {
            (test.outcome, test.reason) = (Outcome::Skipped, "needs Linux 6.10: it came".into());
        }
        let page = html("bpf", &["6.1", "7.3"], &groups(&reports)).unwrap();
        let once = "<b>6.1</b>, where nothing else is said: no: needs Linux 6.10: it came.";
        assert!(page.contains(once), "{page}");
        assert_eq!(page.matches("it came").count(), 1, "{page}");
    }

    #[test]
    fn the_page_loads_nothing() {
        let page = html("bpf", &["6.12", "7.3"], &groups(&sample())).unwrap();
        for outside in ["http:", "https:", "src=", "@import", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
    }

    #[test]
    fn neighbours_are_a_range() {
        let kernels = ["6.12", "6.16", "6.17", "7.0"];
        assert_eq!(ranges(&[0, 1, 2], &kernels), "6.12–6.17");
        assert_eq!(ranges(&[0, 2, 3], &kernels), "6.12, 6.17–7.0");
    }
}
