//! How a command fails: a message for people and an exit code for scripts.

/// The server cannot be reached.
pub const UNREACHABLE: u8 = 3;
/// The key is missing, unknown or not allowed.
pub const UNAUTHORIZED: u8 = 4;
/// No such model or key.
pub const NOT_FOUND: u8 = 5;
/// Name taken, another revision came first, data directory in use.
pub const CONFLICT: u8 = 6;
/// Ctrl-C.
pub const INTERRUPTED: u8 = 130;

/// Why a command ended.
#[derive(Debug)]
pub struct Failure {
    /// What is wrong and what to do.
    pub message: String,
    /// Exit code.
    pub code: u8,
}

impl Failure {
    /// Exit code 1.
    pub fn new(message: impl Into<String>) -> Failure {
        Failure { message: message.into(), code: 1 }
    }

    /// `what: cause`.
    pub fn because(what: impl std::fmt::Display, cause: impl std::fmt::Display) -> Failure {
        Failure::new(format!("{what}: {cause}"))
    }

    /// To standard error.
    pub fn print(&self) {
        eprintln!("tiger: {}", self.message);
    }
}

impl From<tiger_client::Error> for Failure {
    fn from(error: tiger_client::Error) -> Failure {
        let code = match (&error, error.status()) {
            (tiger_client::Error::Unreachable { .. }, _) => UNREACHABLE,
            (_, Some(401 | 403)) => UNAUTHORIZED,
            (_, Some(404)) => NOT_FOUND,
            (_, Some(409)) => CONFLICT,
            _ => 1,
        };
        let mut message = error.to_string();
        if code == UNREACHABLE {
            message.push_str("; start a server with `tiger serve`, or set TIGER_BASE_URL");
        }
        if let Some(id) = error.request_id() {
            message.push_str(&format!(" (request {id})"));
        }
        Failure { message, code }
    }
}

impl From<tiger_store::Error> for Failure {
    fn from(error: tiger_store::Error) -> Failure {
        Failure::new(error.to_string())
    }
}

impl From<tiger_server::StartError> for Failure {
    fn from(error: tiger_server::StartError) -> Failure {
        Failure::new(error.to_string())
    }
}
