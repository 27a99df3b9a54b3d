//! API keys: made once, shown once, stored as a hash. Knows no header and no rate limit.

use crate::secret::{constant_time_eq, random_secret, secret_sha256};
use crate::{AccountId, Error, Result, Store};

/// Key of an API key's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, sqlx::Type)]
#[sqlx(transparent)]
pub struct KeyId(pub i64);

/// What a list of keys shows; never the secret.
#[derive(Clone, Debug, PartialEq, sqlx::FromRow)]
pub struct ApiKeyRow {
    /// Key of the row.
    pub id: KeyId,
    /// Whose key it is.
    pub account: AccountId,
    /// The name that its maker gave it.
    pub name: String,
    /// The secret's beginning, enough to tell keys apart: `tiger_` and six characters.
    pub prefix: String,
    /// Unix seconds.
    pub created: f64,
    /// Unix seconds, exact to a minute; `None` when never used.
    pub last_used: Option<f64>,
    /// Unix seconds of its revocation; `None` while it works.
    pub revoked: Option<f64>,
}

/// A key just made. `secret` cannot be had again.
#[derive(Clone, Debug)]
pub struct NewApiKey {
    /// The row.
    pub row: ApiKeyRow,
    /// `tiger_` and 43 base64url characters of the operating system's randomness.
    pub secret: String,
}

/// Whose request it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authenticated {
    /// The account.
    pub account: AccountId,
    /// The key it came with.
    pub key: KeyId,
}

/// Begins every secret, so that leaked keys are recognised by scanners.
const MARK: &str = "tiger_";
/// Characters of the random part that the list shows and the index finds: 36 bits, far from guessable in the rest.
const PREFIX_CHARS: usize = 6;
/// Length of a whole secret.
const SECRET_CHARS: usize = MARK.len() + 43;
/// `last_used` is written at most this often, in seconds: a write per request would cost a disk sync each.
const LAST_USED_EVERY_S: f64 = 60.0;
/// Longest name of a key, in characters.
const MAX_NAME_CHARS: usize = 64;

const KEY: &str = "SELECT id, account, name, prefix, created, last_used, revoked FROM api_key";

/// A key whose prefix fits: its id, account, hash, last use, and the database's clock.
type Candidate = (KeyId, AccountId, Vec<u8>, Option<f64>, f64);

impl Store {
    /// Makes an API key.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a name that is empty, too long or has control characters.
    pub async fn create_key(&self, account: AccountId, name: &str) -> Result<NewApiKey> {
        let name = name.trim();
        if name.is_empty() || name.chars().count() > MAX_NAME_CHARS || name.chars().any(char::is_control) {
            return Err(Error::invalid("name", format!("must have 1 to {MAX_NAME_CHARS} characters and no control characters")));
        }
        let secret = format!("{MARK}{}", random_secret()?);
        let prefix = secret[..MARK.len() + PREFIX_CHARS].to_owned();
        let mut w = self.write_shared().await?;
        let live = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM account WHERE id = ? AND deleted_at IS NULL)");
        if !live.bind(account).fetch_one(&mut *w.tx).await? {
            return Err(Error::NotFound("the account"));
        }
        let insert = sqlx::query("INSERT INTO api_key (account, name, prefix, secret_sha256, created) VALUES (?, ?, ?, ?, ?)");
        let insert = insert.bind(account).bind(name).bind(&prefix).bind(secret_sha256(&secret)).bind(w.now);
        let id = KeyId(insert.execute(&mut *w.tx).await?.last_insert_rowid());
        let created = w.now;
        w.commit().await?;
        let row = ApiKeyRow { id, account, name: name.to_owned(), prefix, created, last_used: None, revoked: None };
        Ok(NewApiKey { row, secret })
    }

    /// An account's keys, newest first, revoked ones too.
    pub async fn keys(&self, account: AccountId) -> Result<Vec<ApiKeyRow>> {
        let query = sqlx::query_as(sqlx::AssertSqlSafe(format!("{KEY} WHERE account = ? ORDER BY id DESC"))).bind(account);
        Ok(query.fetch_all(self.readers()).await?)
    }

    /// Revokes a key of an account; from the next request on it opens nothing. Revoking it again changes nothing.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the account has no such key.
    pub async fn revoke_key(&self, account: AccountId, key: KeyId) -> Result<()> {
        let mut w = self.write_shared().await?;
        let update = sqlx::query("UPDATE api_key SET revoked = coalesce(revoked, ?) WHERE id = ? AND account = ?");
        let done = update.bind(w.now).bind(key).bind(account).execute(&mut *w.tx).await?;
        w.commit().await?;
        // After the commit: what another process's server looks up from now on is what it finds.
        self.inner.known_keys.forget_all()?;
        if done.rows_affected() == 1 { Ok(()) } else { Err(Error::NotFound("the API key")) }
    }

    /// Whose key a secret is, or `None` for an unknown or revoked one. Secrets are compared as hashes, in constant time. A key that was
    /// found is remembered for some seconds; a revocation, by whichever process, makes all be forgotten.
    pub async fn authenticate(&self, secret: &str) -> Result<Option<Authenticated>> {
        if secret.len() != SECRET_CHARS || !secret.starts_with(MARK) || !secret.is_ascii() {
            return Ok(None);
        }
        let hash = secret_sha256(secret);
        // Counted before the look: a revocation in between is noticed at the next request.
        let revocations = self.inner.known_keys.revocations();
        if let Some(known) = self.inner.known_keys.get(&hash, revocations) {
            return Ok(Some(known));
        }
        let query = sqlx::query_as(
            "SELECT id, account, secret_sha256, last_used, unixepoch('subsec') + ? FROM api_key WHERE prefix = ? AND revoked IS NULL",
        );
        let query = query.bind(self.inner.options.clock_offset_s).bind(&secret[..MARK.len() + PREFIX_CHARS]);
        let candidates: Vec<Candidate> = query.fetch_all(self.readers()).await?;
        let found = candidates.into_iter().find(|(_, _, stored, _, _)| constant_time_eq(stored, &hash));
        let Some((key, account, _, last_used, now)) = found else { return Ok(None) };
        if last_used.is_none_or(|used| now - used >= LAST_USED_EVERY_S) {
            // A full disk must not lock everybody out: the key is right whether or not its use can be noted.
            if let Err(error) = self.note_use(key).await {
                tracing::warn!(%error, "the last use of an API key could not be noted");
            }
        }
        let found = Authenticated { account, key };
        self.inner.known_keys.insert(hash, revocations, found);
        Ok(Some(found))
    }

    async fn note_use(&self, key: KeyId) -> Result<()> {
        let mut w = self.write_shared().await?;
        sqlx::query("UPDATE api_key SET last_used = ? WHERE id = ?").bind(w.now).bind(key).execute(&mut *w.tx).await?;
        w.commit().await
    }
}
