//! What a webhook is asked: a CloudEvent, the same each time that it is asked for a condition.

use bytes::Bytes;
use serde_json::json;
use uuid::Uuid;

use crate::domain::{deployment::Deployment, gate::Condition, judgement::GateResult};

/// Names us among those who send CloudEvents.
const SOURCE: &str = "urn:delos:deploy";
/// Names the question among all that could be asked.
const TYPE: &str = "delos.deploy.gate_condition.asked.v1";

/// A question for one condition of a gate of a deployment.
#[derive(Debug, Clone)]
pub struct Question {
    /// The same each time that it is asked, by whichever replica: whoever takes it twice can tell.
    pub(super) id: String,
    pub(super) body: Bytes,
}

impl Question {
    /// The question for the condition of an index.
    #[must_use]
    pub fn new(
        deployment: &Deployment,
        gate: &GateResult,
        index: usize,
        condition: &Condition,
    ) -> Self {
        let (deployment_id, gate_id) = (deployment.id, gate.gate_id);
        let id = id(deployment_id, gate_id, index);
        let deadline = deployment.gates_due_at;
        let deadline = deadline.map(|at| at.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true));
        let body = json!({
            "specversion": "1.0",
            "id": id,
            "source": SOURCE,
            "type": TYPE,
            "subject": format!("deployments/{deployment_id}"),
            "datacontenttype": "application/json",
            "data": {
                "deployment_id": deployment_id,
                "prompt_id": deployment.prompt_id.as_str(),
                "environment": deployment.environment.as_str(),
                "from_version": deployment.from_version,
                "to_version": deployment.to_version,
                "gate_id": gate_id,
                "gate_name": gate.gate_name,
                "condition_index": index,
                "operator": condition.operator.as_str(),
                "threshold": condition.threshold,
                "deadline": deadline,
                "report_path": format!("/v1/deployments/{deployment_id}/gates/{gate_id}/conditions/{index}"),
            },
        });
        Self {
            id,
            body: body.to_string().into(),
        }
    }
}

/// Without a full stop, which separates it from the time in what is signed.
fn id(deployment: Uuid, gate: Uuid, index: usize) -> String {
    format!("{}-{}-{index}", deployment.simple(), gate.simple())
}
