//! What is wrong with a request, field by field.

/// A field of a request that can't be accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field from the request's root, such as `conditions[2].threshold`.
    pub field: String,
    /// Why it is refused and what would be right.
    pub description: String,
}

/// Collects every violation of a request, so that a caller learns of all of them at once.
#[derive(Debug, Default)]
pub struct Violations(Vec<Violation>);

impl Violations {
    /// Notes that `field` is wrong.
    pub fn add(&mut self, field: impl Into<String>, description: impl Into<String>) {
        self.0.push(Violation {
            field: field.into(),
            description: description.into(),
        });
    }

    /// The value, or its violation noted under `field`.
    pub fn take<T>(&mut self, field: impl Into<String>, parsed: Result<T, String>) -> Option<T> {
        parsed.map_err(|why| self.add(field, why)).ok()
    }

    /// Notes `field` as too long where it has more than `max` characters.
    pub fn check_length(&mut self, field: &str, text: &str, max: usize) {
        let length = text.chars().count();
        if length > max {
            self.add(
                field,
                format!("is {length} characters long; at most {max} are allowed"),
            );
        }
        self.check_characters(field, text);
    }

    /// Notes `field` where it holds a NUL, which PostgreSQL's text can't keep.
    pub fn check_characters(&mut self, field: &str, text: &str) {
        if text.contains('\0') {
            self.add(
                field,
                "contains the character U+0000, which can't be stored",
            );
        }
    }

    /// `value` where nothing was noted, the violations otherwise.
    ///
    /// # Errors
    /// The violations, where there are any.
    pub fn finish<T>(self, value: Option<T>) -> Result<T, Vec<Violation>> {
        match value {
            Some(value) if self.0.is_empty() => Ok(value),
            Some(_) | None => Err(self.0),
        }
    }
}
