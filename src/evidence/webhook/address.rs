//! Which addresses are of the public internet. Whatever else there is may be this machine, a
//! neighbour, or a cloud's keeper of credentials, and is not called unless the operator says so.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Addresses that begin alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Net {
    base: IpAddr,
    /// How many bits they have in common, at most 32 or 128.
    prefix: u32,
}

impl Net {
    /// Reads an address, or a range as `10.0.0.0/8`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (base, prefix) = match text.split_once('/') {
            Some((base, prefix)) => (base, Some(prefix.parse().ok()?)),
            None => (text, None),
        };
        let base: IpAddr = base.parse().ok()?;
        let width = width(base);
        let prefix = prefix.unwrap_or(width);
        (prefix <= width).then_some(Self { base, prefix })
    }

    /// Whether an address is one of them.
    pub(super) fn contains(self, address: IpAddr) -> bool {
        let width = width(self.base);
        let differ = bits(self.base) ^ bits(address);
        width == self::width(address)
            && differ.checked_shr(width - self.prefix).unwrap_or_default() == 0
    }
}

fn width(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u32) -> Net {
    Net {
        base: IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
        prefix,
    }
}

const fn v6(a: u16, b: u16, c: u16, prefix: u32) -> Net {
    Net {
        base: IpAddr::V6(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0)),
        prefix,
    }
}

/// What is not public, of IANA's registries of special addresses.
const SPECIAL: &[(Net, &str)] = &[
    (v4(0, 0, 0, 0, 8), "of this network"),
    (v4(10, 0, 0, 0, 8), "private"),
    (v4(100, 64, 0, 0, 10), "a carrier's (CGNAT)"),
    (v4(127, 0, 0, 0, 8), "loopback"),
    (v4(168, 63, 129, 16, 32), "a cloud's metadata service"),
    (v4(169, 254, 0, 0, 16), "link-local"),
    (v4(172, 16, 0, 0, 12), "private"),
    (v4(192, 0, 0, 0, 24), "for protocols"),
    (v4(192, 0, 2, 0, 24), "for documentation"),
    (v4(192, 88, 99, 0, 24), "a 6to4 relay"),
    (v4(192, 168, 0, 0, 16), "private"),
    (v4(198, 18, 0, 0, 15), "for benchmarks"),
    (v4(198, 51, 100, 0, 24), "for documentation"),
    (v4(203, 0, 113, 0, 24), "for documentation"),
    (v4(224, 0, 0, 0, 4), "multicast"),
    (v4(240, 0, 0, 0, 4), "reserved"),
    // Teredo, ORCHID, benchmarks and others.
    (v6(0x2001, 0, 0, 23), "for protocols"),
    (v6(0x2001, 0xdb8, 0, 32), "for documentation"),
    (v6(0x2002, 0, 0, 16), "a 6to4 address, which holds another"),
    (v6(0x3fff, 0, 0, 20), "for documentation"),
];

/// The only addresses of IPv6 that are handed out. Beyond them are loopback, link-local and private
/// ones, and the forms that hold an address of IPv4: mapped, compatible, NAT64.
const GLOBAL_V6: Net = v6(0x2000, 0, 0, 3);

/// What an address is, where it is not public.
pub(super) fn special(address: IpAddr) -> Option<&'static str> {
    let address = address.to_canonical();
    if address.is_ipv6() && !GLOBAL_V6.contains(address) {
        return Some("not a global one");
    }
    let found = SPECIAL.iter().find(|(net, _)| net.contains(address));
    found.map(|(_, what)| *what)
}

/// What a name is, where it is this machine's or of a cloud's keeper of credentials.
pub(super) fn forbidden_name(name: &str) -> Option<&'static str> {
    if is_within(name, &["localhost", "localdomain"]) {
        Some("a name of this machine")
    } else if is_within(
        name,
        &[
            "metadata.google.internal",
            "metadata.goog",
            "instance-data.ec2.internal",
        ],
    ) {
        Some("the name of a cloud's metadata service")
    } else {
        None
    }
}

