//! `/api`: the web page's session, and API keys. None of it works with an API key.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Signs in.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignInRequest {
    /// Account's name.
    pub name: String,
    /// Its password.
    pub password: String,
}

/// Creates the owner's account with the one-time token that the server printed.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateOwnerRequest {
    /// The token.
    pub token: String,
    /// Account's name.
    #[schema(
        min_length = 1,
        max_length = 64,
        pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*[^\\s\\x00-\\x1f\\x7f-\\x9f][^\\x00-\\x1f\\x7f-\\x9f]*$"
    )]
    pub name: String,
    /// Its password.
    pub password: String,
}

/// Creates an account with an invitation.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AcceptInvitationRequest {
    /// The invitation's token.
    pub invitation: String,
    /// Account's name.
    #[schema(
        min_length = 1,
        max_length = 64,
        pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*[^\\s\\x00-\\x1f\\x7f-\\x9f][^\\x00-\\x1f\\x7f-\\x9f]*$"
    )]
    pub name: String,
    /// Its password.
    pub password: String,
}

/// Who is signed in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SessionInfo {
    /// Whether somebody is.
    pub signed_in: bool,
    /// Account's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whether this is the server's owner.
    pub owner: bool,
    /// True until the owner's account exists.
    pub needs_owner: bool,
    /// The server's version.
    pub version: String,
}

/// Changes one's own password.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangePasswordRequest {
    /// The password until now.
    pub current: String,
    /// The password from now on.
    pub password: String,
}

/// An account as the owner's list shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AccountInfo {
    /// Id for deleting it.
    pub id: String,
    /// Name to sign in with.
    pub name: String,
    /// Whether this is the server's owner.
    pub owner: bool,
    /// Unix seconds.
    pub created: f64,
}

/// An invitation that nobody used yet; its token was shown when it was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct InvitationInfo {
    /// Id for withdrawing it.
    pub id: String,
    /// Unix seconds.
    pub created: f64,
    /// Unix seconds after which it no longer works.
    pub expires: f64,
}

/// Answer of a deletion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeletedResponse {
    /// Id that is gone.
    pub id: String,
    /// What happened, for people.
    pub message: String,
}

/// Answer of a sign-out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SignOutResponse {
    /// `signed out`.
    pub message: String,
}

/// An invitation, shown once.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct InvitationResponse {
    /// Hand it to one person; good once.
    pub invitation: String,
    /// Unix seconds.
    pub expires: f64,
}

/// A key as the list shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ApiKeyInfo {
    /// Id for revoking.
    pub id: String,
    /// Name, as given.
    pub name: String,
    /// First characters, to recognise it by.
    pub prefix: String,
    /// Unix seconds.
    pub created: f64,
    /// Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used: Option<f64>,
}

/// Makes a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateKeyRequest {
    /// What it is for.
    #[schema(
        min_length = 1,
        max_length = 64,
        pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*[^\\s\\x00-\\x1f\\x7f-\\x9f][^\\x00-\\x1f\\x7f-\\x9f]*$"
    )]
    pub name: String,
}

/// The one time that the key itself is shown.
#[derive(Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CreateKeyResponse {
    /// The key; it cannot be shown again.
    pub key: String,
    /// As the list shows it.
    #[serde(flatten)]
    pub info: ApiKeyInfo,
}

/// Answer of a revocation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RevokeKeyResponse {
    /// Id that is gone.
    pub id: String,
    /// `key has been revoked`.
    pub message: String,
}
