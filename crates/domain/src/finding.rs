//! The result of a check.

use std::fmt::Display;

/// One thing that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was checked.
    pub what: String,
    /// Its state, or what is wrong and what to do.
    pub says: String,
    /// How serious it is.
    pub verdict: Verdict,
}

/// What a finding means for the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It works.
    Fine,
    /// It works, but there is something to know about it.
    Note,
    /// Something will not work.
    Bad,
}

impl Finding {
    /// A finding.
    pub fn new(what: impl Into<String>, verdict: Verdict, says: impl Into<String>) -> Finding {
        Finding { what: what.into(), says: says.into(), verdict }
    }

    /// A finding from a result: `Ok` describes the state, `Err` says what is wrong and what to do.
    pub fn of(what: impl Into<String>, result: Result<String, impl Display>) -> Finding {
        match result {
            Ok(fine) => Finding::new(what, Verdict::Fine, fine),
            Err(wrong) => Finding::new(what, Verdict::Bad, wrong.to_string()),
        }
    }
}
