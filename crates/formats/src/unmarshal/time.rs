//! The time of an event.

/// The unit of a timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// Records of DynamoDB Streams.
    Second,
    /// A Kinesis stream, by default.
    Millisecond,
    /// A Kinesis stream configured with this precision.
    Microsecond,
}

impl Unit {
    /// Its name in a message.
    pub(super) fn plural(self) -> &'static str {
        match self {
            Unit::Second => "seconds",
            Unit::Millisecond => "milliseconds",
            Unit::Microsecond => "microseconds",
        }
    }
}

/// Microseconds since 1970, from a JSON number, which may have a fraction or an exponent; anything
/// below a microsecond is dropped. `None` if it is negative, does not fit, or is not a number.
pub(super) fn microseconds(text: &str, unit: Unit) -> Option<i64> {
    let power = match unit {
        Unit::Second => 6,
        Unit::Millisecond => 3,
        Unit::Microsecond => 0,
    };
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() {
        return None;
    }
    // Digits before the decimal point once it is moved.
    let places = i64::try_from(whole.len()).ok()?.checked_add(exponent.parse::<i64>().ok()?)?.checked_add(power)?;
    let mut digits = whole.bytes().chain(fraction.bytes());
    let mut value: i64 = 0;
    for place in 0.. {
        let digit = digits.next();
        if !digit.is_none_or(|digit| digit.is_ascii_digit()) {
            return None;
        }
        if place < places {
            // A zero, whatever its exponent: the loop would not end.
            if digit.is_none() && value == 0 {
                break;
            }
            value = value.checked_mul(10)?.checked_add(i64::from(digit.unwrap_or(b'0') - b'0'))?;
        } else if digit.is_none() {
            break;
        }
    }
    Some(value)
}
