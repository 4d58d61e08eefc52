//! The figures an operator needs, in Prometheus text.

use prometheus::{Encoder, GaugeVec, IntCounterVec, IntGauge, Opts, Registry, TextEncoder};

/// All figures. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    batches: IntCounterVec,
    rows: IntCounterVec,
    bytes: IntCounterVec,
    /// Kinesis calls that failed, by call and kind.
    pub kinesis_errors: IntCounterVec,
    /// HTTP answers by path kind and status.
    pub requests: IntCounterVec,
    /// How far each shard's reader is behind the tip, s.
    pub lag: GaugeVec,
    /// Records read and not yet in a batch, by pipe and shard.
    pub buffered_rows: GaugeVec,
    /// Refreshes of the pipe that failed since its last commit.
    pub failed_attempts: GaugeVec,
    /// Shards of the pipe whose position has left the retention.
    pub gaps: GaugeVec,
    /// Subscriptions that fell silent, by pipe.
    pub fan_out_stalls: IntCounterVec,
    /// Shards of the pipe that are polled although fan-out is wanted.
    pub fan_out_fallbacks: GaugeVec,
    /// What was found in records that were no plain row, by stream and outcome.
    pub unpacked: IntCounterVec,
    /// Batches that were replaced by their first half because ClickHouse refused them.
    pub halvings: IntCounterVec,
    quarantined_rows: IntCounterVec,
    /// Leases held here, by pipe.
    pub leases: GaugeVec,
    /// Bytes held of the memory budget.
    pub memory_used: IntGauge,
    /// The memory budget.
    pub memory_limit: IntGauge,
}

impl Metrics {
    /// All figures at zero.
    pub fn new() -> Result<Metrics, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let vec = IntCounterVec::new(Opts::new(format!("kinesis_bridge_{name}"), help), labels)?;
            registry.register(Box::new(vec.clone())).map(|()| vec)
        };
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            let vec = GaugeVec::new(Opts::new(format!("kinesis_bridge_{name}"), help), labels)?;
            registry.register(Box::new(vec.clone())).map(|()| vec)
        };
        let single = |name: &str, help: &str| {
            let gauge = IntGauge::new(format!("kinesis_bridge_{name}"), help)?;
            registry.register(Box::new(gauge.clone())).map(|()| gauge)
        };
        Ok(Metrics {
            batches: counter("batches_total", "Batches by outcome.", &["pipe", "outcome"])?,
            rows: counter("rows_total", "Rows committed to ClickHouse.", &["pipe"])?,
            bytes: counter(
                "bytes_total",
                "Payload, key and sequence number bytes committed to ClickHouse.",
                &["pipe"],
            )?,
            kinesis_errors: counter("kinesis_errors_total", "Kinesis calls that failed.", &["call", "kind"])?,
            requests: counter("http_requests_total", "HTTP requests answered.", &["path", "status"])?,
            lag: gauge("lag_seconds", "How far the reader of a shard is behind its tip.", &["pipe", "shard"])?,
            buffered_rows: gauge("buffered_rows", "Records read and not yet in a batch.", &["pipe", "shard"])?,
            failed_attempts: gauge("failed_attempts", "Refreshes that failed since the last commit.", &["pipe"])?,
            gaps: gauge("gaps", "Shards whose position has left the retention; only seek goes on.", &["pipe"])?,
            fan_out_stalls: counter("fan_out_stalls_total", "Subscriptions that fell silent.", &["pipe"])?,
            fan_out_fallbacks: gauge(
                "fan_out_fallbacks",
                "Shards that are polled although mode=efo was asked for.",
                &["pipe"],
            )?,
            unpacked: counter(
                "unpacked_total",
                "What pipes found in records that were no plain row.",
                &["stream", "outcome"],
            )?,
            halvings: counter("halvings_total", "Batches replaced by their first half to find bad rows.", &["pipe"])?,
            quarantined_rows: counter(
                "quarantined_rows_total",
                "Rows that ClickHouse refuses, put into the quarantine.",
                &["pipe"],
            )?,
            leases: gauge("leases", "Leases held by this worker.", &["pipe"])?,
            memory_used: single("memory_used_bytes", "Bytes held by buffers.")?,
            memory_limit: single("memory_limit_bytes", "Bytes that buffers may hold.")?,
            registry,
        })
    }

    /// Counts a batch that was served, replayed, recovered, or ended as committed, quarantined,
    /// failed, unread (to its end) or unknown.
    pub fn batch(&self, pipe: &str, outcome: &str) {
        self.batches.with_label_values(&[pipe, outcome]).inc();
    }

    /// Counts a row that went to the quarantine, the only one of its batch.
    pub fn quarantined(&self, pipe: &str) {
        self.batch(pipe, "quarantined");
        self.quarantined_rows.with_label_values(&[pipe]).inc();
    }

    /// Counts a committed batch.
    pub fn committed(&self, pipe: &str, rows: u64, bytes: u64) {
        self.batch(pipe, "committed");
        self.rows.with_label_values(&[pipe]).inc_by(rows);
        self.bytes.with_label_values(&[pipe]).inc_by(bytes);
    }

    /// The text that Prometheus reads.
    pub fn render(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}
