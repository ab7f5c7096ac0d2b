//! `flagd.evaluation`, v1 and v2: the same calls, where v2 has values that may be absent.

use std::{collections::VecDeque, pin::Pin, sync::Arc};

use futures_util::{Stream, StreamExt as _, stream};
use prost_types::Struct;
use tonic::{Request, Response, Status, metadata::MetadataMap};

use super::{
    Flagd, context, flags,
    pb::evaluation::{v1, v2},
    stopping,
};
use crate::{
    domain::traffic::Traffic,
    traffic::{Change, Changes, Lagged, Table},
    wire::grpc::KEEP_ALIVE,
};

/// Most flags that one message names; providers take messages of 4 MiB.
const FLAGS_AT_ONCE: usize = 10_000;

/// Evaluates the flag of a request, and answers with the value made of it.
macro_rules! resolve {
    ($self:ident, $request:ident, $version:ident::$response:ident, |$answer:ident| $value:expr) => {{
        let message = $request.get_ref();
        let context = $self.context($request.metadata(), message.context.as_ref())?;
        let $answer = $self.evaluate(&message.flag_key, &context)?;
        let value = $value.into();
        Ok(Response::new($version::$response {
            value,
            reason: $answer.reason,
            variant: $answer.variant.into(),
            metadata: Some($answer.metadata),
        }))
    }};
}

/// The service of a version of the protocol, and what only that version has.
macro_rules! service {
    ($version:ident { $($only:tt)* }) => {
        #[tonic::async_trait]
        impl $version::service_server::Service for Flagd {
            async fn resolve_boolean(
                &self,
                request: Request<$version::ResolveBooleanRequest>,
            ) -> Result<Response<$version::ResolveBooleanResponse>, Status> {
                let message = request.get_ref();
                let context = self.context(request.metadata(), message.context.as_ref())?;
                self.evaluate(&message.flag_key, &context)?;
                Err(flags::no_boolean())
            }

            async fn resolve_string(
                &self,
                request: Request<$version::ResolveStringRequest>,
            ) -> Result<Response<$version::ResolveStringResponse>, Status> {
                resolve!(self, request, $version::ResolveStringResponse, |answer| answer.version.to_string())
            }

            async fn resolve_float(
                &self,
                request: Request<$version::ResolveFloatRequest>,
            ) -> Result<Response<$version::ResolveFloatResponse>, Status> {
                resolve!(self, request, $version::ResolveFloatResponse, |answer| f64::from(answer.version))
            }

            async fn resolve_int(
                &self,
                request: Request<$version::ResolveIntRequest>,
            ) -> Result<Response<$version::ResolveIntResponse>, Status> {
                resolve!(self, request, $version::ResolveIntResponse, |answer| i64::from(answer.version))
            }

            async fn resolve_object(
                &self,
                request: Request<$version::ResolveObjectRequest>,
            ) -> Result<Response<$version::ResolveObjectResponse>, Status> {
                resolve!(self, request, $version::ResolveObjectResponse, |answer| answer.object)
            }

            type EventStreamStream =
                Pin<Box<dyn Stream<Item = Result<$version::EventStreamResponse, Status>> + Send>>;

            async fn event_stream(
                &self,
                request: Request<$version::EventStreamRequest>,
            ) -> Result<Response<Self::EventStreamStream>, Status> {
                let message = |event: Event| $version::EventStreamResponse {
                    r#type: event.name.to_owned(),
                    data: event.data,
                };
                let events = self.events(request.metadata())?;
                Ok(Response::new(Box::pin(events.map(move |event| event.map(message)))))
            }

            $($only)*
        }
    };
}

service!(v2 {});
service!(v1 {
    async fn resolve_all(
        &self,
        request: Request<v1::ResolveAllRequest>,
    ) -> Result<Response<v1::ResolveAllResponse>, Status> {
        let context = self.context(request.metadata(), request.get_ref().context.as_ref())?;
        let answers = self.evaluate_all(&context)?;
        let flag = |answer: flags::Answer| v1::AnyFlag {
            reason: answer.reason,
            variant: answer.variant,
            value: Some(v1::any_flag::Value::DoubleValue(answer.version.into())),
            metadata: Some(answer.metadata),
        };
        Ok(Response::new(v1::ResolveAllResponse {
            flags: answers.into_iter().map(|(key, answer)| (key, flag(answer))).collect(),
            metadata: Some(Struct::default()),
        }))
    }
});

/// A message of `EventStream`.
struct Event {
    name: &'static str,
    data: Option<Struct>,
}

/// A provider that is told what changes.
struct Events {
    table: Table,
    environment: Option<String>,
    changes: Changes,
    /// What it is told first; none once that was begun.
    first: Option<VecDeque<Event>>,
}

impl Flagd {
    /// What changes in the environment that the selector names. Without a selector, what changes
    /// anywhere: the provider of JavaScript sends its selector only when it evaluates, and it must
    /// not keep a value because it has not heard.
    fn events(
        &self,
        metadata: &MetadataMap,
    ) -> Result<impl Stream<Item = Result<Event, Status>> + Send + use<>, Status> {
        let environment = context::selected(metadata, "")?;
        let environment = environment.map(|environment| environment.to_string());
        let table = self.service.traffic().clone();
        let events = Events {
            changes: table.changes(environment.clone()),
            environment,
            table,
            first: None,
        };
        Ok(stream::unfold(Some(events), |events| async {
            let mut events = events?;
            let event = events.next().await;
            let goes_on = event.is_ok();
            Some((event, goes_on.then_some(events)))
        }))
    }
}

impl Events {
    async fn next(&mut self) -> Result<Event, Status> {
        if self.first.is_none() {
            self.first = Some(self.begin());
        }
        if let Some(event) = self.first.as_mut().and_then(VecDeque::pop_front) {
            return Ok(event);
        }
        match tokio::time::timeout(KEEP_ALIVE, self.change()).await {
            Ok(change) => Ok(Event::change(change?.traffic.iter())),
            Err(_) => Ok(Event {
                name: "keep_alive",
                data: None,
            }),
        }
    }

    /// That the provider may begin; and then every flag there is, as if it had changed: it may have
    /// kept a value, or keep one before it is told of anything, that has changed while it was not
    /// listening.
    fn begin(&mut self) -> VecDeque<Event> {
        let ready = Event {
            name: "provider_ready",
            data: None,
        };
        let snapshot = self.table.snapshot();
        self.changes.takes(&snapshot);
        let environments = snapshot.environments().filter(|(name, _)| {
            let mine = self.environment.as_ref();
            mine.is_none_or(|mine| mine == *name)
        });
        let flags: Vec<_> = environments
            .flat_map(|(_, environment)| environment.prompts.values())
            .collect();
        let flags = flags
            .chunks(FLAGS_AT_ONCE)
            .map(|flags| Event::change(flags.iter().copied()));
        std::iter::once(ready).chain(flags).collect()
    }

    async fn change(&mut self) -> Result<Arc<Change>, Status> {
        loop {
            match self.changes.next().await {
                Some(Ok(change)) if change.traffic.is_empty() => {}
                Some(Ok(change)) => return Ok(change),
                // It is told of all flags when it connects again.
                Some(Err(Lagged)) => {
                    return Err(Status::unavailable(
                        "more has changed than could be told; connect again",
                    ));
                }
                None => return Err(stopping()),
            }
        }
    }
}

impl Event {
    fn change<'t>(traffic: impl Iterator<Item = &'t Arc<Traffic>>) -> Self {
        Self {
            name: "configuration_change",
            data: Some(flags::changed(traffic)),
        }
    }
}
