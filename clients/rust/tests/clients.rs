//! OpenFeature's Rust SDK with its providers, as published: who gets the new version, and who serves on when the
//! service is stopped and started again. All of them hash as the service does, or ask it. The SDK has no change events:
//! what a client answers is how a change shows.

use delos_deploy_rust_clients::{Service, until};
use open_feature::provider::FeatureProvider;
use open_feature::{
    Client, EvaluationContext, EvaluationDetails, EvaluationErrorCode, EvaluationReason,
    EvaluationResult, FlagMetadataValue, OpenFeature,
};
use open_feature_flagd::{CacheSettings, CacheType, FlagdOptions, FlagdProvider, ResolverType};
use open_feature_ofrep::{OfrepOptions, OfrepProvider};

const PROMPT: &str = "greeting";

/// What an application asks.
struct Asked(Client);

impl Asked {
    async fn new(provider: impl FeatureProvider) -> Self {
        let mut api = OpenFeature::default();
        api.set_provider(provider).await;
        Self(api.create_client())
    }

    async fn details(&self, key: &str) -> EvaluationResult<EvaluationDetails<i64>> {
        let context = EvaluationContext::default().with_targeting_key(key);
        self.0.get_int_details(PROMPT, Some(&context), None).await
    }

    async fn version(&self, key: &str) -> Option<i64> {
        Some(self.details(key).await.ok()?.value)
    }

    /// What the client and the service say of a key, of one and the same split: between the answers the rollout may
    /// have made a step, and the OFREP provider drops the revision.
    async fn both(&self, service: &Service, key: &str) -> (EvaluationDetails<i64>, i64) {
        loop {
            let (_, before) = service.version(PROMPT, key).await;
            let theirs = self.details(key).await.expect("a version");
            let (ours, after) = service.version(PROMPT, key).await;
            let decided_by = match theirs.flag_metadata.values.get("revision") {
                Some(FlagMetadataValue::Int(revision)) => *revision,
                Some(FlagMetadataValue::Float(revision)) => *revision as i64,
                _ => after,
            };
            if (before, decided_by) == (after, after) {
                return (theirs, ours);
            }
        }
    }
}

/// Compares a client with the service in a rollout, stops the service, starts it again, and changes what it serves.
async fn follows(mut service: Service, asked: Asked, reason: EvaluationReason, kept: Option<i64>) {
    let rollout = service.roll_out(PROMPT, 2).await;
    let mut early = Vec::new();
    for number in 0..1000 {
        let key = format!("user-{number}");
        let (theirs, ours) = asked.both(&service, &key).await;
        assert_eq!(theirs.value, ours, "{key}");
        assert_eq!(theirs.variant, Some(format!("v{ours}")));
        assert_eq!(theirs.reason.as_ref(), Some(&reason));
        if ours == 2 {
            early.push(key);
        }
    }
    // 30 % or more, less four standard deviations.
    assert!(
        (240..1000).contains(&early.len()),
        "{} keys have version 2",
        early.len()
    );

    let serves = async |version| asked.version(&early[0]).await == Some(version);
    service.terminate();
    assert_eq!(asked.version(&early[0]).await, kept);
    service.start().await;
    until("the client is answered again", async || serves(2).await).await;
    for key in &early {
        let (theirs, ours) = asked.both(&service, key).await;
        assert_eq!(theirs.value, ours, "{key}");
    }
    service.roll_back(&rollout).await;
    until("the client serves version 1", async || serves(1).await).await;

    service.kill();
    service.start().await;
    service.serve(PROMPT, 3).await;
    until("the client serves version 3", async || serves(3).await).await;
}

/// What can't be evaluated is an error of this kind, for the application to have a default for.
async fn is_refused(asked: &Asked, flag: &str, code: EvaluationErrorCode) {
    let refused = asked.0.get_int_value(flag, None, None).await;
    assert_eq!(refused.expect_err("no version").code, code, "{flag}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ofrep() {
    let service = Service::create().await;
    service.serve(PROMPT, 1).await;
    let options = OfrepOptions {
        base_url: service.url(),
        ..OfrepOptions::default()
    };
    let asked = Asked::new(OfrepProvider::new(options).await.expect("a provider")).await;
    is_refused(&asked, "unknown", EvaluationErrorCode::FlagNotFound).await;
    // This provider says so whatever the service does.
    follows(service, asked, EvaluationReason::Static, None).await;
}

/// A flagd provider that keeps no answers. Its cache holds what is static for a minute, as no event tells it to let go.
async fn flagd(service: &Service, resolver_type: ResolverType) -> Asked {
    service.serve(PROMPT, 1).await;
    let options = FlagdOptions {
        host: "127.0.0.1".to_owned(),
        port: service.port,
        resolver_type,
        selector: Some("flagSetId=production".to_owned()),
        deadline_ms: 10_000,
        retry_backoff_ms: 100,
        retry_backoff_max_ms: 200,
        cache_settings: Some(CacheSettings {
            cache_type: CacheType::Disabled,
            ..CacheSettings::default()
        }),
        ..FlagdOptions::default()
    };
    Asked::new(FlagdProvider::new(options).await.expect("a provider")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn flagd_rpc() {
    let service = Service::create().await;
    let asked = flagd(&service, ResolverType::Rpc).await;
    is_refused(&asked, "unknown", EvaluationErrorCode::FlagNotFound).await;
    let split = EvaluationReason::Other("SPLIT".to_owned());
    follows(service, asked, split, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flagd_in_process() {
    let service = Service::create().await;
    let asked = flagd(&service, ResolverType::InProcess).await;
    is_refused(&asked, "unknown", EvaluationErrorCode::FlagNotFound).await;
    // It serves on what it has.
    follows(service, asked, EvaluationReason::TargetingMatch, Some(2)).await;
}
