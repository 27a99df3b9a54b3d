//! Accounts and web sessions. Knows no cookie and no HTTP; hands secrets out once and stores their hashes.

use crate::secret::{self, random_secret, secret_sha256};
use crate::{Error, Result, Store};

/// Key of an account row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, sqlx::Type)]
#[sqlx(transparent)]
pub struct AccountId(pub i64);

/// One account. The owner is the one account that may invite others.
#[derive(Clone, Debug, PartialEq, sqlx::FromRow)]
pub struct AccountRow {
    /// Key of the row.
    pub id: AccountId,
    /// Name to sign in with, unique whatever its case.
    pub name: String,
    /// Whether this is the server's owner.
    pub owner: bool,
    /// Whether a password is set; without one nobody can sign in, and API keys still work.
    pub has_password: bool,
    /// Unix seconds.
    pub created: f64,
}

/// A web session found by its token.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionRow {
    /// Whose session it is.
    pub account: AccountRow,
    /// Unix seconds.
    pub created: f64,
    /// Unix seconds after which it no longer works.
    pub expires: f64,
}

/// Usual life of a web session, in seconds: 30 days.
pub const SESSION_TTL_S: f64 = 30.0 * 86_400.0;

/// Name of the owner that the command line makes before anybody signed in.
const OWNER_NAME: &str = "owner";
/// Longest account name, in characters: it is shown in one line.
const MAX_NAME_CHARS: usize = 64;
/// Shortest password, in characters.
const MIN_PASSWORD_CHARS: usize = 8;
/// Longest password, in bytes: hashing takes time in proportion.
const MAX_PASSWORD_BYTES: usize = 1024;

const ACCOUNT: &str = "SELECT id, name, owner, password_hash IS NOT NULL AS has_password, created FROM account WHERE deleted_at IS NULL";

