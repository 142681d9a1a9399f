//! The service Metrics: the table of all metrics, and their values out of memory.
//!
//! Nothing is fetched for a scrape. Not here: who counts, and what is looked at now and then
//! ([`crate::instance::observer`]).

use std::collections::HashMap;
use std::sync::Arc;

use cellarman::cnpgi::metrics as wire;
use cellarman::cnpgi::metrics::metric_type::Type as WireType;
use cellarman::cnpgi::metrics::metrics_capability::rpc::Type as RpcType;
use cellarman::cnpgi::metrics::metrics_capability::{self, Rpc};
use cellarman::cnpgi::metrics::metrics_server::{self, MetricsServer};
use cellarman::metrics::{MetricType, Metrics, definitions};
use tonic::{Request, Response, Status};

use crate::instance::Context;

/// The service.
pub fn server(context: &Context) -> MetricsServer<impl metrics_server::Metrics> {
    MetricsServer::new(MetricsService {
        metrics: Arc::clone(&context.metrics),
    })
}

#[derive(Debug)]
struct MetricsService {
    metrics: Arc<Metrics>,
}

#[tonic::async_trait]
impl metrics_server::Metrics for MetricsService {
    async fn get_capabilities(
        &self,
        _request: Request<wire::MetricsCapabilitiesRequest>,
    ) -> Result<Response<wire::MetricsCapabilitiesResult>, Status> {
        let rpc = Rpc {
            r#type: RpcType::Metrics.into(),
        };
        let capability = wire::MetricsCapability {
            r#type: Some(metrics_capability::Type::Rpc(rpc)),
        };
        Ok(Response::new(wire::MetricsCapabilitiesResult {
            capabilities: vec![capability],
        }))
    }

    async fn define(
        &self,
        _request: Request<wire::DefineMetricsRequest>,
    ) -> Result<Response<wire::DefineMetricsResult>, Status> {
        let metrics = definitions().into_iter().map(|definition| {
            let value_type = match definition.metric_type {
                MetricType::Counter => WireType::Counter,
                MetricType::Gauge => WireType::Gauge,
            };
            let labels = definition.labels.iter();
            wire::Metric {
                fq_name: definition.name,
                help: definition.help.to_owned(),
                variable_labels: labels.map(|label| (*label).to_owned()).collect(),
                const_labels: HashMap::default(),
                value_type: Some(wire::MetricType {
                    r#type: value_type.into(),
                }),
            }
        });
        Ok(Response::new(wire::DefineMetricsResult {
            metrics: metrics.collect(),
        }))
    }

    async fn collect(
        &self,
        _request: Request<wire::CollectMetricsRequest>,
    ) -> Result<Response<wire::CollectMetricsResult>, Status> {
        let samples = self.metrics.samples().into_iter();
        let metrics = samples.map(|sample| wire::CollectMetric {
            value: sample.value,
            fq_name: sample.name,
            variable_labels: sample.labels,
        });
        Ok(Response::new(wire::CollectMetricsResult {
            metrics: metrics.collect(),
        }))
    }
}
