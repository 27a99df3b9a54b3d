//! Randomness and hashes of secrets. High-entropy secrets (keys, tokens) are stored as sha256, passwords as Argon2id.

use crate::{Error, Result};
use argon2::Argon2;
use argon2::password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

/// Bytes of a key or token: 256 bits, 43 characters of base64url.
const SECRET_BYTES: usize = 32;

/// 43 base64url characters of the operating system's randomness.
pub(crate) fn random_secret() -> Result<String> {
    random_base64::<SECRET_BYTES>()
}

/// A short random name that is unlikely to be met twice (128 bits).
pub(crate) fn random_name() -> Result<String> {
    random_base64::<16>()
}

fn random_base64<const N: usize>() -> Result<String> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| Error::Internal(format!("the operating system gave no randomness: {e}")))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// What is stored of a secret.
pub(crate) fn secret_sha256(secret: &str) -> Vec<u8> {
    Sha256::digest(secret.as_bytes()).to_vec()
}

/// Whether two byte strings are equal, in time that depends on their lengths only.
pub(crate) fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && std::hint::black_box(a.iter().zip(b).fold(0, |acc, (x, y)| acc | (x ^ y))) == 0
}

/// Argon2id with the library's parameters and a random salt, as a PHC string. Slow by design: call it off the async threads.
pub(crate) fn hash_password(password: &str) -> Result<String> {
    let hash = Argon2::default().hash_password(password.as_bytes());
    hash.map(|hash| hash.to_string()).map_err(|e| Error::Internal(format!("password hash: {e}")))
}

/// Whether a password belongs to a PHC string. Slow by design: call it off the async threads.
pub(crate) fn verify_password(password: &str, phc: &str) -> Result<bool> {
    let hash = PasswordHash::new(phc).map_err(|e| Error::Internal(format!("stored password hash: {e}")))?;
    Ok(Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
}
