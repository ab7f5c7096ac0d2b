//! The names that callers give: prompts, environments and actors.

use std::fmt;

/// Longest free text (a comment, a reason), in characters.
pub const TEXT_MAX: usize = 4096;

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $max:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// Longest name, in characters.
            pub const MAX: usize = $max;

            /// Reads a name.
            ///
            /// # Errors
            /// A sentence that says what is wrong with it and what would be right.
            pub fn parse(text: &str) -> Result<Self, String> {
                check_name(text, Self::MAX).map(|()| Self(text.to_owned()))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// The id of a prompt; also its flag key. `[A-Za-z0-9][A-Za-z0-9_.-]{0,127}`.
    PromptId,
    128
);
name!(
    /// The name of an environment; also a path segment. `[A-Za-z0-9][A-Za-z0-9_.-]{0,62}`.
    Environment,
    63
);

fn check_name(text: &str, max: usize) -> Result<(), String> {
    if text.is_empty() {
        return Err("is required".into());
    }
    if text.chars().count() > max {
        return Err(format!("is longer than {max} characters"));
    }
    let starts_well = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    let well_formed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if starts_well && text.chars().all(well_formed) {
        Ok(())
    } else {
        Err(
            "must start with a letter or a digit, and hold only letters, digits, '_', '.' and '-'"
                .into(),
        )
    }
}

/// Who does something. Until callers are authenticated this is what they say of themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor(String);

impl Actor {
    /// Longest name of an actor, in characters.
    pub const MAX: usize = 128;

    /// The service itself, for what it does without being asked.
    #[must_use]
    pub fn system() -> Self {
        Self("system".into())
    }

    /// A caller who did not say who they are.
    #[must_use]
    pub fn anonymous() -> Self {
        Self("anonymous".into())
    }

    /// Reads the name that a caller gives.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it: `system` is the service's own name.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(Self::anonymous());
        }
        if text.chars().count() > Self::MAX {
            return Err(format!("is longer than {} characters", Self::MAX));
        }
        if text.chars().any(char::is_control) {
            return Err("contains a control character".into());
        }
        if text.eq_ignore_ascii_case("system") {
            return Err(
                "'system' is the name under which the service itself acts; give your own".into(),
            );
        }
        Ok(Self(text.to_owned()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_flag_keys_and_path_segments() {
        for good in ["a", "prompt-abc123", "0", "A_b.c-d", &"x".repeat(128)] {
            assert!(PromptId::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "-a",
            ".a",
            "_a",
            "a b",
            "a/b",
            "ä",
            "a\n",
            &"x".repeat(129),
        ] {
            assert!(PromptId::parse(bad).is_err(), "{bad}");
        }
        assert!(Environment::parse(&"x".repeat(63)).is_ok());
        assert!(Environment::parse(&"x".repeat(64)).is_err());
    }

    #[test]
    fn nobody_can_call_themselves_system() {
        assert!(Actor::parse(" System ").is_err());
        assert_eq!(Actor::parse("  ").unwrap(), Actor::anonymous());
        assert_eq!(
            Actor::parse("zoë@example.com").unwrap().as_str(),
            "zoë@example.com"
        );
    }
}
