//! One train call, whatever the network does: progress on a bar, repeated under its key where the connection ends before the answer.
//! Does not know where the responses come from.

use std::time::Duration;

use futures::StreamExt;
use indicatif::ProgressBar;
use tiger_client::{Client, Error};
use tiger_wire::{Chunk, ErrorCode, StopChunk, TrainRequest, TrainResponse};

use crate::args::Knobs;

/// Times that a broken connection is opened again for the same training.
const RECONNECTS: u32 = 3;
/// Pause between looks at a training that goes on without us.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The server trains this model no further: it is too far from its parent.
pub fn is_at_limit(answer: &TrainResponse) -> bool {
    answer.reason.as_deref() == Some("far_from_parent")
}

/// A request with the knobs of the command line and no responses yet.
pub fn request(model: &str, knobs: &Knobs) -> TrainRequest {
    TrainRequest {
        model: model.to_owned(),
        learning_rate: knobs.learning_rate,
        kl_coefficient: knobs.kl_coefficient,
        kl_limit: knobs.kl_limit,
        objective: knobs.objective.map(Into::into),
        ..Default::default()
    }
}

/// Trains once, also where it takes several connections: the server answers the same `key` with the same training.
pub async fn call(client: &Client, request: &TrainRequest, key: &str, bar: &ProgressBar) -> Result<TrainResponse, Error> {
    let mut reconnects = 0;
    loop {
        match attempt(client, request, key, bar).await {
            Err(Error::Api { body, .. }) if body.code == ErrorCode::IdempotencyInFlight => {
                bar.set_message("an earlier call of this training still runs");
                tokio::time::sleep(LOOK_EVERY).await;
            }
            Err(Error::Unreachable { .. }) if reconnects < RECONNECTS => {
                reconnects += 1;
                tokio::time::sleep(LOOK_EVERY).await;
            }
            ended => return ended,
        }
    }
}

async fn attempt(client: &Client, request: &TrainRequest, key: &str, bar: &ProgressBar) -> Result<TrainResponse, Error> {
    let mut chunks = client.train_stream(request, Some(key)).await?;
    while let Some(chunk) = chunks.next().await {
        match chunk? {
            Chunk::Info(info) => bar.set_message(info.message),
            Chunk::Stop(stop) => {
                if let StopChunk::Train(stop) = *stop {
                    return Ok(stop.answer);
                }
            }
            Chunk::Error(error) => return Err(Error::Api { status: error.error.kind.status(), body: Box::new(error.error) }),
            Chunk::Progress(_) | Chunk::Delta(_) => {}
        }
    }
    Err(Error::Unreachable { url: "the server".into(), reason: "the connection ended before the training did".into() })
}
