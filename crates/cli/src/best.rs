//! The best revision of a run, and the way back to it. A server keeps the weights of a model's last few hundred revisions only, so a best one
//! that gets old is made young again. Does not know what is measured.

use tiger_client::Client;

use crate::failure::Failure;

/// Revisions after which the best one is renewed: servers keep 256.
const RENEW_AFTER: u64 = 200;

/// The revision whose weights did best so far.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Best {
    /// How well, larger is better.
    pub score: f64,
    /// A revision that has these weights.
    pub revision: u64,
}

impl Best {
    /// Whether the model, at revision `current`, has gone so far that this one would soon be out of reach.
    pub fn is_old(&self, current: u64) -> bool {
        current.saturating_sub(self.revision) >= RENEW_AFTER
    }
}

/// Makes the best revision's weights a new revision and the current ones the newest again. Returns the revision of each: (best, current).
pub async fn renew(client: &Client, model: &str, best: u64, current: u64) -> Result<(u64, u64), Failure> {
    Ok((go_back(client, model, best).await?, go_back(client, model, current).await?))
}

/// Makes a revision's weights the newest revision; returns its number.
pub async fn go_back(client: &Client, model: &str, revision: u64) -> Result<u64, Failure> {
    let info = client.rollback(model, revision).await?;
    info.revision.ok_or_else(|| Failure::new("the server answered a roll back without a revision"))
}

#[cfg(test)]
mod tests {
    use tiger_wire::{CreateModelRequest, Message, Role, TrainGroup, TrainRequest, TrainedResponse};

    #[tokio::test(flavor = "multi_thread")]
    async fn renewing_brings_the_best_near_and_leaves_the_model_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = tiger_server::Config::new(folder.path());
        config.builtin = Some(crate::builtin::folder(folder.path()).unwrap());
        config.engine = crate::home::engine_config(None, Some(2.0), None).unwrap();
        let app = tiger_server::App::open(config).await.unwrap();
        let owner = app.store().ensure_owner().await.unwrap();
        let key = app.store().create_key(owner.id, "test").await.unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = super::Client::new(&format!("http://{}", listener.local_addr().unwrap()), &key.secret).unwrap();
        tokio::spawn(tiger_server::serve(listener, app, std::future::pending()));
        let new = CreateModelRequest { name: "m".into(), parent_model: crate::builtin::NAME.into(), seed: Some(1), ..Default::default() };
        client.create(&new).await.unwrap();
        let response = TrainedResponse { content: Some("Arr!".into()), response_id: None, reward: 1.0 };
        let group = TrainGroup { messages: vec![Message::new(Role::User, "Hello!")], responses: vec![response] };
        let request = TrainRequest { model: "m".into(), batch: Some(vec![group]), ..Default::default() };
        let dry_run = TrainRequest { dry_run: true, ..request.clone() };
        let mut scores = Vec::new();
        for _ in 0..2 {
            client.train(&request, None).await.unwrap();
            scores.push(client.train(&dry_run, None).await.unwrap().responses[0].logprob_before);
        }
        assert_eq!(super::renew(&client, "m", 1, 2).await.unwrap(), (3, 4));
        assert_eq!(client.train(&dry_run, None).await.unwrap().responses[0].logprob_before, scores[1]);
        super::go_back(&client, "m", 3).await.unwrap();
        assert_eq!(client.train(&dry_run, None).await.unwrap().responses[0].logprob_before, scores[0]);
        assert_ne!(scores[0], scores[1]);
        let best = super::Best { score: 0.0, revision: 3 };
        assert!(!best.is_old(202) && best.is_old(203));
    }
}
