//! The metrics an operator needs, in Prometheus text.

use prometheus::{Encoder, GaugeVec, IntCounterVec, IntGauge, Opts, Registry, TextEncoder};

use domain::error::Error;

/// All metrics. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    batches: IntCounterVec,
    rows: IntCounterVec,
    bytes: IntCounterVec,
    /// Failed Kinesis calls, by call and kind.
    pub kinesis_errors: IntCounterVec,
    /// HTTP responses by kind of path and status.
    pub requests: IntCounterVec,
    /// Requests and connections that were turned away, by reason.
    pub refused: IntCounterVec,
    /// How far each shard's reader is behind the newest record, in seconds.
    pub lag: GaugeVec,
    /// Records read but not yet in a batch, by pipe and shard.
    pub buffered_rows: GaugeVec,
    /// Failed refreshes since the pipe's last commit.
    pub failed_attempts: GaugeVec,
    /// Shards of the pipe whose position has expired.
    pub gaps: GaugeVec,
    /// Stalled subscriptions, by pipe.
    pub fan_out_stalls: IntCounterVec,
    /// Shards of the pipe that are polled because fan-out failed.
    pub fan_out_fallbacks: GaugeVec,
    /// What was found in records that are not plain rows, by stream and outcome.
    pub unpacked: IntCounterVec,
    /// Batches that were replaced by their first half because ClickHouse refused them.
    pub halvings: IntCounterVec,
    quarantined_rows: IntCounterVec,
    /// Leases held by this bridge, by pipe.
    pub leases: GaugeVec,
    /// Bytes held by buffers.
    pub memory_used: IntGauge,
    /// The memory limit of buffers, in bytes.
    pub memory_limit: IntGauge,
}

impl Metrics {
    /// All metrics at zero.
    pub fn new() -> Result<Metrics, Error> {
        Metrics::registered().map_err(|e| Error::Internal(format!("cannot set up the metrics: {e}")))
    }

    fn registered() -> Result<Metrics, prometheus::Error> {
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
                "Bytes of payloads, keys and sequence numbers committed to ClickHouse.",
                &["pipe"],
            )?,
            kinesis_errors: counter("kinesis_errors_total", "Failed Kinesis calls.", &["call", "kind"])?,
            requests: counter("http_requests_total", "HTTP requests answered.", &["path", "status"])?,
            refused: counter("http_refused_total", "Requests and connections that were turned away.", &["reason"])?,
            lag: gauge(
                "lag_seconds",
                "Seconds that the reader of a shard is behind its newest record.",
                &["pipe", "shard"],
            )?,
            buffered_rows: gauge("buffered_rows", "Records read but not yet in a batch.", &["pipe", "shard"])?,
            failed_attempts: gauge("failed_attempts", "Failed refreshes since the last commit.", &["pipe"])?,
            gaps: gauge("gaps", "Shards whose position has expired; seek resumes them.", &["pipe"])?,
            fan_out_stalls: counter(
                "fan_out_stalls_total",
                "Subscriptions that stalled, or were never answered.",
                &["pipe"],
            )?,
            fan_out_fallbacks: gauge(
                "fan_out_fallbacks",
                "Shards that are polled despite mode=efo, because fan-out failed.",
                &["pipe"],
            )?,
            unpacked: counter(
                "unpacked_total",
                "What pipes found in records that are not plain rows.",
                &["stream", "outcome"],
            )?,
            halvings: counter("halvings_total", "Batches replaced by their first half to find bad rows.", &["pipe"])?,
            quarantined_rows: counter(
                "quarantined_rows_total",
                "Rows refused by ClickHouse and put into the quarantine.",
                &["pipe"],
            )?,
            leases: gauge("leases", "Leases held by this bridge.", &["pipe"])?,
            memory_used: single("memory_used_bytes", "Bytes held by buffers.")?,
            memory_limit: single("memory_limit_bytes", "Limit of the bytes held by buffers (--memory).")?,
            registry,
        })
    }

    /// Counts a batch: served, replayed or recovered, or its end: committed, quarantined, failed,
    /// unread (to its end) or unknown.
    pub fn batch(&self, pipe: &str, outcome: &str) {
        self.batches.with_label_values(&[pipe, outcome]).inc();
    }

    /// Counts a quarantined row, the only one of its batch.
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

    /// The metrics in Prometheus text format.
    pub fn render(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}
