//! The configuration: `DELOS_*` variables, read here and nowhere else, and checked once.

use std::{
    collections::BTreeMap, fmt::Write as _, net::IpAddr, ops::RangeInclusive, path::PathBuf,
    time::Duration,
};

use crate::{
    domain::ids::Environment,
    evidence::webhook,
    faults::Faults,
    store::{Backend, Postgres, SslMode},
    telemetry::{self, LogFormat, LogLevel, Otlp},
    wire::Origins,
};

/// The configuration, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// What is listened on, and the limits there.
    pub listen: Listen,
    /// Where deployments are kept.
    pub storage: Backend,
    /// Logs, metrics and traces.
    pub telemetry: telemetry::Settings,
    /// Whose web pages may call.
    pub origins: Origins,
    /// The environment of an OpenFeature client, or of a span, that names none.
    pub default_environment: Environment,
    /// The name of the evaluation that is the quality, where it is to be one alone.
    pub evaluation_name: Option<String>,
    /// How long gates may wait for their evidence.
    pub gate_timeout: Duration,
    /// How long outcomes are kept one by one.
    pub outcome_retention: Duration,
    /// `host:port` of the Eval service, which has the gates' evidence.
    pub eval_endpoint: String,
    /// `host:port` of the Prompt service, where it is to be asked whether a version exists.
    pub prompt_endpoint: Option<String>,
    /// How those are asked who decide outside.
    pub webhooks: webhook::Settings,
    /// Where Redis is, which replicas that share a database may use.
    pub redis_url: Secret,
    /// What is to go wrong on purpose.
    pub faults: Faults,
    /// Variables that look like ours and are not.
    pub unknown: Vec<String>,
}

/// What is listened on.
#[derive(Debug, Clone)]
pub struct Listen {
    /// The address.
    pub address: IpAddr,
    /// The port; 0 for any that is free.
    pub port: u16,
    /// Most connections at a time.
    pub connections_max: usize,
    /// Most requests that are worked on at a time.
    pub requests_max: usize,
    /// Longest time that a request may take.
    pub request_timeout: Duration,
    /// How long the service goes on serving after SIGTERM, so that load balancers notice.
    pub drain: Duration,
}

/// A text that is not to be shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

/// A variable whose value can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}={value} can't be used: it takes {takes}")]
pub struct BadValue {
    /// The variable.
    pub name: &'static str,
    /// Its value; not shown where it may hold a secret.
    pub value: String,
    /// What it takes.
    pub takes: &'static str,
}

/// A variable as `--help` lists it.
struct Variable {
    name: &'static str,
    default: &'static str,
    takes: &'static str,
    about: &'static str,
}

const fn variable(
    name: &'static str,
    default: &'static str,
    takes: &'static str,
    about: &'static str,
) -> Variable {
    Variable {
        name,
        default,
        takes,
        about,
    }
}

/// `<point>:<arrival>`: where the process crashes, in builds with faults.
#[cfg(feature = "faults")]
const FAULT_CRASH: &str = "DELOS_FAULT_CRASH";
/// Bugs to switch on, in builds with faults.
#[cfg(feature = "faults")]
const FAULT_BUGS: &str = "DELOS_FAULT_BUGS";

const SECONDS: &str = "a whole number of seconds, 0 to 86400";

