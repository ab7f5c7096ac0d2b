//! What can be set about telemetry. Read from the environment by `config`.

use std::str::FromStr;

use tracing::Level;

/// How a process logs and where it reports to.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The version of this build: `service.version`, and the label of `deploy_build_info`.
    pub service_version: String,
    /// Where it runs (`production`, …): `deployment.environment.name`.
    pub environment: String,
    /// The least severe log line written.
    pub log_level: LogLevel,
    /// How a log line looks.
    pub log_format: LogFormat,
    /// The collector, where there is one.
    pub otlp: Option<Otlp>,
}

/// A collector that spans and metrics are pushed to by OTLP over gRPC.
#[derive(Debug, Clone)]
pub struct Otlp {
    /// `host:port` or `http://host:port`.
    pub endpoint: String,
    /// The share of traces begun here that is kept, 0 to 1; a trace begun
    /// elsewhere keeps the decision that came with it.
    pub sampling: f64,
}

/// The severity of a log line, from chatty to grave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// For somebody who looks for a fault.
    Debug,
    /// What an operator wants to know of a healthy service.
    Info,
    /// Something is wrong and the service goes on.
    Warn,
    /// Something was not done.
    Error,
}

impl LogLevel {
    pub(super) fn as_level(self) -> Level {
        match self {
            Self::Debug => Level::DEBUG,
            Self::Info => Level::INFO,
            Self::Warn => Level::WARN,
            Self::Error => Level::ERROR,
        }
    }
}

/// The text names no log level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not one of debug, info, warn, error")]
pub struct UnknownLogLevel;

impl FromStr for LogLevel {
    type Err = UnknownLogLevel;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_lowercase().as_str() {
            "debug" => Ok(Self::Debug),
            "info" => Ok(Self::Info),
            "warn" => Ok(Self::Warn),
            "error" => Ok(Self::Error),
            _ => Err(UnknownLogLevel),
        }
    }
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For reading at a terminal.
    Text,
}

/// The text names no log format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not one of json, text")]
pub struct UnknownLogFormat;

impl FromStr for LogFormat {
    type Err = UnknownLogFormat;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_lowercase().as_str() {
            "json" => Ok(Self::Json),
            "text" => Ok(Self::Text),
            _ => Err(UnknownLogFormat),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_formats_are_read_in_any_case() {
        assert_eq!("WARN".parse(), Ok(LogLevel::Warn));
        assert_eq!("trace".parse::<LogLevel>(), Err(UnknownLogLevel));
        assert_eq!("Json".parse(), Ok(LogFormat::Json));
        assert_eq!("".parse::<LogFormat>(), Err(UnknownLogFormat));
    }
}
