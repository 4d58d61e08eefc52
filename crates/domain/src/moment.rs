//! Points in time as users write them. The caller parses dates; numbers and words are parsed here.

/// A point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Unix ms.
    At(i64),
    /// This many milliseconds before now. The caller of [`Moment::at`] decides, once, what "now"
    /// is.
    Ago(i64),
}

impl Moment {
    /// Unix ms, never before 1970.
    pub fn at(self, now_ms: i64) -> i64 {
        match self {
            Moment::At(ms) => ms,
            Moment::Ago(ms) => now_ms.saturating_sub(ms).max(0),
        }
    }

    /// Parses `now` and `-90s`, `-30m`, `-1h`, `-7d`.
    pub fn relative(text: &str) -> Option<Moment> {
        if text.eq_ignore_ascii_case("now") {
            return Some(Moment::Ago(0));
        }
        let text = text.strip_prefix('-')?;
        let unit_ms = match text.chars().next_back()? {
            's' => 1_000,
            'm' => 60_000,
            'h' => 3_600_000,
            'd' => 86_400_000,
            _ => return None,
        };
        let count = &text[..text.len() - 1];
        let digits = !count.is_empty() && count.bytes().all(|b| b.is_ascii_digit());
        let ms = count.parse::<i64>().ok().filter(|_| digits)?.checked_mul(unit_ms)?;
        Some(Moment::Ago(ms))
    }

    /// Parses a Unix time: 10 digits are seconds, 13 milliseconds. Both reach from 2001 to 2286, so
    /// they cannot be confused. None for any other number, except 0, which is 1970 in either unit.
    pub fn unix(digits: &str) -> Option<Moment> {
        let number = digits.parse().ok().filter(|_| digits.bytes().all(|b| b.is_ascii_digit()))?;
        match (digits.len(), number) {
            (1, 0) => Some(Moment::At(0)),
            (10, 1_000_000_000i64..) => Some(Moment::At(number * 1_000)),
            (13, 1_000_000_000_000..) => Some(Moment::At(number)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn relative_times_count_back_from_now() {
        let ago = |text: &str| Moment::relative(text).map(|m| m.at(1_795_871_163_000));
        for (text, expected) in [
            ("now", 1_795_871_163_000),
            ("NOW", 1_795_871_163_000),
            ("-90s", 1_795_871_073_000),
            ("-30m", 1_795_869_363_000),
            ("-1h", 1_795_867_563_000),
            ("-7d", 1_795_266_363_000),
            ("-0s", 1_795_871_163_000),
            // There is nothing to read before 1970.
            ("-99999d", 0),
        ] {
            assert_eq!(ago(text), Some(expected), "{text}");
        }
        for text in [
            "",
            "-",
            "-h",
            "1h",
            "+1h",
            "--1h",
            "-+1h",
            "-1",
            "-1H",
            "-1w",
            "-1.5h",
            "- 1h",
            "-1 h",
            "-é",
            "-9223372036854775807d",
        ] {
            assert_eq!(ago(text), None, "{text}");
        }
    }

    #[test]
    fn other_numbers_are_not_times() {
        let refused = ["", "1", "-1", "999999999", "10000000000", "179587116300", "10000000000000", "1795871163000000"];
        for text in refused.into_iter().chain([
            "1795871163000000000",
            "0000000000000",
            "00000001795871163",
            "1e9",
            "+1795871163",
        ]) {
            assert_eq!(Moment::unix(text), None, "{text}");
        }
        assert_eq!(Moment::unix("0"), Some(Moment::At(0)));
    }

    proptest! {
        /// From 2012 to 2100, and well beyond, both units give the same time.
        #[test]
        fn seconds_and_milliseconds_are_told_apart(second in 1_000_000_000i64..10_000_000_000) {
            let at = Some(Moment::At(second * 1_000));
            prop_assert_eq!(Moment::unix(&second.to_string()), at);
            prop_assert_eq!(Moment::unix(&format!("{second}000")), at);
        }
    }
}
