//! Every metric in one table: name, unit, type, labels, help; and what counts them in memory.
//!
//! Names and units follow Prometheus: base units in the name, `_total` on counters. Durations are
//! counters `…_seconds_bucket{le}`, `…_seconds_sum` and `…_seconds_count`, since the protocol
//! of the plugins knows no histograms. Not here: reading anything, and how samples travel.

mod recorder;
mod table;

pub use crate::metrics::recorder::{Metrics, Sample};
pub use crate::metrics::table::{
    BUCKETS, BUILD_INFO, Definition, Metric, MetricType, Timing, Unit, definitions,
};
