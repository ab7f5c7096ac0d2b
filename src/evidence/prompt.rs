//! The Prompt service, which knows which versions of a prompt there are.

use super::{
    ask::{Kind, NoAnswer, Peer},
    pb::prompt::{GetPromptHistoryRequest, prompt_service_client::PromptServiceClient},
};

/// How many versions of a prompt are looked through, the newest first.
const VERSIONS_MAX: i32 = 10_000;

/// The Prompt service. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Prompts(Peer);

/// Whether a version exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Version {
    /// It does.
    Exists,
    /// The prompt has no such version; the newest that it has.
    Missing {
        /// 0 where it has none.
        newest: i32,
    },
    /// There is no such prompt.
    NoPrompt,
}

impl Prompts {
    /// The service at `host:port`. Nothing is connected to before it is asked.
    ///
    /// # Errors
    /// It is no address.
    pub fn new(address: &str) -> Result<Self, tonic::transport::Error> {
        Peer::new("the Prompt service", address).map(Self)
    }

    /// Whether a prompt has a version.
    ///
    /// # Errors
    /// The service does not answer, and what it says of that.
    pub async fn version(&self, prompt_id: &str, version: i32) -> Result<Version, String> {
        let request = GetPromptHistoryRequest {
            id: prompt_id.to_owned(),
            limit: VERSIONS_MAX,
        };
        let ask = |channel| {
            let request = request.clone();
            async move {
                let mut client = PromptServiceClient::new(channel);
                client.get_prompt_history(request).await
            }
        };
        match self.0.ask(Kind::Read, ask).await {
            Ok(history) => {
                let mut versions = history.versions.iter().map(|version| version.version);
                if versions.clone().any(|known| known == version) {
                    return Ok(Version::Exists);
                }
                let newest = versions.by_ref().max().unwrap_or(0);
                Ok(Version::Missing { newest })
            }
            Err(NoAnswer::Unknown(_)) => Ok(Version::NoPrompt),
            Err(NoAnswer::Down(why)) => Err(why),
        }
    }
}
