//! The shipped SQL on a real ClickHouse.
