//! The documented command lines, run by grpcurl itself against the running service.

use std::process::{Command, Output};

use serde_json::Value;

use crate::harness::{Storage, binary::Binary, settings};

const SERVICE: &str = "delos.deploy.v1.DeployService";

// What the documentation gives to `-d`, call by call.
const CREATE: &str = r#"{
  "prompt_id": "prompt-abc123",
  "to_version": 5,
  "environment": "production",
  "strategy": {
    "type": "DEPLOYMENT_TYPE_GRADUAL",
    "initial_percentage": 10,
    "increment": 20,
    "interval_seconds": 300,
    "auto_rollback": true,
    "rollback_threshold": 0.75
  },
  "skip_approval": false
}"#;

const APPROVE: &str = r#"{
  "id": "deployment-xyz",
  "comment": "Approved after review"
}"#;

const CREATE_GATE: &str = r#"{
  "name": "Prod Gate",
  "prompt_id": "prompt-abc123",
  "required": true,
  "conditions": [
    {
      "type": "eval_score",
      "operator": "gte",
      "threshold": 0.9,
      "dataset_id": "golden-set"
    }
  ]
}"#;

const STATUS: &str = r#"{
  "id": "deployment-xyz"
}"#;

const ROLLBACK: &str = r#"{
  "id": "deployment-xyz",
  "reason": "Quality regression detected"
}"#;

const LIST: &str = r#"{
  "prompt_id": "prompt-abc123",
  "environment": "production",
  "limit": 10
}"#;

fn grpcurl(arguments: &[&str]) -> Output {
    let program = std::env::var_os("GRPCURL").unwrap_or_else(|| "grpcurl".into());
    Command::new(&program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| {
            panic!(
                "{} can't be run ({error}): install it by scripts/install-test-dependencies, or \
                 say in GRPCURL where it is",
                program.display()
            )
        })
}

