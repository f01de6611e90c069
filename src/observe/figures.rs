//! Percentiles of the last minute.

use super::snapshot::Figures;
use crate::pipeline::Distribution;

impl Figures {
    /// The figures of a distribution: all of it, and the part since `earlier`.
    pub(super) fn of(all: &Distribution, earlier: &Distribution) -> Self {
        let recent = all.since(earlier);
        Self {
            all: all.clone(),
            recent_count: recent.count(),
            mean: recent.mean(),
            p50: recent.quantile(0.5),
            p90: recent.quantile(0.9),
            p99: recent.quantile(0.99),
        }
    }
}
