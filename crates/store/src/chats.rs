//! Chats of the web page: a document that the store does not read, a title for the list, a text to search. Knows no message and no tree.

use crate::schema::Write;
use crate::{AccountId, Error, Result, Store};

/// A chat to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct NewChat {
    /// Its title.
    pub title: String,
    /// Id of the model that answers next.
    pub model: String,
    /// Number of its messages.
    pub messages: i64,
    /// The whole chat.
    pub document: String,
    /// What a search looks in; the caller folds its case as it folds the needle's.
    pub search: String,
}

/// A chat without its document.
#[derive(Clone, Debug, PartialEq, sqlx::FromRow)]
pub struct ChatRow {
    /// Public id.
    pub id: String,
    /// Its title.
    pub title: String,
    /// Id of the model that answers next.
    pub model: String,
    /// 1, and + 1 by every write.
    pub version: i64,
    /// Unix seconds.
    pub created: f64,
    /// Unix seconds of the last write.
    pub updated: f64,
    /// Number of its messages.
    pub messages: i64,
}

/// What an account may keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChatLimits {
    /// Chats.
    pub chats: i64,
    /// Bytes of all their documents together.
    pub bytes: i64,
}

/// Which part of the list, last written first.
#[derive(Clone, Debug, PartialEq)]
pub struct ChatPage {
    /// Only chats that have this text in what they are searched by.
    pub search: Option<String>,
    /// Only chats after this place: the last one's time of writing and id.
    pub before: Option<(f64, String)>,
    /// At most so many.
    pub limit: u32,
}

const CHAT: &str = "SELECT id, title, model, version, created, updated, messages FROM chat";

impl Store {
    /// Keeps a new chat, at version 1.
    ///
    /// # Errors
    /// [`Error::ChatsFull`] beyond the limits.
    pub async fn create_chat(&self, account: AccountId, chat: &NewChat, limits: ChatLimits) -> Result<ChatRow> {
        let id = format!("chat_{}", crate::secret::random_name()?.replace('-', "a").replace('_', "b"));
        let mut w = self.write_shared().await?;
        let insert = "INSERT INTO chat (id, account, title, model, version, created, updated, messages, bytes, document, search)
                      VALUES (?1, ?2, ?3, ?4, 1, ?5, ?5, ?6, ?7, ?8, ?9)";
        let insert = sqlx::query(insert).bind(&id).bind(account).bind(&chat.title).bind(&chat.model).bind(w.now).bind(chat.messages);
        insert.bind(bytes(chat)).bind(&chat.document).bind(&chat.search).execute(&mut *w.tx).await?;
        check_limits(&mut w, account, limits).await?;
        let row = row(&mut w, account, &id).await?;
        w.commit().await?;
        Ok(row)
    }

    /// One chat of an account, with its document.
    pub async fn chat(&self, account: AccountId, id: &str) -> Result<Option<(ChatRow, String)>> {
        let mut tx = self.readers().begin().await?;
        let query = sqlx::query_as(sqlx::AssertSqlSafe(format!("{CHAT} WHERE id = ? AND account = ?"))).bind(id).bind(account);
        let Some(row) = query.fetch_optional(&mut *tx).await? else { return Ok(None) };
        let document = sqlx::query_scalar("SELECT document FROM chat WHERE id = ?").bind(id).fetch_one(&mut *tx).await?;
        Ok(Some((row, document)))
    }

    /// A part of an account's list, last written first.
    pub async fn chats(&self, account: AccountId, page: &ChatPage) -> Result<Vec<ChatRow>> {
        let sql = format!(
            "{CHAT} WHERE account = ?1 AND (?2 IS NULL OR (updated, id) < (?2, ?3)) AND (?4 IS NULL OR instr(search, ?4) > 0)
             ORDER BY updated DESC, id DESC LIMIT ?5"
        );
        let (updated, id) = page.before.clone().unzip();
        let query = sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(account).bind(updated).bind(id).bind(&page.search);
        Ok(query.bind(page.limit).fetch_all(self.readers()).await?)
    }

    /// Writes a chat again, if it still is at `version`.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::ChatMoved`], [`Error::ChatsFull`].
    pub async fn update_chat(&self, account: AccountId, id: &str, version: i64, chat: &NewChat, limits: ChatLimits) -> Result<ChatRow> {
        let mut w = self.write_shared().await?;
        let current = row(&mut w, account, id).await?.version;
        if current != version {
            return Err(Error::ChatMoved { expected: version, current });
        }
        let update =
            "UPDATE chat SET title = ?, model = ?, version = version + 1, updated = ?, messages = ?, bytes = ?, document = ?, search = ?
                      WHERE id = ?";
        let update = sqlx::query(update).bind(&chat.title).bind(&chat.model).bind(w.now).bind(chat.messages).bind(bytes(chat));
        update.bind(&chat.document).bind(&chat.search).bind(id).execute(&mut *w.tx).await?;
        check_limits(&mut w, account, limits).await?;
        let row = row(&mut w, account, id).await?;
        w.commit().await?;
        Ok(row)
    }

    /// Deletes a chat.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn delete_chat(&self, account: AccountId, id: &str) -> Result<()> {
        let mut w = self.write_shared().await?;
        let gone = sqlx::query("DELETE FROM chat WHERE id = ? AND account = ?").bind(id).bind(account).execute(&mut *w.tx).await?;
        w.commit().await?;
        if gone.rows_affected() == 1 { Ok(()) } else { Err(Error::NotFound("the chat")) }
    }

    /// Deletes all chats of an account and says how many there were.
    pub async fn delete_chats(&self, account: AccountId) -> Result<u64> {
        let mut w = self.write_shared().await?;
        let gone = sqlx::query("DELETE FROM chat WHERE account = ?").bind(account).execute(&mut *w.tx).await?;
        w.commit().await?;
        Ok(gone.rows_affected())
    }
}

/// What counts against the account: the document and the text beside it.
fn bytes(chat: &NewChat) -> i64 {
    i64::try_from(chat.document.len() + chat.search.len()).unwrap_or(i64::MAX)
}

async fn row(w: &mut Write, account: AccountId, id: &str) -> Result<ChatRow> {
    let query = sqlx::query_as(sqlx::AssertSqlSafe(format!("{CHAT} WHERE id = ? AND account = ?"))).bind(id).bind(account);
    query.fetch_optional(&mut *w.tx).await?.ok_or(Error::NotFound("the chat"))
}

async fn check_limits(w: &mut Write, account: AccountId, limits: ChatLimits) -> Result<()> {
    let query = sqlx::query_as("SELECT count(*), coalesce(sum(bytes), 0) FROM chat WHERE account = ?").bind(account);
    let (chats, bytes): (i64, i64) = query.fetch_one(&mut *w.tx).await?;
    if chats > limits.chats || bytes > limits.bytes { Err(Error::ChatsFull(limits)) } else { Ok(()) }
}
