//! What happened, a line each, as it happens.

use std::{
    fmt,
    io::Write as _,
    time::{Duration, Instant},
};

/// Says what happened, with the seconds since the start. Cheap to copy.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Say {
    start: Instant,
}

impl Say {
    /// The start is now.
    pub(crate) fn from_now() -> Self {
        Self {
            start: Instant::now(),
        }
    }

    /// How long it has been since the start.
    pub(crate) fn elapsed(self) -> Duration {
        self.start.elapsed()
    }

    /// Says what somebody did, or what became of something, now.
    pub(crate) fn that(self, who: &str, what: impl fmt::Display) {
        let seconds = self.elapsed().as_secs_f64();
        line(format_args!("{seconds:6.2} s  {who:<9} {what}"));
    }
}

/// Says something that has no moment of its own.
pub(crate) fn line(what: impl fmt::Display) {
    // A demo that nobody watches any more still ends as it should.
    let _ = writeln!(std::io::stdout(), "{what}");
}
