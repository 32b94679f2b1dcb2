//! How a command ends badly: one sentence for the person, one exit code for the script.
//!
//! The codes are those of the contract, section 6. Only `main` prints.

use std::fmt;

/// A command that could not do what was asked.
#[derive(Debug)]
pub struct Failure {
    kind: Kind,
    text: String,
    hint: Option<String>,
}

/// What kind of trouble it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The command line does not make sense.
    Usage,
    /// What was handed in is not acceptable.
    Data,
    /// The other side cannot be reached.
    Unreachable,
    /// Our bug.
    Internal,
    /// A file or socket of this machine does not work.
    Io,
    /// It may work later.
    TryAgain,
    /// Not allowed.
    NotAllowed,
    /// The configuration is wrong.
    Configuration,
}

impl Kind {
    /// The exit code.
    pub fn code(self) -> u8 {
        match self {
            Self::Usage => 2,
            Self::Data => 65,
            Self::Unreachable => 69,
            Self::Internal => 70,
            Self::Io => 74,
            Self::TryAgain => 75,
            Self::NotAllowed => 77,
            Self::Configuration => 78,
        }
    }
}

impl Failure {
    /// A failure of that kind.
    pub fn new(kind: Kind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into(), hint: None }
    }

    /// Says what would be right.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The exit code.
    pub fn code(&self) -> u8 {
        self.kind.code()
    }

    /// Whether everything has been said already, so that only the exit code is left.
    pub fn is_silent(&self) -> bool {
        self.text.is_empty()
    }

    /// A failure whose message the command has shown itself.
    pub fn told(kind: Kind) -> Self {
        Self::new(kind, String::new())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  {hint}"),
            None => Ok(()),
        }
    }
}

/// Writing to a closed pipe ends a command quietly; other trouble is told.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            Self::told(Kind::Io)
        } else {
            Self::new(Kind::Io, error.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_the_contracts() {
        let codes = [
            (Kind::Usage, 2),
            (Kind::Data, 65),
            (Kind::Unreachable, 69),
            (Kind::Internal, 70),
            (Kind::Io, 74),
            (Kind::TryAgain, 75),
            (Kind::NotAllowed, 77),
            (Kind::Configuration, 78),
        ];
        for (kind, code) in codes {
            assert_eq!(kind.code(), code);
        }
    }
}