#[track_caller]
fn done(output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

async fn start() -> (Binary, tempfile::TempDir) {
    let files = tempfile::tempdir().unwrap();
    let binary = Binary::start(&settings(Storage::Memory, files.path()).await);
    (binary, files)
}

/// `grpcurl -plaintext -d MESSAGE localhost:9005 delos.deploy.v1.DeployService/CALL`
fn call(binary: &Binary, call: &str, message: &str) -> Output {
    let method = format!("{SERVICE}/{call}");
    let port = binary.address.rsplit(':').next().unwrap();
    let address = format!("localhost:{port}");
    grpcurl(&["-plaintext", "-d", message, &address, &method])
}

fn answer(binary: &Binary, name: &str, message: &str) -> Value {
    serde_json::from_str(&done(&call(binary, name, message))).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_command_lines_work() {
    let (binary, _files) = start().await;
    let created = answer(&binary, "CreateDeployment", CREATE);
    let deployment = &created["deployment"];
    assert_eq!(deployment["status"], "DEPLOYMENT_STATUS_PENDING_APPROVAL");
    assert_eq!(deployment["strategy"]["rollbackThreshold"], 0.75);
    let id = deployment["id"].as_str().unwrap();

    let approved = answer(
        &binary,
        "ApproveDeployment",
        &APPROVE.replace("deployment-xyz", id),
    );
    let status = &approved["deployment"]["status"];
    assert_eq!(status, "DEPLOYMENT_STATUS_IN_PROGRESS");

    let gate = answer(&binary, "CreateQualityGate", CREATE_GATE);
    assert_eq!(
        gate["qualityGate"]["conditions"][0]["datasetId"],
        "golden-set"
    );

    let status = answer(
        &binary,
        "GetDeploymentStatus",
        &STATUS.replace("deployment-xyz", id),
    );
    assert_eq!(status["status"], "DEPLOYMENT_STATUS_IN_PROGRESS");
    assert_eq!(status["rollout"]["currentPercentage"], 10);

    let rolled_back = answer(
        &binary,
        "RollbackDeployment",
        &ROLLBACK.replace("deployment-xyz", id),
    );
    let status = &rolled_back["deployment"]["status"];
    assert_eq!(status, "DEPLOYMENT_STATUS_ROLLED_BACK");

    let listed = answer(&binary, "ListDeployments", LIST);
    assert_eq!(listed["totalCount"], 1);
    assert_eq!(listed["deployments"][0]["id"], id);

    let health = done(&grpcurl(&[
        "-plaintext",
        &binary.address,
        &format!("{SERVICE}/Health"),
    ]));
    assert!(health.contains("healthy"), "{health}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_shown_with_its_details() {
    let (binary, _files) = start().await;
    let refused = call(
        &binary,
        "CreateDeployment",
        r#"{"prompt_id": "a b", "to_version": -1}"#,
    );
    assert!(!refused.status.success());
    let said = String::from_utf8(refused.stderr).unwrap();
    for expected in [
        "InvalidArgument",
        "prompt_id",
        "to_version",
        "environment",
        "INVALID_REQUEST",
    ] {
        assert!(said.contains(expected), "{expected} in {said}");
    }
    let refused = call(
        &binary,
        "ApproveDeployment",
        r#"{"id": "deployment-xyz", "comment": "Approved after review"}"#,
    );
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(
        said.contains("NotFound") && said.contains("deployment-xyz"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_describes_itself() {
    let (binary, _files) = start().await;
    let run = |arguments: &[&str]| {
        done(&grpcurl(
            &[&["-plaintext", &binary.address], arguments].concat(),
        ))
    };
    let listed = run(&["list"]);
    for service in [
        SERVICE,
        "delos.deploy.v1.AuditService",
        "delos.deploy.v1.TelemetryService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    ] {
        assert!(listed.lines().any(|line| line == service), "{listed}");
    }
    let methods = run(&["list", SERVICE]);
    assert_eq!(methods.lines().count(), 12, "{methods}");
    let service = run(&["describe", SERVICE]);
    assert!(service.contains("rpc CreateDeployment"), "{service}");
    let message = run(&["describe", "delos.deploy.v1.Deployment"]);
    assert!(
        message.contains("map<string, string> metadata = 17;"),
        "{message}"
    );
    let health = run(&["grpc.health.v1.Health/Check"]);
    assert!(health.contains("SERVING"), "{health}");
    let arguments = [
        "-plaintext",
        "-d",
        r#"{"service": "delos.deploy.v1.DeployService"}"#,
        &binary.address,
        "grpc.health.v1.Health/Check",
    ];
    assert!(done(&grpcurl(&arguments)).contains("SERVING"));
}

macro_rules! reflects {
    ($name:ident, $version:ident) => {
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            use tonic_reflection::pb::$version::{
                ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
                server_reflection_request::MessageRequest,
                server_reflection_response::MessageResponse,
            };

            let app = crate::harness::App::start(Storage::Memory).await;
            let mut client = ServerReflectionClient::new(app.channel().await);
            let ask = [
                MessageRequest::ListServices(String::new()),
                MessageRequest::FileContainingSymbol(SERVICE.into()),
            ]
            .map(|request| ServerReflectionRequest {
                host: String::new(),
                message_request: Some(request),
            });
            let answers = client
                .server_reflection_info(futures_util::stream::iter(ask))
                .await
                .unwrap();
            let mut answers = answers.into_inner();
            let mut next = async || answers.message().await.unwrap().unwrap().message_response;
            let Some(MessageResponse::ListServicesResponse(services)) = next().await else {
                panic!("no list of services");
            };
            assert!(
                services
                    .service
                    .iter()
                    .any(|service| service.name == SERVICE)
            );
            let Some(MessageResponse::FileDescriptorResponse(files)) = next().await else {
                panic!("no file");
            };
            assert!(!files.file_descriptor_proto.is_empty());
            app.finish().await;
        }
    };
}

reflects!(reflection_is_served_as_new_clients_ask_for_it, v1);
reflects!(reflection_is_served_as_old_clients_ask_for_it, v1alpha);
