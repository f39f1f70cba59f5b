//! How a command fails: a text for a person, an exit code for a script.

use std::fmt::Write;

use mgmt_types::{Mistake, Problem, ProblemKind};

/// The exit codes besides 0, and 2 that clap uses for a wrong command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Code {
    Failed = 1,
    Usage = 2,
    Unreachable = 3,
    NotRealised = 4,
}

/// Why a command did not do what it was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    code: Option<Code>,
    text: String,
}

impl Failure {
    /// Something went wrong.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { code: Some(Code::Failed), text: text.into() }
    }

    /// The command line asks for what makes no sense.
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self { code: Some(Code::Usage), text: text.into() }
    }

    /// A change was accepted, and a host did not follow.
    pub(crate) fn not_realised(text: impl Into<String>) -> Self {
        Self { code: Some(Code::NotRealised), text: text.into() }
    }

    /// The packet that was asked about would not arrive: that is the answer, not an error.
    pub(crate) fn not_delivered() -> Self {
        Self { code: Some(Code::Failed), text: String::new() }
    }

    /// Whoever read our output has seen enough: no failure worth a word.
    pub(crate) fn reader_left() -> Self {
        Self { code: None, text: String::new() }
    }

    /// The exit code.
    pub(crate) fn code(&self) -> u8 {
        self.code.map_or(0, |code| code as u8)
    }

    /// What to tell a person; empty when there is nothing to say.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

impl From<mgmt_client::Error> for Failure {
    fn from(error: mgmt_client::Error) -> Self {
        match &error {
            mgmt_client::Error::Problem(problem) => Self::new(problem_text(problem)),
            _ if error.is_unreachable() => Self { code: Some(Code::Unreachable), text: error.to_string() },
            _ => Self::new(error.to_string()),
        }
    }
}

/// A refusal, for a person: one paragraph for each mistake.
fn problem_text(problem: &Problem) -> String {
    let mistakes = problem.mistakes();
    let mut text = String::new();
    if mistakes.iter().all(|mistake| *mistake == Mistake::default()) {
        text = if problem.detail.is_empty() { problem.title.clone() } else { problem.to_string() };
    }
    for mistake in mistakes.iter().filter(|mistake| **mistake != Mistake::default()) {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&mistake_text(mistake, &problem.title));
    }
    let hint = if problem.is(ProblemKind::Unauthenticated) {
        "\n  the token is read from --token, PALISADE_TOKEN, PALISADE_TOKEN_FILE, or admin.token in the state directory"
    } else if problem.is(ProblemKind::Forbidden) {
        "\n  `palisade token create NAME --role operator`, by an administrator, makes a token that may change resources"
    } else {
        ""
    };
    text.push_str(hint);
    text
}

/// `shop.yaml:7:12: Workload/web-1: spec.ports[0].network: there is no such network`, then what was found and what
/// would be right, each on a line of its own.
fn mistake_text(mistake: &Mistake, title: &str) -> String {
    let without_values = Mistake {
        got: None,
        expected: None,
        field: mistake.field.clone().filter(|field| !field.is_empty()),
        reason: Some(mistake.reason.clone().unwrap_or_else(|| title.to_owned())),
        ..mistake.clone()
    };
    let mut text = without_values.to_string();
    for (name, value) in [("got", &mistake.got), ("expected", &mistake.expected)] {
        if let Some(value) = value {
            // Writing into a String cannot fail.
            let _ = write!(text, "\n  {name:<9} {value}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistake() -> Mistake {
        Mistake {
            file: Some("shop.yaml".to_owned()),
            line: Some(7),
            column: Some(12),
            resource: Some("Workload/web-1".to_owned()),
            ..Mistake::new("spec.ports[0].network", "blu", "a known network: blue")
                .detail("there is no such network")
        }
    }

    #[test]
    fn a_mistake_says_where_what_and_what_would_be_right() {
        let problem = Problem::of(ProblemKind::Invalid, vec![mistake()]);
        let failure = Failure::from(mgmt_client::Error::Problem(Box::new(problem)));
        assert_eq!(failure.code(), 1);
        assert_eq!(
            failure.text(),
            "shop.yaml:7:12: Workload/web-1: spec.ports[0].network: there is no such network\n  \
             got       blu\n  \
             expected  a known network: blue"
        );
    }

    #[test]
    fn all_mistakes_are_told() {
        let second = Mistake { line: Some(9), column: None, ..mistake() };
        let text = problem_text(&Problem::of(ProblemKind::Invalid, vec![mistake(), second]));
        assert_eq!(text.matches("shop.yaml:").count(), 2, "{text}");
        assert!(text.contains("shop.yaml:9: Workload/web-1"), "{text}");
    }

    #[test]
    fn a_refusal_without_mistakes_is_told_in_its_own_words() {
        let text = problem_text(&Problem::new(ProblemKind::NotFound, "there is no Workload/web-9"));
        assert!(text.ends_with("there is no Workload/web-9"), "{text}");
        let text = problem_text(&Problem::new(ProblemKind::Unauthenticated, ""));
        assert!(text.contains("PALISADE_TOKEN"), "{text}");
    }

    #[test]
    fn an_unreachable_manager_has_an_exit_code_of_its_own() {
        let error = mgmt_client::Error::Connect { url: "https://a:1".into(), reason: "refused".into() };
        let failure = Failure::from(error);
        assert_eq!(failure.code(), 3);
        assert!(failure.text().contains("is the manager running"), "{}", failure.text());
    }
}
