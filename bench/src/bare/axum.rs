//! axum's own server with handlers that do nothing but write the same JSON as the service does.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use axum::{
    Json, Router,
    extract::State,
    response::{IntoResponse as _, Response},
    routing::{get, post},
    serve::ListenerExt as _,
};
use delos_deploy::wire::pb::ResolveVersionResponse;
use tokio::net::TcpListener;

use crate::{
    Failure,
    calls::{
        ofrep::{self, Evaluation, EvaluationRequest},
        traffic,
    },
};

/// Serves until the process is killed.
pub(crate) async fn serve(port: u16) -> Result<(), Failure> {
    let rest = Router::new()
        .route(
            "/v1/environments/{environment}/prompts/{prompt_id}/version",
            get(resolve),
        )
        .with_state(Arc::new(traffic::example()));
    let ofrep = Router::new()
        .route("/ofrep/v1/evaluate/flags/{key}", post(evaluate))
        .with_state(Arc::new(ofrep::example()));
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?;
    let listener = listener.tap_io(|stream| {
        // As the service does; what can't be set costs only time.
        let _ = stream.set_nodelay(true);
    });
    axum::serve(listener, rest.merge(ofrep)).await?;
    Ok(())
}

/// Looks at nothing of the request.
async fn resolve(State(answer): State<Arc<ResolveVersionResponse>>) -> Response {
    Json(&*answer).into_response()
}

/// Reads the request and looks at nothing of it.
async fn evaluate(
    State(answer): State<Arc<Evaluation>>,
    Json(_): Json<EvaluationRequest>,
) -> Response {
    Json(&*answer).into_response()
}
