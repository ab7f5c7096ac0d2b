//! Where somebody outside is asked: a URL in its one spelling. Whether it may be called is not
//! decided here.

use url::{Host, Url};

/// Longest URL, in characters.
pub const URL_MAX: usize = 2048;

/// A URL over http or https without user, password and fragment, in normal form, so that whoever
/// reads it sees the host that is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint(Url);

impl Endpoint {
    /// Reads it.
    ///
    /// # Errors
    /// What is wrong with it, and what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let length = text.chars().count();
        if length > URL_MAX {
            return Err(format!(
                "is {length} characters long; at most {URL_MAX} are allowed"
            ));
        }
        let url = Url::parse(text).map_err(|error| {
            format!("is no absolute URL ({error}); give one such as https://example.com/score")
        })?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!(
                "begins with {}:; must begin with https://",
                url.scheme()
            ));
        }
        if !url.username().is_empty() || url.password().is_some() || has_user(text) {
            return Err("holds a user or a password; leave them out, each call is signed".into());
        }
        if url.fragment().is_some() {
            return Err("has a fragment (#), which is never sent; leave it out".into());
        }
        let is_of_names = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if url
            .domain()
            .is_some_and(|host| !host.chars().all(is_of_names))
        {
            return Err("has a host that is no name of one".into());
        }
        if url.host_str().is_some_and(|host| host.ends_with('.')) {
            return Err("has a dot at the end of its host; leave it out".into());
        }
        // What parsers read differently is refused, and with it every other spelling of an
        // address: 127.1, 0x7f000001, full-width digits.
        if url.as_str().strip_suffix('/').unwrap_or_default() != text && url.as_str() != text {
            return Err(format!("is not in normal form; that is {url}"));
        }
        Ok(Self(url))
    }

    /// The URL.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The host.
    #[must_use]
    pub fn host(&self) -> Host<&str> {
        // A URL over http or https without a host is refused by the parser.
        self.0.host().unwrap_or(Host::Domain(""))
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.0.port_or_known_default().unwrap_or_default()
    }

    /// Whether it is called over TLS.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// Scheme, host and port, for people. The path and the query may hold what is secret.
    #[must_use]
    pub fn origin(&self) -> String {
        self.0.origin().ascii_serialization()
    }

    /// Host, and the port where it is not the scheme's own: the header `host`.
    #[must_use]
    pub fn authority(&self) -> &str {
        self.0.authority()
    }

    /// Path and query.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.0[url::Position::BeforePath..]
    }
}

/// Whether an `@` stands before the path, though nothing stands before it.
fn has_user(text: &str) -> bool {
    let after = text.split_once("//").map_or(text, |(_, after)| after);
    let authority = after.split(['/', '\\', '?', '#']).next();
    authority.is_some_and(|authority| authority.contains('@'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_one_spelling() {
        for good in [
            "https://example.com",
            "https://example.com/",
            "https://example.com:8443/a/b?c=d&e=%2F",
            "https://xn--bcher-kva.example/",
            "https://[2606:4700::1111]/",
            "http://10.0.0.1:8080/score",
        ] {
            assert!(Endpoint::parse(good).is_ok(), "{good}");
        }
        for (wrong, why) in [
            ("", "no absolute URL"),
            ("example.com/score", "no absolute URL"),
            ("/score", "no absolute URL"),
            ("https://", "no absolute URL"),
            ("ftp://example.com/", "must begin with https://"),
            ("file:///etc/passwd", "must begin with https://"),
            ("https://me:hunter2@example.com/", "user or a password"),
            ("https://@example.com/", "user or a password"),
            ("https://example.com/#top", "fragment"),
            ("https://example.com./", "dot at the end"),
            ("https://127.0.0.1;.example.com/", "no name"),
            ("https://example.com:443/", "normal form"),
            (
                "HTTPS://EXAMPLE.com/",
                "normal form; that is https://example.com/",
            ),
            ("https://example.com\\@evil.example/", "normal form"),
            ("https://example.com/a/../b", "normal form"),
            (" https://example.com/", "normal form"),
            ("https://exa\tmple.com/", "normal form"),
            ("https://bücher.example/", "xn--bcher-kva"),
        ] {
            let said = Endpoint::parse(wrong).unwrap_err();
            assert!(said.contains(why), "{wrong}: {said}");
            assert!(!said.contains("hunter2"), "{said}");
        }
        let long = format!("https://example.com/{}", "a".repeat(URL_MAX));
        assert!(Endpoint::parse(&long).unwrap_err().contains("2048"));
    }

    #[test]
    fn what_people_see_of_it_has_no_query() {
        let endpoint = Endpoint::parse("https://example.com:8443/score?token=hunter2").unwrap();
        assert_eq!(endpoint.origin(), "https://example.com:8443");
        assert_eq!(endpoint.authority(), "example.com:8443");
        assert_eq!(endpoint.target(), "/score?token=hunter2");
        assert_eq!(endpoint.port(), 8443);
    }
}
