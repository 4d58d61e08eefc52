//! Several ClickHouse servers, a bridge or two beside each, one pipe.

mod blocks;
