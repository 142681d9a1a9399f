//! Counts in memory, from any thread, and tells all values at once.
//!
//! Not here: what the metrics mean (`table`), and values that must be fetched from anywhere.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::metrics::table::{BUCKETS, BUILD_INFO, Metric, Timing};

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The full name, as in the table.
    pub name: String,
    /// The values of the labels, in the order of the table.
    pub labels: Vec<String>,
    /// The value.
    pub value: f64,
}

/// All values. They begin at 0 and live as long as the process.
#[derive(Debug)]
pub struct Metrics {
    values: BTreeMap<Metric, Value>,
    timings: BTreeMap<Timing, Durations>,
}

impl Default for Metrics {
    fn default() -> Self {
        let values = Metric::ALL.iter().map(|metric| (*metric, Value::default()));
        let timings = Timing::ALL.iter();
        Self {
            values: values.collect(),
            timings: timings
                .map(|timing| (*timing, Durations::default()))
                .collect(),
        }
    }
}

impl Metrics {
    /// One more.
    pub fn increment(&self, metric: Metric) {
        self.change(metric, 1.0);
    }

    /// One less, of a gauge.
    pub fn decrement(&self, metric: Metric) {
        self.change(metric, -1.0);
    }

    /// So many more.
    pub fn add(&self, metric: Metric, amount: u64) {
        self.change(metric, float(amount));
    }

    /// Sets a gauge to a number.
    pub fn set(&self, metric: Metric, value: u64) {
        self.set_float(metric, float(value));
    }

    /// Sets a gauge to a length of time.
    pub fn set_duration(&self, metric: Metric, value: Duration) {
        self.set_float(metric, value.as_secs_f64());
    }

    /// Sets a gauge to a moment; 0 for one that is not known.
    pub fn set_time(&self, metric: Metric, time: Option<DateTime<Utc>>) {
        let seconds = time.and_then(|time| u64::try_from(time.timestamp()).ok());
        self.set(metric, seconds.unwrap_or(0));
    }

    /// Sets a gauge to a moment, unless it shows a later one.
    pub fn advance_time(&self, metric: Metric, time: DateTime<Utc>) {
        let seconds = u64::try_from(time.timestamp()).map_or(0.0, float);
        if let Some(value) = self.values.get(&metric) {
            value.update(|old| old.max(seconds));
        }
    }

    /// Sets a gauge to yes or no.
    pub fn set_flag(&self, metric: Metric, is_so: bool) {
        self.set(metric, u64::from(is_so));
    }

    /// Counts a gauge up until what is returned is dropped.
    pub fn running(&self, metric: Metric) -> Running<'_> {
        self.increment(metric);
        Running {
            metrics: self,
            metric,
        }
    }

    /// Counts a duration.
    pub fn observe(&self, timing: Timing, took: Duration) {
        if let Some(durations) = self.timings.get(&timing) {
            durations.observe(took);
        }
    }

    /// The value of one metric.
    pub fn value(&self, metric: Metric) -> f64 {
        self.values.get(&metric).map_or(0.0, Value::get)
    }

    /// All values, each of a metric of the table.
    pub fn samples(&self) -> Vec<Sample> {
        let mut samples: Vec<Sample> = self
            .values
            .iter()
            .map(|(metric, value)| sample(metric.name().to_owned(), &[], value.get()))
            .collect();
        for (timing, durations) in &self.timings {
            durations.samples(timing.name(), &mut samples);
        }
        let version = env!("CARGO_PKG_VERSION");
        samples.push(sample(BUILD_INFO.to_owned(), &[version], 1.0));
        samples
    }

    fn change(&self, metric: Metric, amount: f64) {
        if let Some(value) = self.values.get(&metric) {
            value.update(|old| old + amount);
        }
    }

    fn set_float(&self, metric: Metric, new: f64) {
        if let Some(value) = self.values.get(&metric) {
            value.update(|_| new);
        }
    }
}

/// Something under way that a gauge counts.
#[derive(Debug)]
pub struct Running<'a> {
    metrics: &'a Metrics,
    metric: Metric,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.metrics.decrement(self.metric);
    }
}

/// A number that changes as one: the bits of a float, of which all zero is 0.
#[derive(Debug, Default)]
struct Value(AtomicU64);

impl Value {
    fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }

    fn update(&self, change: impl Fn(f64) -> f64) {
        let mut old = self.0.load(Ordering::Relaxed);
        loop {
            let new = change(f64::from_bits(old)).to_bits();
            let exchange =
                self.0
                    .compare_exchange_weak(old, new, Ordering::Relaxed, Ordering::Relaxed);
            match exchange {
                Ok(_) => return,
                Err(found) => old = found,
            }
        }
    }
}

