//! Webhooks: whoever decides a condition outside is asked there, with a signed question after
//! Standard Webhooks 1.0.
//!
//! The URL is a caller's, so that a call may be meant to reach what only this machine can: `allow`
//! has the rules, and `call` connects to nothing that they were not asked of.

use std::{fmt, io, path::PathBuf, sync::Arc, time::Duration};

use http::{
    HeaderValue, Request,
    header::{ACCEPT, CONTENT_TYPE, HOST, USER_AGENT},
};
use http_body_util::Full;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use tokio_rustls::TlsConnector;

mod address;
mod allow;
mod answer;
mod call;
mod question;
mod sign;
#[cfg(test)]
mod tests;

pub use allow::Allow;
pub use answer::Answer;
pub use question::Question;
pub use sign::Keys;

use crate::domain::{Timestamp, endpoint::Endpoint};
use call::Caller;

/// Longest time of a call, with finding the address.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How webhooks are called.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// What calls are signed with; without a key none is made.
    pub keys: Keys,
    /// What may be called beyond public addresses over https.
    pub allow: Allow,
    /// Certificates in PEM to trust besides the system's.
    pub root_cert: Option<PathBuf>,
}

/// Calls webhooks. Cheap to clone.
#[derive(Clone)]
pub struct Webhooks {
    keys: Keys,
    caller: Caller,
}

impl fmt::Debug for Webhooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Webhooks")
    }
}

impl Webhooks {
    /// Webhooks as they are set.
    ///
    /// # Errors
    /// The certificates can't be read.
    pub fn new(settings: &Settings) -> io::Result<Self> {
        Ok(Self {
            keys: settings.keys.clone(),
            caller: Caller {
                allow: settings.allow.clone(),
                resolve: call::system(),
                tls: tls(settings)?,
            },
        })
    }

    /// Reads a URL that is to be called, where that may be.
    ///
    /// # Errors
    /// Why not, and what would be right.
    pub fn admit(&self, url: &str) -> Result<Endpoint, String> {
        let endpoint = Endpoint::parse(url)?;
        self.caller.allow.check(&endpoint)?;
        if self.keys.is_empty() {
            return Err("can't be called: this service has no key to sign with; set its DELOS_WEBHOOK_SECRET, or leave url empty and report the condition".into());
        }
        Ok(endpoint)
    }

    /// Asks once, at `now`.
    pub async fn ask(&self, endpoint: &Endpoint, question: &Question, now: Timestamp) -> Answer {
        if self.keys.is_empty() {
            return Answer::Nothing("is not called: DELOS_WEBHOOK_SECRET is not set".into());
        }
        let Ok(request) = self.request(endpoint, question, now) else {
            return Answer::Nothing("can't be called: no request can be made of its URL".into());
        };
        let call = self.caller.call(endpoint, request);
        match tokio::time::timeout(TIMEOUT, call).await {
            Ok(Ok(answered)) => Answer::read(&answered, now),
            Ok(Err(why)) => Answer::Nothing(why),
            Err(_) => Answer::Nothing(format!("takes longer than {} s", TIMEOUT.as_secs())),
        }
    }

    /// The request, with these headers and no other.
    fn request(
        &self,
        endpoint: &Endpoint,
        question: &Question,
        now: Timestamp,
    ) -> Result<Request<Full<bytes::Bytes>>, http::Error> {
        let Question { id, body } = question;
        let unix_seconds = now.timestamp();
        Request::post(endpoint.target())
            .header(HOST, endpoint.authority())
            .header(USER_AGENT, "delos-deploy")
            .header(ACCEPT, "application/json")
            .header(
                CONTENT_TYPE,
                HeaderValue::from_static("application/cloudevents+json; charset=utf-8"),
            )
            .header("webhook-id", id)
            .header("webhook-timestamp", unix_seconds)
            .header("webhook-signature", self.keys.sign(id, unix_seconds, body))
            .body(Full::new(body.clone()))
    }
}

fn tls(settings: &Settings) -> io::Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    // Where nothing is called, reading them would be for nothing.
    if !settings.keys.is_empty() {
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
    }
    if let Some(path) = &settings.root_cert {
        let unreadable = |error| io::Error::other(format!("{}: {error}", path.display()));
        for certificate in CertificateDer::pem_file_iter(path).map_err(unreadable)? {
            let certificate = certificate.map_err(unreadable)?;
            let added = roots.add(certificate);
            added.map_err(|error| io::Error::other(format!("{}: {error}", path.display())))?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