/// What a name is, where it can't be a public one.
pub(super) fn private_name(name: &str) -> Option<&'static str> {
    if is_within(
        name,
        &["internal", "local", "lan", "home.arpa", "intranet", "corp"],
    ) {
        Some("a name within a private network")
    } else if !name.contains('.') {
        Some("a name without a domain")
    } else {
        None
    }
}

fn is_within(name: &str, domains: &[&str]) -> bool {
    domains.iter().any(|domain| {
        let before = name.strip_suffix(domain);
        before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_of_each_range_are_special_and_their_neighbours_are_not() {
        for (first, last, outside) in [
            ("0.0.0.0", "0.255.255.255", "1.0.0.0"),
            ("10.0.0.0", "10.255.255.255", "11.0.0.0"),
            ("100.64.0.0", "100.127.255.255", "100.128.0.0"),
            ("127.0.0.0", "127.255.255.255", "128.0.0.0"),
            ("168.63.129.16", "168.63.129.16", "168.63.129.17"),
            ("169.254.0.0", "169.254.255.255", "169.255.0.0"),
            ("172.16.0.0", "172.31.255.255", "172.32.0.0"),
            ("192.0.0.0", "192.0.0.255", "192.0.1.0"),
            ("192.0.2.0", "192.0.2.255", "192.0.3.0"),
            ("192.88.99.0", "192.88.99.255", "192.88.100.0"),
            ("192.168.0.0", "192.168.255.255", "192.169.0.0"),
            ("198.18.0.0", "198.19.255.255", "198.20.0.0"),
            ("198.51.100.0", "198.51.100.255", "198.51.101.0"),
            ("203.0.113.0", "203.0.113.255", "203.0.114.0"),
            ("224.0.0.0", "255.255.255.255", "223.255.255.255"),
            ("::", "1fff:ffff::", "2000::"),
            ("4000::", "ffff:ffff::", "3ffe::"),
            ("2001::", "2001:1ff:ffff::", "2001:200::"),
            ("2001:db8::", "2001:db8:ffff::", "2001:db9::"),
            ("2002::", "2002:ffff::", "2003::"),
            ("3fff::", "3fff:fff::", "3fff:1000::"),
        ] {
            let what = |text: &str| special(text.parse().unwrap());
            assert!(what(first).is_some() && what(last).is_some(), "{first}");
            assert_eq!(what(outside), None, "{outside}");
        }
    }

    #[test]
    fn a_range_reaches_as_far_as_it_says() {
        for (net, inside, outside) in [
            ("10.1.0.0/16", "10.1.255.255", "10.2.0.0"),
            ("10.1.2.3", "10.1.2.3", "10.1.2.4"),
            ("0.0.0.0/0", "255.255.255.255", "::"),
            ("::/0", "ffff::", "10.0.0.1"),
            ("fd00::/8", "fdff::1", "fe00::"),
        ] {
            let net = Net::parse(net).unwrap();
            assert!(net.contains(inside.parse().unwrap()), "{inside}");
            assert!(!net.contains(outside.parse().unwrap()), "{outside}");
        }
        for wrong in [
            "",
            "10",
            "10.0.0.0/33",
            "fd00::/129",
            "10.0.0.0/x",
            "010.0.0.1",
        ] {
            assert_eq!(Net::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn names_that_can_not_be_public_are_told() {
        for name in [
            "localhost",
            "api.localhost",
            "localhost.localdomain",
            "metadata.google.internal",
            "metadata.goog",
            "ip-10-0-0-1.ec2.internal",
            "scores.default.svc.cluster.local",
            "router.lan",
            "nas.home.arpa",
            "kubernetes",
            "metadata",
        ] {
            assert!(
                forbidden_name(name).or(private_name(name)).is_some(),
                "{name}"
            );
        }
        for name in [
            "example.com",
            "notlocalhost.com",
            "local.example",
            "thelocal.se",
        ] {
            assert_eq!(forbidden_name(name).or(private_name(name)), None, "{name}");
        }
    }
}