impl Store {
    /// Whether there is an owner who can sign in (one made by [`Store::ensure_owner`] cannot, until [`Store::create_owner`]).
    pub async fn has_owner(&self) -> Result<bool> {
        let found = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM account WHERE owner = 1 AND password_hash IS NOT NULL)");
        Ok(found.fetch_one(self.readers()).await?)
    }

    /// Makes the owner, or names and equips the owner whom [`Store::ensure_owner`] made (who keeps keys and models).
    ///
    /// # Errors
    /// [`Error::OwnerExists`] when the owner has a password already; [`Error::Invalid`] for a bad name or password.
    pub async fn create_owner(&self, name: &str, password: Option<&str>) -> Result<AccountRow> {
        let name = check_name(name)?;
        let hash = match password {
            Some(password) => Some(self.hash(check_password(password)?).await?),
            None => None,
        };
        let mut w = self.write_shared().await?;
        let owner: Option<(AccountId, bool)> =
            sqlx::query_as("SELECT id, password_hash IS NOT NULL FROM account WHERE owner = 1").fetch_optional(&mut *w.tx).await?;
        let id = match owner {
            Some((_, true)) => return Err(Error::OwnerExists),
            Some((id, false)) => {
                let update = sqlx::query("UPDATE account SET name = ?, password_hash = ? WHERE id = ?").bind(name).bind(hash).bind(id);
                update.execute(&mut *w.tx).await.map_err(|e| taken(e, name))?;
                id
            }
            None => insert_account(&mut w, (name, hash), true).await?,
        };
        w.commit().await?;
        self.account(id).await?.ok_or(Error::NotFound("the account"))
    }

    /// The owner's account, made without a password where there is none: API keys can be made on the command line before any web
    /// sign-in.
    pub async fn ensure_owner(&self) -> Result<AccountRow> {
        let mut w = self.write_shared().await?;
        let owner: Option<AccountId> = sqlx::query_scalar("SELECT id FROM account WHERE owner = 1").fetch_optional(&mut *w.tx).await?;
        let id = match owner {
            Some(id) => id,
            None => insert_account(&mut w, (OWNER_NAME, None), true).await?,
        };
        w.commit().await?;
        self.account(id).await?.ok_or(Error::NotFound("the account"))
    }

    /// One account.
    pub async fn account(&self, id: AccountId) -> Result<Option<AccountRow>> {
        let query = sqlx::query_as(sqlx::AssertSqlSafe(format!("{ACCOUNT} AND id = ?"))).bind(id);
        Ok(query.fetch_optional(self.readers()).await?)
    }

    /// Every account, oldest first.
    pub async fn accounts(&self) -> Result<Vec<AccountRow>> {
        let query = sqlx::query_as(sqlx::AssertSqlSafe(format!("{ACCOUNT} ORDER BY id")));
        Ok(query.fetch_all(self.readers()).await?)
    }

    /// The account of a name and its password, or `None`; takes as long for an unknown name as for a wrong password.
    pub async fn verify_password(&self, name: &str, password: &str) -> Result<Option<AccountRow>> {
        let query = sqlx::query_as("SELECT id, password_hash FROM account WHERE name = ?").bind(name);
        let found: Option<(AccountId, Option<String>)> = query.fetch_optional(self.readers()).await?;
        if password.len() > MAX_PASSWORD_BYTES {
            return Ok(None);
        }
        match found {
            Some((id, Some(phc))) => {
                let password = password.to_owned();
                let right = self.hashing(move || secret::verify_password(&password, &phc)).await?;
                if right { self.account(id).await } else { Ok(None) }
            }
            _ => self.hash(password).await.map(|_| None),
        }
    }

    /// Sets an account's password and ends its web sessions.
    pub async fn set_password(&self, account: AccountId, password: &str) -> Result<()> {
        let hash = self.hash(check_password(password)?).await?;
        let mut w = self.write_shared().await?;
        let set = sqlx::query("UPDATE account SET password_hash = ? WHERE id = ? AND deleted_at IS NULL")
            .bind(hash)
            .bind(account)
            .execute(&mut *w.tx)
            .await?;
        if set.rows_affected() != 1 {
            return Err(Error::NotFound("the account"));
        }
        sqlx::query("DELETE FROM session WHERE account = ?").bind(account).execute(&mut *w.tx).await?;
        w.commit().await
    }

    /// Deletes an account in one transaction: its sessions, chats and samples go, its keys are revoked, its models are deleted and their
    /// trainings cancelled, its name is free again. Its use stays counted. What it has in flight ends with what it holds.
    ///
    /// # Errors
    /// [`Error::OwnerStays`], [`Error::NotFound`].
    pub async fn delete_account(&self, account: AccountId) -> Result<()> {
        let mut w = self.write().await?;
        let owner: Option<bool> = sqlx::query_scalar("SELECT owner FROM account WHERE id = ? AND deleted_at IS NULL")
            .bind(account)
            .fetch_optional(&mut *w.tx)
            .await?;
        if owner.ok_or(Error::NotFound("the account"))? {
            return Err(Error::OwnerStays);
        }
        // A name with a control character is nobody's: such names are refused.
        let steps = [
            "DELETE FROM session WHERE account = ?1",
            "DELETE FROM chat WHERE account = ?1",
            "DELETE FROM sample WHERE account = ?1",
            "UPDATE api_key SET revoked = coalesce(revoked, ?2) WHERE account = ?1",
            "UPDATE train SET state = 'cancelled', request = NULL, error = 'the account was deleted', ended = ?2
             WHERE model IN (SELECT key FROM model WHERE account = ?1) AND state IN ('queued', 'running')",
            "UPDATE model SET deleted_at = ?2, default_model = 0 WHERE account = ?1 AND deleted_at IS NULL",
            "UPDATE account SET deleted_at = ?2, password_hash = NULL, name = char(127) || id WHERE id = ?1",
        ];
        for step in steps {
            sqlx::query(step).bind(account).bind(w.now).execute(&mut *w.tx).await?;
        }
        w.commit().await?;
        self.inner.queue.notify_waiters();
        self.inner.known_keys.forget_all()
    }

    /// Begins a web session of `ttl_s` seconds and returns its token, 43 base64url characters, which is stored as a hash only.
    pub async fn create_session(&self, account: AccountId, ttl_s: f64) -> Result<String> {
        let token = random_secret()?;
        let mut w = self.write_shared().await?;
        sqlx::query("DELETE FROM session WHERE expires <= ?").bind(w.now).execute(&mut *w.tx).await?;
        let insert = sqlx::query("INSERT INTO session (token_sha256, account, created, expires) VALUES (?, ?, ?, ?)");
        insert.bind(secret_sha256(&token)).bind(account).bind(w.now).bind(w.now + ttl_s).execute(&mut *w.tx).await?;
        w.commit().await?;
        Ok(token)
    }

    /// The session of a token, unless it expired or was revoked.
    pub async fn session(&self, token: &str) -> Result<Option<SessionRow>> {
        let query = sqlx::query_as("SELECT account, created, expires FROM session WHERE token_sha256 = ?").bind(secret_sha256(token));
        let found: Option<(AccountId, f64, f64)> = query.fetch_optional(self.readers()).await?;
        let Some((account, created, expires)) = found else { return Ok(None) };
        if self.now().await? >= expires {
            return Ok(None);
        }
        Ok(self.account(account).await?.map(|account| SessionRow { account, created, expires }))
    }

    /// Ends a session; `false` when there was none.
    pub async fn revoke_session(&self, token: &str) -> Result<bool> {
        let mut w = self.write_shared().await?;
        let gone = sqlx::query("DELETE FROM session WHERE token_sha256 = ?").bind(secret_sha256(token)).execute(&mut *w.tx).await?;
        w.commit().await?;
        Ok(gone.rows_affected() == 1)
    }

    pub(crate) async fn hash(&self, password: &str) -> Result<String> {
        let password = password.to_owned();
        self.hashing(move || secret::hash_password(&password)).await
    }

    /// Runs a slow hash on a blocking thread, a few at once.
    async fn hashing<T: Send + 'static>(&self, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        let permit = self.inner.hashing.clone().acquire_owned().await.map_err(|e| Error::Internal(e.to_string()))?;
        // The permit goes with the thread: a caller who left does not let a further hash in early.
        let done = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(permit);
            done
        });
        done.await.map_err(|e| Error::Internal(format!("password hash: {e}")))?
    }
}

