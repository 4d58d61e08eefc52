//! Strings that must not be printed.

use std::fmt;

/// A string that is never printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The string itself, for sending it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether `given` is equal, compared in a time that does not reveal how much of it matches.
    pub fn matches(&self, given: &[u8]) -> bool {
        let differences = self.0.bytes().zip(given).fold(0, |all, (a, b)| all | (a ^ b));
        self.0.len() == given.len() && std::hint::black_box(differences) == 0
    }
}

/// The bearer tokens of a bridge. While they are being changed, the one before is accepted too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// The token that is handed out.
    pub current: Secret,
    /// The one that it replaces.
    pub previous: Option<Secret>,
}

impl Tokens {
    /// Whether `given` is one of them, see [`Secret::matches`].
    pub fn accept(&self, given: &[u8]) -> bool {
        let previous = self.previous.as_ref().is_some_and(|token| token.matches(given));
        self.current.matches(given) | previous
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Secret {
        Secret(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_tokens_are_accepted_and_nothing_else() {
        let secret = |text: &str| Secret::from(text.to_owned());
        let one = Tokens { current: secret("current"), previous: None };
        let two = Tokens { previous: Some(secret("previous")), ..one.clone() };
        for (given, by_one, by_two) in [
            ("current", true, true),
            ("previous", false, true),
            ("", false, false),
            ("currenT", false, false),
            ("current\nprevious", false, false),
        ] {
            assert_eq!((one.accept(given.as_bytes()), two.accept(given.as_bytes())), (by_one, by_two), "{given}");
        }
        assert!(!format!("{two:?}").contains("previous\""));
    }
}
