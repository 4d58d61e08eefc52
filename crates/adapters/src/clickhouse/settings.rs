//! The settings sent with every statement, so that it means the same whatever defaults the profile
//! of the bridge's user changes.
//!
//! An administrator's limits (rows, bytes, time, memory) are left alone: exceeding one is an error
//! that names it. They only must not truncate a result silently.

/// Names and values. A server refuses a setting that it does not know: each of these exists in all
/// versions from 24.8 to 26.9, according to `system.settings`.
pub(super) const SETTINGS: [(&str, &str); 36] = [
    // An exception as text: `Code: …`.
    ("http_write_exception_in_output_format", "0"),
    // Rows as they are parsed here: one JSON object per line, numbers as numbers, times in digits,
    // and nothing after the last row.
    ("output_format_json_array_of_rows", "0"),
    ("output_format_json_quote_64bit_integers", "0"),
    ("output_format_json_quote_64bit_floats", "0"),
    ("output_format_json_quote_decimals", "0"),
    ("output_format_json_quote_denormals", "0"),
    ("output_format_json_named_tuples_as_objects", "1"),
    ("date_time_output_format", "simple"),
    ("extremes", "0"),
    // All rows, or an error: a lease that is missed is a shard that is read from its start.
    ("limit", "0"),
    ("offset", "0"),
    ("additional_result_filter", ""),
    ("additional_table_filters", "{}"),
    ("result_overflow_mode", "throw"),
    ("read_overflow_mode", "throw"),
    ("timeout_overflow_mode", "throw"),
    ("set_overflow_mode", "throw"),
    ("sort_overflow_mode", "throw"),
    ("group_by_overflow_mode", "throw"),
    // Current data, with all versions.
    ("use_query_cache", "0"),
    ("final", "0"),
    // Standard meaning of SQL.
    ("dialect", "clickhouse"),
    ("join_use_nulls", "0"),
    ("transform_null_in", "0"),
    ("group_by_use_nulls", "0"),
    ("aggregate_functions_null_for_empty", "0"),
    ("empty_result_for_aggregation_by_empty_set", "0"),
    ("prefer_column_name_to_alias", "0"),
    ("data_type_default_nullable", "0"),
    // Small tables are read whole on purpose, as are tables being compared.
    ("force_primary_key", "0"),
    ("force_index_by_date", "0"),
    // Statements may be as long as the defaults allow.
    ("max_query_size", "262144"),
    ("max_ast_elements", "50000"),
    ("max_ast_depth", "1000"),
    ("max_parser_depth", "1000"),
    // Written when acknowledged.
    ("async_insert", "0"),
];

/// Whether the exception comes from a conflict between these settings and the user's own; if so,
/// what to do.
pub(super) fn conflict(code: u32, said: &str, server: &str, user: &str) -> Option<String> {
    Some(match code {
        // From a setting that the user may not change at all, or from a statement that writes.
        164 => format!(
            "ClickHouse user '{user}' is read-only ({said}), but the bridge changes settings and writes its state: give the user a profile \
             with readonly = 0, or name another user with --clickhouse-user"
        ),
        452 => format!(
            "the profile of ClickHouse user '{user}' forbids a setting that the bridge sends with every statement ({said}): remove the \
             constraint, or name another user with --clickhouse-user"
        ),
        115 => format!(
            "ClickHouse at {server} does not know a setting that the bridge sends ({said}): upgrade to 25.8 LTS or later"
        ),
        201 => format!(
            "ClickHouse user '{user}' has used up its quota ({said}): raise it, or give the bridge a user without one"
        ),
        392 => format!(
            "ClickHouse user '{user}' has the setting allow_ddl = 0 ({said}), but the bridge changes its state with ALTER: set it to 1 in \
             the user's profile"
        ),
        158 | 161 | 165 | 167 | 168 | 191 | 306 | 307 | 396 => format!(
            "a statement of the bridge exceeds a limit in the profile of ClickHouse user '{user}' ({said}): raise the limit"
        ),
        _ => return None,
    })
}
