//! Who asks, and for which environment.

use prost_types::{Struct, value::Kind};
use tonic::{Status, metadata::MetadataMap};

use super::Flagd;
use crate::domain::ids::Environment;

/// The header in which providers name a flag set.
const SELECTOR: &str = "flagd-selector";
/// The one key of a selector that is understood.
const FLAG_SET: &str = "flagSetId";

/// Who asks, for what environment.
pub(super) struct Context {
    /// The environment.
    pub(super) environment: String,
    /// Whether it is named by an attribute, which may differ from request to request.
    pub(super) is_named_by_attribute: bool,
    /// Who is served; empty for nobody in particular.
    pub(super) targeting_key: String,
    /// Whether the version that is being rolled out is asked for.
    pub(super) preview: bool,
}

/// The environment that a selector names, in the header or else in the request.
pub(super) fn selected(
    metadata: &MetadataMap,
    in_request: &str,
) -> Result<Option<Environment>, Status> {
    let malformed = || Status::invalid_argument("the selector must be flagSetId=<environment>");
    let in_header = match metadata.get(SELECTOR) {
        Some(value) => value.to_str().map_err(|_| malformed())?,
        None => "",
    };
    let selector = if in_header.is_empty() {
        in_request
    } else {
        in_header
    };
    if selector.is_empty() {
        return Ok(None);
    }
    let (key, environment) = selector.split_once('=').ok_or_else(malformed)?;
    if key != FLAG_SET {
        return Err(malformed());
    }
    environment_named(environment).map(Some)
}

fn environment_named(name: &str) -> Result<Environment, Status> {
    Environment::parse(name)
        .map_err(|why| Status::invalid_argument(format!("the environment {why}")))
}

impl Flagd {
    /// The environment that a selector names, or the one that is meant without.
    pub(super) fn environment(
        &self,
        metadata: &MetadataMap,
        in_request: &str,
    ) -> Result<String, Status> {
        let selected = selected(metadata, in_request)?;
        Ok(selected.map_or_else(|| self.default_environment.to_string(), |it| it.to_string()))
    }

    /// Reads who asks: `targetingKey`, `environment` and `preview` of the context.
    pub(super) fn context(
        &self,
        metadata: &MetadataMap,
        context: Option<&Struct>,
    ) -> Result<Context, Status> {
        let attribute = text(context, "environment")?;
        let selected = selected(metadata, "")?;
        let is_named_by_attribute = selected.is_none() && !attribute.is_empty();
        let environment = match selected {
            Some(environment) => environment.to_string(),
            None if is_named_by_attribute => environment_named(attribute)?.to_string(),
            None => self.default_environment.to_string(),
        };
        Ok(Context {
            environment,
            is_named_by_attribute,
            targeting_key: text(context, "targetingKey")?.to_owned(),
            preview: is_true(context, "preview")?,
        })
    }
}

fn attribute<'a>(context: Option<&'a Struct>, name: &str) -> Option<&'a Kind> {
    context?.fields.get(name)?.kind.as_ref()
}

fn text<'a>(context: Option<&'a Struct>, name: &str) -> Result<&'a str, Status> {
    match attribute(context, name) {
        None | Some(Kind::NullValue(_)) => Ok(""),
        Some(Kind::StringValue(text)) => Ok(text),
        Some(
            Kind::NumberValue(_) | Kind::BoolValue(_) | Kind::StructValue(_) | Kind::ListValue(_),
        ) => Err(Status::invalid_argument(format!(
            "'{name}' of the context must be text"
        ))),
    }
}

fn is_true(context: Option<&Struct>, name: &str) -> Result<bool, Status> {
    match attribute(context, name) {
        None | Some(Kind::NullValue(_)) => Ok(false),
        Some(Kind::BoolValue(value)) => Ok(*value),
        Some(
            Kind::NumberValue(_) | Kind::StringValue(_) | Kind::StructValue(_) | Kind::ListValue(_),
        ) => Err(Status::invalid_argument(format!(
            "'{name}' of the context must be true or false"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_names_an_environment_and_the_header_goes_first() {
        let mut metadata = MetadataMap::new();
        let name = |metadata: &MetadataMap, in_request| {
            selected(metadata, in_request).map(|it| it.map(|it| it.to_string()))
        };
        assert_eq!(name(&metadata, "").unwrap(), None);
        assert_eq!(name(&metadata, "flagSetId=a").unwrap().unwrap(), "a");
        metadata.insert(SELECTOR, "flagSetId=b".parse().unwrap());
        assert_eq!(name(&metadata, "flagSetId=a").unwrap().unwrap(), "b");
        for malformed in ["production", "source=x", "flagSetId=", "flagSetId=a b"] {
            metadata.insert(SELECTOR, malformed.parse().unwrap());
            assert!(name(&metadata, "").is_err(), "{malformed}");
        }
    }
}