const VARIABLES: &[Variable] = &[
    variable(
        "DELOS_ENV",
        "development",
        "development, staging or production",
        "Environment that the service itself runs in",
    ),
    variable(
        "DELOS_VERSION",
        "dev",
        "any text",
        "Version that the service reports",
    ),
    variable(
        "DELOS_LISTEN_ADDR",
        "127.0.0.1",
        "an IP address",
        "Address to listen on; callers are not authenticated yet, so mind who can reach it",
    ),
    variable(
        "DELOS_GRPC_PORT",
        "9005",
        "a port, 0 to 65535 (0: any free one)",
        "Port of every protocol",
    ),
    variable(
        "DELOS_MAX_CONNECTIONS",
        "10000",
        "a whole number, at least 1",
        "Most connections at a time; further ones are told how the service is, or to come back",
    ),
    variable(
        "DELOS_MAX_REQUESTS",
        "1000",
        "a whole number, at least 1",
        "Most requests that are worked on at a time; further ones are refused, but for those that ask how the service is",
    ),
    variable(
        "DELOS_REQUEST_TIMEOUT_SECONDS",
        "30",
        SECONDS,
        "Longest time that a request may take",
    ),
    variable(
        "DELOS_DRAIN_SECONDS",
        "5",
        SECONDS,
        "How long to go on serving after SIGTERM, not ready, so that load balancers notice",
    ),
    variable(
        "DELOS_CORS_ORIGINS",
        "(development: loopback, otherwise none)",
        "none, loopback, * or origins separated by commas",
        "Whose web pages may call",
    ),
    variable(
        "DELOS_DEFAULT_ENVIRONMENT",
        "production",
        "the name of an environment: letters, digits, '_', '.' and '-', at most 63",
        "Environment of an OpenFeature client, or of a span, that names none",
    ),
    variable(
        "DELOS_STORAGE_BACKEND",
        "memory",
        "memory, sqlite or postgres",
        "Where deployments are kept",
    ),
    variable(
        "DELOS_SQLITE_PATH",
        "delos-deploy.db",
        "a path",
        "The SQLite file",
    ),
    variable(
        "DELOS_DB_HOST",
        "localhost",
        "a host name, an address or the directory of a socket",
        "PostgreSQL host",
    ),
    variable(
        "DELOS_DB_PORT",
        "5432",
        "a port, 1 to 65535",
        "PostgreSQL port",
    ),
    variable("DELOS_DB_USER", "delos", "any text", "PostgreSQL user"),
    variable("DELOS_DB_PASSWORD", "", "any text", "PostgreSQL password"),
    variable("DELOS_DB_NAME", "delos", "any text", "PostgreSQL database"),
    variable(
        "DELOS_DB_SSLMODE",
        "disable",
        "disable, allow, prefer, require, verify-ca or verify-full",
        "TLS to PostgreSQL",
    ),
    variable(
        "DELOS_DB_SSLROOTCERT",
        "",
        "the path of a file of certificates in PEM (empty: the system's)",
        "Certificates to trust for TLS to PostgreSQL",
    ),
    variable(
        "DELOS_DB_MAX_CONNECTIONS",
        "10",
        "a whole number, 1 to 1000",
        "Most connections to PostgreSQL for requests that write, and as many for those that read; the reconciler has 4 of its own",
    ),
    variable(
        "DELOS_REDIS_URL",
        "redis://localhost:6379",
        "a URL that begins with redis:// or rediss://",
        "Redis, a cache at most; nothing depends on it",
    ),
    variable(
        "DELOS_EVAL_ENDPOINT",
        "localhost:9004",
        "host:port",
        "Eval service, which has the evidence that gates are judged by",
    ),
    variable(
        "DELOS_PROMPT_ENDPOINT",
        "",
        "host:port, or nothing",
        "Prompt service, asked whether a version exists; nothing: not asked",
    ),
    variable(
        "DELOS_WEBHOOK_SECRET",
        "",
        "whsec_ and base64 of 24 to 64 bytes; several, separated by commas, while one takes the place of another; or nothing",
        "What webhooks are signed with; nothing: none is called",
    ),
    variable(
        "DELOS_WEBHOOK_ALLOW",
        "",
        "names, addresses or ranges such as 10.0.0.0/8, separated by commas, each with a port behind it or for every port, and with http:// before it where TLS may be left out",
        "Webhooks that may be called though they are not public or not https on port 443",
    ),
    variable(
        "DELOS_WEBHOOK_SSLROOTCERT",
        "",
        "the path of a file of certificates in PEM (empty: the system's alone)",
        "Certificates to trust for webhooks, besides the system's",
    ),
    variable(
        "DELOS_GATE_TIMEOUT_SECONDS",
        "3600",
        "a whole number of seconds, 1 to 31536000",
        "How long gates may wait for their evidence",
    ),
    variable(
        "DELOS_OUTCOME_RETENTION_HOURS",
        "72",
        "a whole number of hours, 24 to 8784",
        "How long outcomes are kept one by one; what they add up to is kept",
    ),
    variable(
        "DELOS_OTLP_EVALUATION_NAME",
        "",
        "any text, or nothing",
        "Which gen_ai.evaluation.name is the quality of an answer; nothing: any",
    ),
    variable(
        "DELOS_OBSERVE_ENDPOINT",
        "localhost:9000",
        "host:port",
        "Observe service, which takes OTLP over gRPC",
    ),
    variable(
        "DELOS_TRACING_ENABLED",
        "true",
        "true or false",
        "Send traces and metrics to the Observe service",
    ),
    variable(
        "DELOS_TRACING_SAMPLING",
        "1.0",
        "a number, 0.0 to 1.0",
        "Share of traces to send",
    ),
    variable(
        "DELOS_LOG_LEVEL",
        "info",
        "debug, info, warn or error",
        "Least important log lines to write",
    ),
    variable(
        "DELOS_LOG_FORMAT",
        "json",
        "json or text",
        "Format of log lines",
    ),
];

