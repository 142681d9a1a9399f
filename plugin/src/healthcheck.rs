//! `healthcheck unix`: asks a sidecar through its socket, and says the answer as an exit code.
//!
//! The codes are the reference's. Not here: the answering side (`grpc::health`).

use std::path::Path;
use std::time::Duration;

use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tracing::error;

/// How long an answer may take: the startup probe waits for 5 s.
const TIMEOUT: Duration = Duration::from_secs(4);

/// Asks; 0 when it serves, 2 when that is unknown, 3 when it does not, 1 when nobody answers.
pub async fn unix(socket: &Path) -> u8 {
    match ask(socket).await {
        Ok(ServingStatus::Serving) => 0,
        Ok(ServingStatus::Unknown) => 2,
        Ok(ServingStatus::NotServing) => 3,
        Ok(ServingStatus::ServiceUnknown) => 125,
        Err(error) => {
            error!(socket = %socket.display(), error = %error, "the sidecar does not answer");
            1
        }
    }
}

async fn ask(socket: &Path) -> Result<ServingStatus, String> {
    let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()))
        .map_err(|error| cellarman::fault::chain(&error))?;
    let channel = endpoint
        .connect_timeout(TIMEOUT)
        .timeout(TIMEOUT)
        .connect()
        .await
        .map_err(|error| cellarman::fault::chain(&error))?;
    let request = HealthCheckRequest::default();
    let response = HealthClient::new(channel).check(request).await;
    let response = response.map_err(|status| status.message().to_owned())?;
    Ok(response.into_inner().status())
}
