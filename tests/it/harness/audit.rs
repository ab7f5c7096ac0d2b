//! Holds the audit trail against the machine: one legal path for each deployment, without gap or
//! double.

use delos_deploy::{
    domain::state::{Status, Verb, next},
    wire::pb::{DeploymentStatus, Event, ListDeploymentsRequest, ListEventsRequest},
};

use super::App;

/// Checks every deployment of a service.
pub(crate) async fn check_all(app: &App) {
    let mut deploy = app.deploy().await;
    let mut audit = app.audit().await;
    let request = ListDeploymentsRequest {
        limit: 1000,
        ..Default::default()
    };
    let page = deploy.list_deployments(request).await.unwrap().into_inner();
    for deployment in page.deployments {
        let events = events(&mut audit, &deployment.id).await;
        check(&events, status(deployment.status));
    }
}

/// All events of a deployment, page by page.
pub(crate) async fn events(
    audit: &mut delos_deploy::wire::pb::audit_service_client::AuditServiceClient<
        tonic::transport::Channel,
    >,
    deployment_id: &str,
) -> Vec<Event> {
    let mut events = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListEventsRequest {
            deployment_id: deployment_id.into(),
            page_size: 7,
            page_token,
            ..Default::default()
        };
        let page = audit.list_events(request).await.unwrap().into_inner();
        events.extend(page.events);
        if page.next_page_token.is_empty() {
            return events;
        }
        page_token = page.next_page_token;
    }
}

/// Panics where the events are not one legal path that ends in `ends_in`.
pub(crate) fn check(events: &[Event], ends_in: Option<Status>) {
    let mut at = None;
    let mut before = None;
    for (event, number) in events.iter().zip(1..) {
        assert_eq!(event.sequence, number, "a gap or a double: {events:#?}");
        let (from, to) = (status(event.from_status), status(event.to_status));
        assert_eq!(from, at, "a step is missing before {event:?}");
        if event.details.contains_key("refused") {
            assert_eq!(from, to, "a refusal changed something: {event:?}");
        } else if event.action != "create" {
            let verb = Verb::ALL
                .into_iter()
                .find(|verb| name(*verb) == event.action)
                .unwrap();
            assert_eq!(
                from.and_then(|from| next(from, verb)),
                to,
                "not a transition of the machine: {event:?}"
            );
        }
        let time = event.at.unwrap();
        let now = (time.seconds, time.nanos);
        assert!(before <= Some(now), "time runs backwards: {event:?}");
        before = Some(now);
        at = to;
    }
    assert_eq!(at, ends_in, "the trail ends elsewhere: {events:#?}");
}

fn name(verb: Verb) -> &'static str {
    delos_deploy::domain::audit::Action::Verb(verb).as_str()
}

fn status(number: i32) -> Option<Status> {
    Status::ALL
        .into_iter()
        .find(|status| DeploymentStatus::from(*status) as i32 == number)
}