/// The list of variables, for `--help`.
#[must_use]
pub fn help() -> String {
    let mut text = String::from("Environment variables:\n");
    for variable in VARIABLES {
        let default = if variable.default.is_empty() {
            "(empty)"
        } else {
            variable.default
        };
        // Writing to a String can't fail.
        let _ = writeln!(
            text,
            "  {:<30} {}\n{:33}takes {}; default: {default}",
            variable.name, variable.about, "", variable.takes
        );
    }
    text
}

impl Config {
    /// Reads the process's environment.
    ///
    /// # Errors
    /// Every variable whose value can't be used.
    pub fn from_env() -> Result<Self, Vec<BadValue>> {
        let ours = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .filter(|(name, _)| name.starts_with("DELOS_"))
            .map(|(name, value)| (name, value.to_string_lossy().into_owned()));
        Self::from_map(ours.collect())
    }

    /// Reads variables from a map.
    ///
    /// # Errors
    /// Every variable whose value can't be used.
    pub fn from_map(values: BTreeMap<String, String>) -> Result<Self, Vec<BadValue>> {
        let mut source = Source {
            values,
            bad: Vec::new(),
        };
        let config = source.config();
        if source.bad.is_empty() {
            Ok(config)
        } else {
            Err(source.bad)
        }
    }
}

struct Source {
    values: BTreeMap<String, String>,
    bad: Vec<BadValue>,
}

impl Source {
    fn config(&mut self) -> Config {
        let environment = self.one_of("DELOS_ENV", &["development", "staging", "production"]);
        Config {
            listen: self.listen(),
            storage: self.storage(),
            origins: self.origins(&environment),
            default_environment: self.default_environment(),
            evaluation_name: Some(self.text("DELOS_OTLP_EVALUATION_NAME"))
                .filter(|name| !name.is_empty()),
            telemetry: self.telemetry(environment),
            gate_timeout: self.seconds("DELOS_GATE_TIMEOUT_SECONDS", 1..=31_536_000),
            outcome_retention: self.hours("DELOS_OUTCOME_RETENTION_HOURS", 24..=8784),
            eval_endpoint: self.host_port("DELOS_EVAL_ENDPOINT"),
            prompt_endpoint: self.prompt_endpoint(),
            webhooks: self.webhooks(),
            redis_url: self.redis_url(),
            faults: self.faults(),
            unknown: self.unknown(),
        }
    }

    fn listen(&mut self) -> Listen {
        let loopback = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
        Listen {
            address: self
                .parsed("DELOS_LISTEN_ADDR", |text| text.parse().ok())
                .unwrap_or(loopback),
            port: self
                .parsed("DELOS_GRPC_PORT", |text| text.parse().ok())
                .unwrap_or_default(),
            connections_max: self.at_least_one("DELOS_MAX_CONNECTIONS"),
            requests_max: self.at_least_one("DELOS_MAX_REQUESTS"),
            request_timeout: self.seconds("DELOS_REQUEST_TIMEOUT_SECONDS", 0..=86_400),
            drain: self.seconds("DELOS_DRAIN_SECONDS", 0..=86_400),
        }
    }

    fn at_least_one(&mut self, name: &'static str) -> usize {
        let max = self.parsed(name, |text| text.parse().ok().filter(|max| *max > 0));
        max.unwrap_or(1)
    }

    fn storage(&mut self) -> Backend {
        let backend = self.one_of("DELOS_STORAGE_BACKEND", &["memory", "sqlite", "postgres"]);
        // All are read, so that a bad value is found whichever is chosen.
        let postgres = self.postgres();
        let path = self.text("DELOS_SQLITE_PATH");
        match backend.as_str() {
            "postgres" => Backend::Postgres(postgres),
            "sqlite" => Backend::Sqlite(PathBuf::from(path)),
            _ => Backend::Memory,
        }
    }

