//! The format `Parquet`: row groups of bounded size, Snappy, written as they fill.

use std::collections::VecDeque;

use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use super::arrow::Table;
use super::{Columns, Payload, events};
use domain::error::Error;
use domain::limits::{PARQUET_GROUP_BYTES, PARQUET_GROUP_ROWS};
use domain::record::RecordRef;

/// A row group is emitted in pieces of this many bytes.
const PIECE: usize = 1 << 20;

fn broken(error: ParquetError) -> Error {
    Error::Internal(format!("records cannot be encoded as Parquet: {error}"))
}

/// Writes row groups that end where record batches end, so that they, too, are cut only by the
/// records.
pub(super) struct Parquet {
    table: Table,
    writer: ArrowWriter<Vec<u8>>,
    group_rows: usize,
    group_bytes: usize,
}

impl Parquet {
    pub(super) fn new(columns: &Columns, payload: Payload) -> Result<Parquet, Error> {
        let table = Table::new(columns, payload)?;
        let sequence = ColumnPath::from("_sequence_number");
        // These are nearly unique: a dictionary or min/max statistics would cost time and be
        // useless.
        let mut properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_max_row_group_row_count(None)
            .set_column_dictionary_enabled(sequence, false);
        for column in events::UNIQUE.iter().map(|parts| ColumnPath::new(parts.iter().map(|p| p.to_string()).collect()))
        {
            properties = properties
                .set_column_dictionary_enabled(column.clone(), false)
                .set_column_statistics_enabled(column, EnabledStatistics::None);
        }
        let properties = properties.build();
        let writer = ArrowWriter::try_new(Vec::new(), table.schema().clone(), Some(properties)).map_err(broken)?;
        Ok(Parquet { table, writer, group_rows: 0, group_bytes: 0 })
    }

    pub(super) fn push(
        &mut self,
        record: RecordRef<'_>,
        shard: usize,
        ready: &mut VecDeque<Bytes>,
    ) -> Result<(), Error> {
        if self.table.full_before(&record) {
            self.cut(true, ready)?;
        }
        self.table.append(&record, shard);
        Ok(())
    }

    pub(super) fn finish(mut self, ready: &mut VecDeque<Bytes>) -> Result<Bytes, Error> {
        if self.table.rows() > 0 {
            self.cut(false, ready)?;
        }
        self.flush(ready)?;
        self.writer.finish().map_err(broken)?;
        Ok(std::mem::take(self.writer.inner_mut()).into())
    }

    /// Moves the collected rows into the row group, or into a new one if it would become too large.
    fn cut(&mut self, more: bool, ready: &mut VecDeque<Bytes>) -> Result<(), Error> {
        let (rows, bytes) = (self.table.rows(), self.table.payload_bytes());
        if self.group_rows + rows > PARQUET_GROUP_ROWS || self.group_bytes + bytes > PARQUET_GROUP_BYTES {
            self.flush(ready)?;
        }
        self.writer.write(&self.table.cut(more)?).map_err(broken)?;
        self.group_rows += rows;
        self.group_bytes += bytes;
        Ok(())
    }

    /// Ends the row group, if one is open, and emits what is written so far.
    fn flush(&mut self, ready: &mut VecDeque<Bytes>) -> Result<(), Error> {
        self.writer.flush().map_err(broken)?;
        (self.group_rows, self.group_bytes) = (0, 0);
        self.writer.sync().map_err(|e| broken(e.into()))?;
        // The writer tracks its own offsets, so the buffer may be drained.
        let mut written = Bytes::from(std::mem::take(self.writer.inner_mut()));
        while written.len() > PIECE {
            ready.push_back(written.split_to(PIECE));
        }
        if !written.is_empty() {
            ready.push_back(written);
        }
        Ok(())
    }
}