pub(crate) async fn insert_account(w: &mut crate::schema::Write, (name, hash): (&str, Option<String>), owner: bool) -> Result<AccountId> {
    let insert = sqlx::query("INSERT INTO account (name, password_hash, owner, created) VALUES (?, ?, ?, ?)");
    let inserted = insert.bind(name).bind(hash).bind(owner).bind(w.now).execute(&mut *w.tx).await;
    Ok(AccountId(inserted.map_err(|e| taken(e, name))?.last_insert_rowid()))
}

fn taken(error: sqlx::Error, name: &str) -> Error {
    match error.as_database_error() {
        Some(e) if e.is_unique_violation() => Error::NameTaken(name.to_owned()),
        _ => error.into(),
    }
}

pub(crate) fn check_name(name: &str) -> Result<&str> {
    let name = name.trim();
    if name.is_empty() || name.chars().count() > MAX_NAME_CHARS || name.chars().any(char::is_control) {
        return Err(Error::invalid("name", format!("must have 1 to {MAX_NAME_CHARS} characters and no control characters")));
    }
    Ok(name)
}

pub(crate) fn check_password(password: &str) -> Result<&str> {
    if password.chars().count() < MIN_PASSWORD_CHARS || password.len() > MAX_PASSWORD_BYTES {
        return Err(Error::invalid(
            "password",
            format!("must have at least {MIN_PASSWORD_CHARS} characters and at most {MAX_PASSWORD_BYTES} bytes"),
        ));
    }
    Ok(password)
}
