//! OTLP over gRPC.

use opentelemetry_proto::tonic::collector::{
    logs::v1::{
        ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
        logs_service_server::{LogsService, LogsServiceServer},
    },
    trace::v1::{
        ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
};
use tonic::{Request, Response, Status, codec::CompressionEncoding::Gzip};

use super::{BODY_MAX, Otlp, Refused};
use crate::wire::error::status;

impl Otlp {
    /// The service that takes spans.
    pub(in crate::wire) fn trace_service(self) -> TraceServiceServer<Self> {
        TraceServiceServer::new(self)
            .accept_compressed(Gzip)
            .max_decoding_message_size(BODY_MAX)
    }

    /// The service that takes log records.
    pub(in crate::wire) fn logs_service(self) -> LogsServiceServer<Self> {
        LogsServiceServer::new(self)
            .accept_compressed(Gzip)
            .max_decoding_message_size(BODY_MAX)
    }
}

#[tonic::async_trait]
impl TraceService for Otlp {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let refused = self.traces(request.get_ref()).await;
        let refused = refused.map_err(|error| status(&error))?;
        Ok(Response::new(of_spans(refused)))
    }
}

#[tonic::async_trait]
impl LogsService for Otlp {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        let refused = self.logs(request.get_ref()).await;
        let refused = refused.map_err(|error| status(&error))?;
        Ok(Response::new(of_log_records(refused)))
    }
}

/// What is answered where spans were sent.
pub(super) fn of_spans(refused: Option<Refused>) -> ExportTraceServiceResponse {
    ExportTraceServiceResponse {
        partial_success: refused.map(|refused| ExportTracePartialSuccess {
            rejected_spans: refused.count,
            error_message: refused.message,
        }),
    }
}

/// What is answered where log records were sent.
pub(super) fn of_log_records(refused: Option<Refused>) -> ExportLogsServiceResponse {
    ExportLogsServiceResponse {
        partial_success: refused.map(|refused| ExportLogsPartialSuccess {
            rejected_log_records: refused.count,
            error_message: refused.message,
        }),
    }
}