    fn postgres(&mut self) -> Postgres {
        let ssl_mode = self.parsed("DELOS_DB_SSLMODE", |text| match text {
            "disable" => Some(SslMode::Disable),
            "allow" => Some(SslMode::Allow),
            "prefer" => Some(SslMode::Prefer),
            "require" => Some(SslMode::Require),
            "verify-ca" => Some(SslMode::VerifyCa),
            "verify-full" => Some(SslMode::VerifyFull),
            _ => None,
        });
        Postgres {
            host: self.text("DELOS_DB_HOST"),
            port: self
                .parsed("DELOS_DB_PORT", |text| {
                    text.parse().ok().filter(|port| *port > 0)
                })
                .unwrap_or_default(),
            user: self.text("DELOS_DB_USER"),
            password: self.text("DELOS_DB_PASSWORD"),
            database: self.text("DELOS_DB_NAME"),
            ssl_mode: ssl_mode.unwrap_or(SslMode::Disable),
            ssl_root_cert: self.file("DELOS_DB_SSLROOTCERT"),
            connections_max: self
                .parsed("DELOS_DB_MAX_CONNECTIONS", |text| {
                    text.parse().ok().filter(|max| (1..=1000).contains(max))
                })
                .unwrap_or(1),
        }
    }

    fn telemetry(&mut self, environment: String) -> telemetry::Settings {
        let endpoint = self.host_port("DELOS_OBSERVE_ENDPOINT");
        let sampling = self
            .parsed("DELOS_TRACING_SAMPLING", |text| {
                text.parse()
                    .ok()
                    .filter(|share| (0.0..=1.0).contains(share))
            })
            .unwrap_or_default();
        let enabled = self
            .parsed("DELOS_TRACING_ENABLED", |text| text.parse().ok())
            .unwrap_or(false);
        telemetry::Settings {
            service_version: self.text("DELOS_VERSION"),
            environment,
            log_level: self
                .parsed("DELOS_LOG_LEVEL", |text| text.parse().ok())
                .unwrap_or(LogLevel::Info),
            log_format: self
                .parsed("DELOS_LOG_FORMAT", |text| text.parse().ok())
                .unwrap_or(LogFormat::Json),
            otlp: enabled.then_some(Otlp { endpoint, sampling }),
        }
    }

    fn origins(&mut self, environment: &str) -> Origins {
        let default = if environment == "development" {
            Origins::Loopback
        } else {
            Origins::None
        };
        if self
            .values
            .get("DELOS_CORS_ORIGINS")
            .is_none_or(String::is_empty)
        {
            return default;
        }
        let origins = self.parsed("DELOS_CORS_ORIGINS", |text| match text {
            "none" => Some(Origins::None),
            "loopback" => Some(Origins::Loopback),
            "*" => Some(Origins::Any),
            list => list
                .split(',')
                .map(origin)
                .collect::<Option<_>>()
                .map(Origins::List),
        });
        origins.unwrap_or(default)
    }

    fn default_environment(&mut self) -> Environment {
        let parse = |text: &str| Environment::parse(text).ok();
        let name = "DELOS_DEFAULT_ENVIRONMENT";
        let parsed = self.parsed(name, parse);
        parsed.unwrap_or_else(|| parse(of(name).default).expect("the default is a name"))
    }

    fn redis_url(&mut self) -> Secret {
        let url = self.text("DELOS_REDIS_URL");
        let good = url::Url::parse(&url)
            .is_ok_and(|url| matches!(url.scheme(), "redis" | "rediss") && url.has_host());
        if !good {
            // It may hold a password.
            self.refuse("DELOS_REDIS_URL", "[redacted]".into());
        }
        Secret(url)
    }

    fn webhooks(&mut self) -> webhook::Settings {
        let name = "DELOS_WEBHOOK_SECRET";
        let keys = self.text(name).parse().ok();
        if keys.is_none() {
            self.refuse(name, "[redacted]".into());
        }
        let allow = self.parsed("DELOS_WEBHOOK_ALLOW", |text| text.parse().ok());
        webhook::Settings {
            keys: keys.unwrap_or_default(),
            allow: allow.unwrap_or_default(),
            root_cert: self.file("DELOS_WEBHOOK_SSLROOTCERT"),
        }
    }

