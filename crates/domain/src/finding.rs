//! What a look at something found.

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub what: String,
    /// How it is, or what is wrong and what to do.
    pub says: String,
    /// How bad that is.
    pub verdict: Verdict,
}

/// What a finding means for whoever runs the bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It works.
    Fine,
    /// It works, and there is something to know about it.
    Note,
    /// Something will not work.
    Bad,
}

impl Finding {
    /// A finding.
    pub fn new(what: impl Into<String>, verdict: Verdict, says: impl Into<String>) -> Finding {
        Finding { what: what.into(), says: says.into(), verdict }
    }

    /// That something works and how it is, or what is wrong and what to do.
    pub fn of(what: impl Into<String>, result: Result<String, String>) -> Finding {
        match result {
            Ok(fine) => Finding::new(what, Verdict::Fine, fine),
            Err(wrong) => Finding::new(what, Verdict::Bad, wrong),
        }
    }
}