/// How many durations were how long.
#[derive(Debug, Default)]
struct Durations {
    buckets: [AtomicU64; BUCKETS.len()],
    sum: Value,
    count: AtomicU64,
}

impl Durations {
    fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        for ((bound, _), bucket) in BUCKETS.iter().zip(&self.buckets) {
            if seconds <= *bound {
                bucket.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.sum.update(|sum| sum + seconds);
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    fn samples(&self, name: &str, samples: &mut Vec<Sample>) {
        let count = float(self.count.load(Ordering::Relaxed));
        let bucket = |label: &str, value| sample(format!("{name}_bucket"), &[label], value);
        for ((_, label), value) in BUCKETS.iter().zip(&self.buckets) {
            samples.push(bucket(label, float(value.load(Ordering::Relaxed))));
        }
        samples.push(bucket("+Inf", count));
        samples.push(sample(format!("{name}_sum"), &[], self.sum.get()));
        samples.push(sample(format!("{name}_count"), &[], count));
    }
}

fn sample(name: String, labels: &[&str], value: f64) -> Sample {
    Sample {
        name,
        labels: labels.iter().map(|label| (*label).to_owned()).collect(),
        value,
    }
}

/// The nearest float: exact up to 2^53.
fn float(number: u64) -> f64 {
    let high = u32::try_from(number >> 32).unwrap_or(u32::MAX);
    let low = u32::try_from(number & u64::from(u32::MAX)).unwrap_or(u32::MAX);
    f64::from(high) * 4_294_967_296.0 + f64::from(low)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::definitions;

    #[test]
    fn every_sample_has_its_definition_and_every_definition_a_sample() {
        let metrics = Metrics::default();
        let samples = metrics.samples();
        let definitions = definitions();
        for sample in &samples {
            let found = definitions.iter().find(|one| one.name == sample.name);
            let labels = found.map(|one| one.labels.len());
            assert_eq!(labels, Some(sample.labels.len()), "{}", sample.name);
        }
        for definition in &definitions {
            let name = &definition.name;
            assert!(samples.iter().any(|one| one.name == *name), "{name}");
        }
    }

    #[test]
    fn values_are_those_that_were_counted() {
        let metrics = Metrics::default();
        let big = (1 << 52) + 1;
        metrics.add(Metric::WalArchiveRawBytes, big);
        metrics.increment(Metric::WalArchived);
        {
            let _running = metrics.running(Metric::WalArchiveRunning);
            assert!((metrics.value(Metric::WalArchiveRunning) - 1.0).abs() < 0.1);
        }
        let at = |seconds| DateTime::from_timestamp(seconds, 0).unwrap();
        metrics.advance_time(Metric::LastRecoverable, at(9));
        metrics.advance_time(Metric::LastRecoverable, at(7));
        metrics.set_time(Metric::FirstRecoverable, Some(at(5)));
        metrics.set_time(Metric::LastFailedBackup, None);
        for (metric, expected) in [
            (Metric::WalArchiveRawBytes, 4_503_599_627_370_497.0),
            (Metric::WalArchived, 1.0),
            (Metric::WalArchiveRunning, 0.0),
            (Metric::LastRecoverable, 9.0),
            (Metric::FirstRecoverable, 5.0),
            (Metric::LastFailedBackup, 0.0),
        ] {
            let value = metrics.value(metric);
            assert!((value - expected).abs() < 0.1, "{metric:?}: {value}");
        }
    }

    #[test]
    fn a_duration_counts_in_every_bucket_that_holds_it() {
        let metrics = Metrics::default();
        metrics.observe(Timing::WalArchive, Duration::from_millis(30));
        metrics.observe(Timing::WalArchive, Duration::from_mins(2));
        let samples = metrics.samples();
        let value = |name: &str, labels: &[&str]| {
            let name = format!("{}_{name}", Timing::WalArchive.name());
            let mut found = samples.iter().filter(|one| one.name == name);
            found.find(|one| one.labels == labels).unwrap().value
        };
        for (name, label, expected) in [
            ("bucket", Some("0.025"), 0.0),
            ("bucket", Some("0.05"), 1.0),
            ("bucket", Some("60"), 1.0),
            ("bucket", Some("+Inf"), 2.0),
            ("sum", None, 120.03),
            ("count", None, 2.0),
        ] {
            let labels: Vec<&str> = label.into_iter().collect();
            let found = value(name, &labels);
            assert!(
                (found - expected).abs() < 0.001,
                "{name} {label:?}: {found}"
            );
        }
    }
}
