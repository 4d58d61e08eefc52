//! Whether the rows caused an insert to fail. The only list of ClickHouse errors that rows can
//! cause; after any other error nothing is isolated, because the same rows may be inserted once it
//! has passed.

use domain::ports::Cause;

/// Errors that only values can cause: when they are parsed, converted, computed with, or checked.
const ROWS: [(u32, &str); 35] = [
    // Text that a cast, a parse function or a JSON path cannot read.
    (6, "CANNOT_PARSE_TEXT"),
    (25, "CANNOT_PARSE_ESCAPE_SEQUENCE"),
    (26, "CANNOT_PARSE_QUOTED_STRING"),
    (27, "CANNOT_PARSE_INPUT_ASSERTION_FAILED"),
    // Not valid JSON, base64, … for the function that reads it.
    (117, "INCORRECT_DATA"),
    (38, "CANNOT_PARSE_DATE"),
    (41, "CANNOT_PARSE_DATETIME"),
    (72, "CANNOT_PARSE_NUMBER"),
    (130, "CANNOT_READ_ARRAY_FROM_TEXT"),
    (376, "CANNOT_PARSE_UUID"),
    (441, "CANNOT_PARSE_DOMAIN_VALUE_FROM_STRING"),
    (467, "CANNOT_PARSE_BOOL"),
    (563, "CANNOT_READ_MAP_FROM_TEXT"),
    (632, "UNEXPECTED_DATA_AFTER_PARSED_VALUE"),
    (675, "CANNOT_PARSE_IPV4"),
    (676, "CANNOT_PARSE_IPV6"),
    (346, "CANNOT_CONVERT_CHARSET"),
    // Values that do not fit a type or a column.
    (19, "SIZE_OF_FIXED_STRING_DOESNT_MATCH"),
    (70, "CANNOT_CONVERT_TYPE"),
    (120, "CANNOT_INSERT_VALUE_OF_DIFFERENT_SIZE_INTO_TUPLE"),
    (128, "TOO_LARGE_ARRAY_SIZE"),
    (131, "TOO_LARGE_STRING_SIZE"),
    (190, "SIZES_OF_ARRAYS_DONT_MATCH"),
    (321, "VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE"),
    (349, "CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN"),
    (366, "SIZES_OF_NESTED_COLUMNS_ARE_INCONSISTENT"),
    (645, "NUMBER_OF_DIMENSIONS_MISMATCHED"),
    (691, "UNKNOWN_ELEMENT_OF_ENUM"),
    // Values that a function does not accept.
    (11, "POSITION_OUT_OF_BOUND"),
    (12, "PARAMETER_OUT_OF_BOUND"),
    (69, "ARGUMENT_OUT_OF_BOUND"),
    (153, "ILLEGAL_DIVISION"),
    (407, "DECIMAL_OVERFLOW"),
    // Explicit checks: throwIf in the SELECT, CHECK constraints of the table.
    (395, "FUNCTION_THROW_IF_VALUE_IS_NON_ZERO"),
    (469, "VIOLATED_CONSTRAINT"),
];

/// Errors of functions that can also come from a truncated body.
const ROWS_IN_FUNCTIONS: [(u32, &str); 2] = [(32, "ATTEMPT_TO_READ_AFTER_EOF"), (33, "CANNOT_READ_ALL_DATA")];

/// Classifies a refresh's exception, given in full: ClickHouse names the place at its end.
pub(super) fn cause(exception: &str) -> Cause {
    let inner = exception.split_once("Refresh failed: ").map_or(exception, |(_, inner)| inner);
    let digits = inner.strip_prefix("Code: ").and_then(|rest| rest.split('.').next());
    let Some(code) = digits.and_then(|digits| digits.parse::<u32>().ok()) else {
        return Cause::Other("the refresh did not fail with an error of ClickHouse");
    };
    let is_in = |list: &[(u32, &str)]| list.iter().any(|(number, _)| *number == code);
    let in_function = is_in(&ROWS_IN_FUNCTIONS) && inner.contains("while executing 'FUNCTION ");
    match () {
        () if !is_in(&ROWS) && !in_function => Cause::Other("errors of this kind are not caused by rows"),
        () if inner.contains("while pushing to view") => {
            Cause::Other("a materialized view below the table failed, and the table itself may already have the rows")
        }
        () if inner.contains("Received from ") => {
            Cause::Other("another server failed, and some of the servers may already have their rows")
        }
        () => Cause::Rows,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refresh(code: u32, said: &str) -> Cause {
        cause(&format!(
            "Code: 730. DB::Exception: Refresh failed: Code: {code}. DB::Exception: {said},. (REFRESH_FAILED) (version 26.7.2.1)"
        ))
    }

    #[test]
    fn rows_are_to_blame_for_what_only_rows_can_cause() {
        let strict = "Cannot parse string 'x' as UInt64: while executing 'FUNCTION toUInt64(s :: 3) -> toUInt64(s) UInt64 : 1'. (CANNOT_PARSE_TEXT)";
        assert_eq!(refresh(6, strict), Cause::Rows);
        assert_eq!(
            refresh(469, "Constraint `c` for table e.t is violated at row 778. (VIOLATED_CONSTRAINT)"),
            Cause::Rows
        );
        assert_eq!(cause("Code: 153. DB::Exception: Division by zero"), Cause::Rows);
        let function = "Cannot parse JSON object here: no: while executing 'FUNCTION CAST(s :: 3) -> CAST(s) JSON : 5'. (INCORRECT_DATA)";
        assert_eq!(refresh(117, function), Cause::Rows);
        let of_function =
            "Attempt to read after eof: while executing 'FUNCTION CAST(s :: 3)'. (ATTEMPT_TO_READ_AFTER_EOF)";
        assert_eq!(refresh(32, of_function), Cause::Rows);
    }

    #[test]
    fn other_errors_and_other_places_isolate_nothing() {
        let other = |cause: Cause| matches!(cause, Cause::Other(_));
        for code in [33, 32, 60, 47, 497, 243, 252, 241, 999, 394, 210, 86, 0, 5_000] {
            assert!(other(refresh(code, "Code: 469. said by somebody's data")), "{code}");
        }
        let below = "bad: while executing 'FUNCTION throwIf(n :: 0)': while pushing to view e.mv. (FUNCTION_THROW_IF_VALUE_IS_NON_ZERO)";
        // However long the statement before it is.
        for said in [below.to_string(), format!("{}: while pushing to view e.mv", "x".repeat(100_000))] {
            assert!(other(refresh(395, &said)), "{said:.80}");
        }
        assert!(other(refresh(469, "Received from 127.0.0.1:9000. DB::Exception: Constraint `c` is violated")));
        for text in ["", "Code: ", "Code: x", "502 Bad Gateway", "View was dropped", "Code: 99999999999999. x"] {
            assert!(other(cause(text)), "{text}");
        }
    }
}
