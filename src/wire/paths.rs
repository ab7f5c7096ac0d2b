//! What is served over HTTP, by names that callers can't add to: for spans and metrics.

use http::Method;
use matchit::Router;
use utoipa::openapi::OpenApi;

/// What is served beside what the OpenAPI document describes.
const UNDOCUMENTED: [&str; 8] = [
    "/",
    "/docs",
    "/docs/{*file}",
    "/healthz",
    "/metrics",
    "/openapi.json",
    "/readyz",
    "/readyz/traffic",
];

/// The paths that are served, as patterns.
pub(super) struct Paths(Router<Names>);

/// `GET /v1/deployments/{id}`, with each verb that is told apart.
struct Names([&'static str; VERBS.len()]);

const VERBS: [&str; 5] = ["GET", "POST", "HEAD", "OPTIONS", "_OTHER"];

impl Paths {
    /// Those that a document describes, and those that none does.
    pub(super) fn new(document: &OpenApi) -> Self {
        let documented = document.paths.paths.keys().map(String::as_str);
        let mut router = Router::new();
        for path in documented.chain(UNDOCUMENTED) {
            // Once, for the life of the process.
            let names = VERBS.map(|verb| &*format!("{verb} {path}").leak());
            // A flag's key may have slashes in it, which OpenAPI can't say.
            let pattern = path.replace("/flags/{key}", "/flags/{*key}");
            if let Err(error) = router.insert(pattern, Names(names)) {
                tracing::error!(%error, path, "requests of a path are counted without its name");
            }
        }
        Self(router)
    }

    /// The name of what is called; none where nothing is served there.
    pub(super) fn name(&self, method: &Method, path: &str) -> Option<&'static str> {
        let verb = VERBS.iter().position(|verb| method == *verb);
        let Names(names) = self.0.at(path).ok()?.value;
        Some(names[verb.unwrap_or(VERBS.len() - 1)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::openapi;

    #[test]
    fn every_path_has_a_name_and_no_caller_can_make_one() {
        let paths = Paths::new(&openapi::document());
        for (method, path, name) in [
            (Method::GET, "/v1/deployments", Some("GET /v1/deployments")),
            (
                Method::POST,
                "/v1/deployments/x/approve",
                Some("POST /v1/deployments/{id}/approve"),
            ),
            (
                Method::POST,
                "/ofrep/v1/evaluate/flags/a/b",
                Some("POST /ofrep/v1/evaluate/flags/{key}"),
            ),
            (Method::PATCH, "/healthz", Some("_OTHER /healthz")),
            (
                Method::GET,
                "/docs/swagger-ui.css",
                Some("GET /docs/{*file}"),
            ),
            (Method::GET, "/v1/anything", None),
        ] {
            assert_eq!(paths.name(&method, path), name, "{path}");
        }
    }
}
