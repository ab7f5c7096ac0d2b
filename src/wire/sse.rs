//! The schema of Server-Sent Events.

use std::{borrow::Cow, marker::PhantomData};

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, Ref, RefOr, Schema, Type},
};

/// An event whose data is `T` as JSON: what each event of a stream is, once its lines are read.
/// (`OpenAPI` 3.1 describes a stream by one of its events.)
pub(super) struct EventOf<T>(PhantomData<T>);

impl<T: ToSchema> PartialSchema for EventOf<T> {
    fn schema() -> RefOr<Schema> {
        let text = || ObjectBuilder::new().schema_type(Type::String);
        let mut data = text().content_media_type("application/json").build();
        data.content_schema = Some(Box::new(Ref::from_schema_name(T::name()).into()));
        ObjectBuilder::new()
            .schema_type(Type::Object)
            .description(Some("A Server-Sent Event."))
            .property("event", text())
            .property("id", text())
            .property("data", data)
            .required("data")
            .into()
    }
}

impl<T: ToSchema> ToSchema for EventOf<T> {
    fn name() -> Cow<'static, str> {
        format!("EventOf{}", T::name()).into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((T::name().into_owned(), T::schema()));
        T::schemas(schemas);
    }
}