    /// A file that must be there, where one is named.
    fn file(&mut self, name: &'static str) -> Option<PathBuf> {
        let found = |text: &str| {
            let path = PathBuf::from(text);
            (text.is_empty() || path.is_file()).then_some(path)
        };
        let path = self.parsed(name, found);
        path.filter(|path| !path.as_os_str().is_empty())
    }

    #[cfg(not(feature = "faults"))]
    fn faults(&self) -> Faults {
        Faults::default()
    }

    #[cfg(feature = "faults")]
    fn faults(&mut self) -> Faults {
        let given = |name| self.values.get(name).map_or("", String::as_str);
        let plan = crate::faults::ProcessPlan::parse(given(FAULT_CRASH), given(FAULT_BUGS));
        match plan {
            Ok(plan) => Faults::by(std::sync::Arc::new(plan)),
            Err(bad) => {
                self.bad.push(BadValue {
                    name: FAULT_CRASH,
                    value: bad.to_string(),
                    takes: "<point>:<arrival>",
                });
                Faults::default()
            }
        }
    }

    fn unknown(&self) -> Vec<String> {
        let known = |name: &&String| {
            VARIABLES
                .iter()
                .any(|variable| variable.name == name.as_str())
                || cfg!(feature = "faults") && name.starts_with("DELOS_FAULT_")
        };
        self.values
            .keys()
            .filter(|name| !known(name))
            .cloned()
            .collect()
    }

    /// The value, or the default where it is not set or empty.
    fn text(&self, name: &'static str) -> String {
        let given = self.values.get(name).filter(|value| !value.is_empty());
        given
            .cloned()
            .unwrap_or_else(|| of(name).default.to_owned())
    }

    fn parsed<T>(
        &mut self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.text(name);
        let parsed = parse(&text);
        if parsed.is_none() {
            self.refuse(name, text);
        }
        parsed
    }

    fn one_of(&mut self, name: &'static str, names: &[&str]) -> String {
        let known = |text: &str| names.contains(&text).then(|| text.to_owned());
        self.parsed(name, known).unwrap_or_default()
    }

    fn seconds(&mut self, name: &'static str, range: RangeInclusive<u64>) -> Duration {
        Duration::from_secs(self.whole(name, range))
    }

    fn hours(&mut self, name: &'static str, range: RangeInclusive<u64>) -> Duration {
        Duration::from_hours(self.whole(name, range))
    }

    fn whole(&mut self, name: &'static str, range: RangeInclusive<u64>) -> u64 {
        let within = |text: &str| text.parse().ok().filter(|number| range.contains(number));
        self.parsed(name, within).unwrap_or_default()
    }

    fn prompt_endpoint(&mut self) -> Option<String> {
        let name = "DELOS_PROMPT_ENDPOINT";
        (!self.text(name).is_empty()).then(|| self.host_port(name))
    }

    fn host_port(&mut self, name: &'static str) -> String {
        let good = |text: &str| {
            let (host, port) = text
                .strip_prefix("http://")
                .unwrap_or(text)
                .rsplit_once(':')?;
            let port: u16 = port.parse().ok()?;
            (!host.is_empty() && port > 0 && !host.contains('/')).then(|| text.to_owned())
        };
        self.parsed(name, good).unwrap_or_default()
    }

    fn refuse(&mut self, name: &'static str, value: String) {
        let takes = of(name).takes;
        self.bad.push(BadValue { name, value, takes });
    }
}

fn origin(text: &str) -> Option<String> {
    let text = text.trim();
    let url = url::Url::parse(text).ok()?;
    let is_origin =
        matches!(url.scheme(), "http" | "https") && url.origin().ascii_serialization() == text;
    is_origin.then(|| text.to_owned())
}

