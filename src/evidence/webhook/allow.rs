//! What may be called: public addresses over https on port 443, and what the operator lists.

use std::{
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use url::Host;

use super::address::{Net, forbidden_name, private_name, special};
use crate::domain::endpoint::Endpoint;

/// Port of what is called without the operator's word.
const PORT: u16 = 443;

/// What the operator lets be called beyond public addresses over https on port 443.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allow(Vec<Entry>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    place: Place,
    /// None for every port.
    port: Option<u16>,
    /// Whether also without TLS.
    plain: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Name(String),
    Net(Net),
}

impl FromStr for Allow {
    type Err = ();

    /// Reads entries separated by commas or spaces: `hooks.example.com:8443`, `10.0.0.0/8`,
    /// `http://[fd00::/8]:8080`.
    fn from_str(text: &str) -> Result<Self, ()> {
        let entries = text.split([',', ' ']).filter(|entry| !entry.is_empty());
        let entries: Option<_> = entries.map(Entry::parse).collect();
        entries.map(Self).ok_or(())
    }
}

impl Entry {
    fn parse(text: &str) -> Option<Self> {
        let (plain, rest) = match text.strip_prefix("http://") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        if let Some(net) = Net::parse(rest) {
            return Some(Self {
                place: Place::Net(net),
                port: None,
                plain,
            });
        }
        let (place, port) = match rest.strip_prefix('[') {
            Some(rest) => {
                let (net, port) = rest.split_once(']')?;
                (Place::Net(Net::parse(net)?), port.strip_prefix(':'))
            }
            None => match rest.rsplit_once(':') {
                Some((place, port)) => (Place::parse(place)?, Some(port)),
                None => (Place::parse(rest)?, None),
            },
        };
        let port = match port {
            Some(port) => Some(port.parse().ok().filter(|port| *port > 0)?),
            None => None,
        };
        Some(Self { place, port, plain })
    }

    fn is_for(&self, endpoint: &Endpoint, address: IpAddr) -> bool {
        self.has_port(endpoint)
            && match (&self.place, endpoint.host()) {
                (Place::Net(net), _) => net.contains(address.to_canonical()),
                (Place::Name(name), Host::Domain(host)) => name == host,
                (Place::Name(_), Host::Ipv4(_) | Host::Ipv6(_)) => false,
            }
    }

    /// Whether it may be for a name, whatever addresses that turns out to have.
    fn may_be_for(&self, endpoint: &Endpoint, host: &str) -> bool {
        let is_reached = match &self.place {
            Place::Net(_) => true,
            Place::Name(name) => name == host,
        };
        is_reached && self.has_port(endpoint)
    }

    fn has_port(&self, endpoint: &Endpoint) -> bool {
        self.port.is_none_or(|port| port == endpoint.port())
    }
}

impl Place {
    fn parse(text: &str) -> Option<Self> {
        if let Some(net) = Net::parse(text) {
            return Some(Self::Net(net));
        }
        match Host::parse(text) {
            Ok(Host::Domain(name)) if name == text => Some(Self::Name(name)),
            Ok(_) | Err(_) => None,
        }
    }
}

impl Allow {
    /// Whether an endpoint may be called, as far as that can be said by its URL.
    ///
    /// # Errors
    /// Why not, and what would be right.
    pub(super) fn check(&self, endpoint: &Endpoint) -> Result<(), String> {
        let host = match endpoint.host() {
            Host::Ipv4(address) => return self.check_address(endpoint, address.into()),
            Host::Ipv6(address) => return self.check_address(endpoint, address.into()),
            Host::Domain(host) => host,
        };
        let entries = self.0.iter();
        let entries = entries.filter(|entry| entry.may_be_for(endpoint, host));
        let entries: Vec<_> = entries.collect();
        check_scheme(endpoint, &entries)?;
        let is_named = |entry: &&Entry| matches!(entry.place, Place::Name(_));
        let what = match (forbidden_name(host), private_name(host)) {
            (Some(what), _) if !entries.iter().any(is_named) => what,
            // It may have one of the addresses that are listed.
            (None, Some(what)) if entries.is_empty() => what,
            (_, _) => return Ok(()),
        };
        Err(not_listed(&format!("has the host '{host}', {what}")))
    }

    /// Whether an endpoint may be called at an address that its host has.
    ///
    /// # Errors
    /// Why not, and what would be right.
    pub(super) fn check_address(&self, endpoint: &Endpoint, address: IpAddr) -> Result<(), String> {
        let entries = self.0.iter();
        let entries: Vec<_> = entries
            .filter(|entry| entry.is_for(endpoint, address))
            .collect();
        check_scheme(endpoint, &entries)?;
        match special(address) {
            Some(what) if entries.is_empty() => {
                // Not the address: what a name means within a network is nobody's business outside.
                tracing::debug!(%address, webhook = endpoint.origin(), "a webhook may not be called");
                Err(not_listed(&format!("leads to an address that is {what}")))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Whether an endpoint may be called at all of the addresses that its host has.
    ///
    /// # Errors
    /// Why not, and what would be right.
    pub(super) fn check_all(
        &self,
        endpoint: &Endpoint,
        addresses: &[SocketAddr],
    ) -> Result<(), String> {
        let mut addresses = addresses.iter();
        addresses.try_for_each(|address| self.check_address(endpoint, address.ip()))
    }
}

fn check_scheme(endpoint: &Endpoint, entries: &[&Entry]) -> Result<(), String> {
    if !endpoint.is_encrypted() && !entries.iter().any(|entry| entry.plain) {
        return Err(not_listed("is not encrypted; must begin with https://"));
    }
    let port = endpoint.port();
    if port != PORT && entries.is_empty() {
        return Err(not_listed(&format!("has port {port}; must have {PORT}")));
    }
    Ok(())
}

fn not_listed(what: &str) -> String {
    format!("{what}, unless the operator lists it in DELOS_WEBHOOK_ALLOW")
}
