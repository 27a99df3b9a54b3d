//! Invitations: made by the owner, shown once, good for one account. Knows no HTTP.

use crate::accounts::{check_name, check_password, insert_account};
use crate::secret::{random_secret, secret_sha256};
use crate::{AccountId, AccountRow, Error, Result, Store};

/// Key of an invitation's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, sqlx::Type)]
#[sqlx(transparent)]
pub struct InvitationId(pub i64);

/// An invitation just made; `token` is shown once.
#[derive(Clone, Debug)]
pub struct Invitation {
    /// The secret, 43 base64url characters.
    pub token: String,
    /// Unix seconds after which it no longer works.
    pub expires: f64,
}

/// An invitation that can still be used.
#[derive(Clone, Debug, PartialEq, sqlx::FromRow)]
pub struct InvitationRow {
    /// Key of the row.
    pub id: InvitationId,
    /// Unix seconds.
    pub created: f64,
    /// Unix seconds after which it no longer works.
    pub expires: f64,
}

impl Store {
    /// Makes an invitation for one new account, good for `ttl_s` seconds.
    pub async fn create_invitation(&self, by: AccountId, ttl_s: f64) -> Result<Invitation> {
        let token = random_secret()?;
        let mut w = self.write_shared().await?;
        let expires = w.now + ttl_s;
        let insert = sqlx::query("INSERT INTO invitation (token_sha256, created_by, created, expires) VALUES (?, ?, ?, ?)");
        insert.bind(secret_sha256(&token)).bind(by).bind(w.now).bind(expires).execute(&mut *w.tx).await?;
        w.commit().await?;
        Ok(Invitation { token, expires })
    }

    /// Invitations that can still be used, newest first.
    pub async fn invitations(&self) -> Result<Vec<InvitationRow>> {
        let query =
            "SELECT id, created, expires FROM invitation WHERE used_by IS NULL AND expires > unixepoch('subsec') + ? ORDER BY id DESC";
        Ok(sqlx::query_as(query).bind(self.inner.options.clock_offset_s).fetch_all(self.readers()).await?)
    }

    /// Withdraws an invitation that nobody used; from then on it is unknown.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn withdraw_invitation(&self, id: InvitationId) -> Result<()> {
        let mut w = self.write_shared().await?;
        let gone = sqlx::query("DELETE FROM invitation WHERE id = ? AND used_by IS NULL").bind(id).execute(&mut *w.tx).await?;
        w.commit().await?;
        if gone.rows_affected() == 1 { Ok(()) } else { Err(Error::NotFound("the invitation")) }
    }

    /// Makes an account with an invitation, which is used up by that.
    ///
    /// # Errors
    /// [`Error::BadInvitation`], [`Error::NameTaken`] (the invitation stays good), [`Error::Invalid`].
    pub async fn accept_invitation(&self, token: &str, name: &str, password: &str) -> Result<AccountRow> {
        let name = check_name(name)?;
        let hash = self.hash(check_password(password)?).await?;
        let mut w = self.write_shared().await?;
        let id = insert_account(&mut w, (name, Some(hash)), false).await?;
        let used = sqlx::query("UPDATE invitation SET used_by = ? WHERE token_sha256 = ? AND used_by IS NULL AND expires > ?");
        let used = used.bind(id).bind(secret_sha256(token)).bind(w.now).execute(&mut *w.tx).await?;
        if used.rows_affected() != 1 {
            return Err(Error::BadInvitation);
        }
        w.commit().await?;
        self.account(id).await?.ok_or(Error::NotFound("the account"))
    }
}
