//! What the kernel and ClickHouse report: processor time, memory, numbers.

use std::fs::read_to_string;

use stack::{ClickHouse, Service};

/// 1 MiB.
pub const MIB: f64 = 1_048_576.0;

/// The processor seconds used by this process.
pub fn own_cpu_seconds() -> Result<f64, String> {
    let usage = read_to_string("/proc/self/stat").map_err(|error| format!("/proc/self/stat: {error}"))?;
    let (_, fields) = usage.rsplit_once(')').ok_or("/proc/self/stat is not understood")?;
    // From the third field of proc_pid_stat(5) to utime and stime.
    let ticks = fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum::<u64>();
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// The peak resident memory of a process, in bytes.
pub fn peak_memory(service: &Service) -> Result<u64, String> {
    let path = format!("/proc/{}/status", service.pid());
    let status = read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = peak.and_then(|value| value.trim().strip_suffix("kB")).and_then(|kib| kib.trim().parse::<u64>().ok());
    Ok(kib.ok_or_else(|| format!("{path} has no VmHWM"))? * 1_024)
}

/// Measures the processor seconds that several processes use from a start time on.
pub struct Cpu<'a>(Vec<(&'static str, &'a Service, f64)>);

impl<'a> Cpu<'a> {
    /// Starts counting.
    pub fn start(processes: &[(&'static str, &'a Service)]) -> Cpu<'a> {
        Cpu(processes.iter().map(|(name, service)| (*name, *service, service.cpu_seconds())).collect())
    }

    /// What each has used since the start.
    pub fn used(&self) -> Vec<(&'static str, f64)> {
        self.0.iter().map(|(name, service, before)| (*name, service.cpu_seconds() - before)).collect()
    }
}

/// The single number returned by a SELECT.
pub fn number(clickhouse: &ClickHouse, sql: &str) -> Result<u64, String> {
    let answer = clickhouse.query(sql)?;
    answer.trim().parse().map_err(|_| format!("ClickHouse answered {answer:?} instead of a number to {sql}"))
}

/// The value below which `share` of the sorted values lie; 0 if there are none.
pub fn percentile(sorted: &[f64], share: f64) -> f64 {
    let index = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(index.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(0.0)
}

/// The median; 0 if there are no values.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    percentile(&values, 0.5)
}

#[cfg(test)]
mod tests {
    use super::{median, percentile};

    #[test]
    fn percentiles_are_values_that_occurred() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(percentile(&values, 0.5), 50.0);
        assert_eq!(percentile(&values, 0.99), 99.0);
        assert_eq!(percentile(&values, 1.0), 100.0);
        assert_eq!(percentile(&[], 0.5), 0.0);
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
    }
}