/// The description of a variable of ours.
fn of(name: &'static str) -> &'static Variable {
    VARIABLES
        .iter()
        .find(|variable| variable.name == name)
        .expect("every variable that is read is described")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(values: &[(&str, &str)]) -> Result<Config, Vec<BadValue>> {
        let owned = values
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Config::from_map(owned.collect())
    }

    #[test]
    fn the_defaults_are_the_documented_ones() {
        let config = config(&[]).unwrap();
        assert!(matches!(config.storage, Backend::Memory));
        assert_eq!(
            (
                config.listen.address.to_string().as_str(),
                config.listen.port
            ),
            ("127.0.0.1", 9005)
        );
        assert_eq!(config.origins, Origins::Loopback);
        assert_eq!(config.default_environment.as_str(), "production");
        assert_eq!(config.evaluation_name, None);
        assert_eq!(config.eval_endpoint, "localhost:9004");
        let otlp = config.telemetry.otlp.unwrap();
        assert_eq!(
            (otlp.endpoint.as_str(), otlp.sampling),
            ("localhost:9000", 1.0)
        );
    }

    #[test]
    fn a_bad_value_is_named_with_what_would_do() {
        let cases = [
            ("DELOS_ENV", "prod"),
            ("DELOS_LISTEN_ADDR", "everywhere"),
            ("DELOS_GRPC_PORT", "70000"),
            ("DELOS_MAX_CONNECTIONS", "0"),
            ("DELOS_MAX_REQUESTS", "0"),
            ("DELOS_DRAIN_SECONDS", "-1"),
            ("DELOS_CORS_ORIGINS", "example.com/"),
            ("DELOS_DEFAULT_ENVIRONMENT", "my production"),
            ("DELOS_STORAGE_BACKEND", "mysql"),
            ("DELOS_DB_PORT", "0"),
            ("DELOS_DB_SSLMODE", "on"),
            ("DELOS_DB_SSLROOTCERT", "/no/such/file"),
            ("DELOS_DB_MAX_CONNECTIONS", "many"),
            ("DELOS_REDIS_URL", "localhost:6379"),
            ("DELOS_EVAL_ENDPOINT", "localhost"),
            ("DELOS_PROMPT_ENDPOINT", "localhost:0"),
            ("DELOS_WEBHOOK_SECRET", "whsec_short"),
            ("DELOS_WEBHOOK_ALLOW", "https://example.com/"),
            ("DELOS_WEBHOOK_SSLROOTCERT", "/no/such/file"),
            ("DELOS_GATE_TIMEOUT_SECONDS", "0"),
            ("DELOS_OUTCOME_RETENTION_HOURS", "1"),
            ("DELOS_OBSERVE_ENDPOINT", ":9000"),
            ("DELOS_TRACING_ENABLED", "yes"),
            ("DELOS_TRACING_SAMPLING", "1.5"),
            ("DELOS_LOG_LEVEL", "loud"),
            ("DELOS_LOG_FORMAT", "xml"),
        ];
        for (name, value) in cases {
            let bad = config(&[(name, value)]).unwrap_err();
            assert_eq!(bad.len(), 1, "{name}");
            let said = bad[0].to_string();
            assert!(said.contains(name) && said.contains("takes"), "{said}");
            let is_secret = matches!(name, "DELOS_REDIS_URL" | "DELOS_WEBHOOK_SECRET");
            assert_eq!(said.contains(value), !is_secret, "{said}");
        }
        assert_eq!(config(&cases).unwrap_err().len(), cases.len());
    }

    #[test]
    fn passwords_are_never_shown() {
        let shown = format!(
            "{:?}",
            config(&[
                ("DELOS_STORAGE_BACKEND", "postgres"),
                ("DELOS_DB_PASSWORD", "hunter2"),
                ("DELOS_REDIS_URL", "redis://:hunter2@cache:6379"),
                (
                    "DELOS_WEBHOOK_SECRET",
                    "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
                ),
            ])
            .unwrap()
        );
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(!shown.contains("MfKQ9r8GK"), "{shown}");
        let bad = config(&[("DELOS_REDIS_URL", "http://:hunter2@cache")]).unwrap_err();
        assert!(!bad[0].to_string().contains("hunter2"));
    }

    #[test]
    fn help_lists_every_variable() {
        let help = help();
        for variable in VARIABLES {
            assert!(help.contains(variable.name), "{}", variable.name);
        }
    }

    #[test]
    fn what_is_not_ours_is_told() {
        assert_eq!(
            config(&[("DELOS_GRPC_PROT", "1")]).unwrap().unknown,
            ["DELOS_GRPC_PROT"]
        );
    }
}
