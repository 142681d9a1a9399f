//! Who the plugin is and what this process serves. Answered from memory: it is asked with each
//! WAL file.

use cellarman::cnpgi::identity::identity_server::{Identity, IdentityServer};
use cellarman::cnpgi::identity::plugin_capability::service::Type as ServiceType;
use cellarman::cnpgi::identity::plugin_capability::{Service, Type};
use cellarman::cnpgi::identity::{
    GetPluginCapabilitiesRequest, GetPluginCapabilitiesResponse, GetPluginMetadataRequest,
    GetPluginMetadataResponse, PluginCapability, ProbeRequest, ProbeResponse,
};
use tonic::{Request, Response, Status};

/// The service of a plugin of this name that serves these services.
pub fn server(name: &str, services: &[ServiceType]) -> IdentityServer<impl Identity> {
    IdentityServer::new(Known {
        name: name.to_owned(),
        services: services.to_vec(),
    })
}

#[derive(Debug)]
struct Known {
    name: String,
    services: Vec<ServiceType>,
}

#[tonic::async_trait]
impl Identity for Known {
    async fn get_plugin_metadata(
        &self,
        _: Request<GetPluginMetadataRequest>,
    ) -> Result<Response<GetPluginMetadataResponse>, Status> {
        Ok(Response::new(GetPluginMetadataResponse {
            name: self.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            display_name: "BarmanCloudInstance".to_owned(),
            description: env!("CARGO_PKG_DESCRIPTION").to_owned(),
            license: "APACHE 2.0".to_owned(),
            license_url: "https://www.apache.org/licenses/LICENSE-2.0".to_owned(),
            maturity: "alpha".to_owned(),
            vendor: "Cellarman".to_owned(),
            ..GetPluginMetadataResponse::default()
        }))
    }

    async fn get_plugin_capabilities(
        &self,
        _: Request<GetPluginCapabilitiesRequest>,
    ) -> Result<Response<GetPluginCapabilitiesResponse>, Status> {
        let capability = |service: &ServiceType| PluginCapability {
            r#type: Some(Type::Service(Service {
                r#type: (*service).into(),
            })),
        };
        Ok(Response::new(GetPluginCapabilitiesResponse {
            capabilities: self.services.iter().map(capability).collect(),
        }))
    }

    async fn probe(&self, _: Request<ProbeRequest>) -> Result<Response<ProbeResponse>, Status> {
        Ok(Response::new(ProbeResponse { ready: true }))
    }
}
