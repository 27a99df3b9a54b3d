//! Samples that expire, and sums of use.

use crate::common::world;
use tiger_store::{AccountId, Error, NewSample, Options, SAMPLE_TTL_S, UsageRecord};

fn sample(account: AccountId, id: &str) -> NewSample {
    NewSample {
        response_id: id.to_owned(),
        account,
        model: None,
        base_model: "base".to_owned(),
        revision: Some(3),
        blob_sha256: None,
        prompt_sha256: "00".to_owned(),
        tokens: vec![0, 1, 128_255, u32::MAX],
        logprobs: vec![-0.0, -1.5, f32::MIN_POSITIVE, -700.25],
        finish: "end_turn".to_owned(),
        text: "Miau 🐯".to_owned(),
    }
}

#[tokio::test]
async fn samples_come_back_bit_for_bit_for_a_day() {
    let w = world().await;
    let samples = [sample(w.owner, "r1"), sample(w.owner, "r2")];
    w.store.insert_samples(&samples).await.unwrap();
    let found = w.store.sample(w.owner, "r1").await.unwrap().unwrap();
    assert_eq!(found.sample, samples[0]);
    assert_eq!(found.sample.logprobs[0].to_bits(), (-0.0f32).to_bits());
    assert!(w.store.sample(AccountId(99), "r1").await.unwrap().is_none());
    assert!(w.store.sample(w.owner, "r3").await.unwrap().is_none());
    assert_eq!(w.store.purge_samples().await.unwrap(), 0);

    let uneven = NewSample { logprobs: vec![], ..sample(w.owner, "r5") };
    let refused = w.store.insert_samples(&[sample(w.owner, "r4"), uneven]).await;
    assert!(matches!(refused, Err(Error::Invalid { param: "logprobs", .. })));
    assert!(w.store.sample(w.owner, "r4").await.unwrap().is_none(), "all or none");

    let w = w.reopen(Options { clock_offset_s: SAMPLE_TTL_S - 60.0, ..Options::default() }).await;
    assert!(w.store.sample(w.owner, "r1").await.unwrap().is_some());
    let w = w.reopen(Options { clock_offset_s: SAMPLE_TTL_S + 60.0, ..Options::default() }).await;
    assert!(w.store.sample(w.owner, "r1").await.unwrap().is_none());
    assert_eq!(w.store.purge_samples().await.unwrap(), 2);
}

#[tokio::test]
async fn use_is_summed_by_day_key_model_and_kind() {
    let w = world().await;
    let key = w.store.create_key(w.owner, "key").await.unwrap().row.id;
    let record = |key, kind: &str, tokens| UsageRecord {
        account: w.owner,
        key,
        model: "m".to_owned(),
        kind: kind.to_owned(),
        input_tokens: tokens,
        output_tokens: 2 * tokens,
        trained_tokens: 0,
        duration: 0.5,
    };
    let records =
        [record(Some(key), "generate", 10), record(None, "generate", 1), record(Some(key), "train", 3), record(Some(key), "generate", 5)];
    w.store.record_usage(&records).await.unwrap();
    let sums = w.store.usage(w.owner, 0.0).await.unwrap();
    let sums: Vec<_> = sums.iter().map(|s| (s.key, s.kind.as_str(), s.requests, s.input_tokens, s.output_tokens, s.duration)).collect();
    assert_eq!(sums, [(None, "generate", 1, 1, 2, 0.5), (Some(key), "generate", 2, 15, 30, 1.0), (Some(key), "train", 1, 3, 6, 0.5)]);

    let w = w.reopen(Options { clock_offset_s: 2.0 * 86_400.0, ..Options::default() }).await;
    w.store.record_usage(&[UsageRecord { key: None, ..records[0].clone() }]).await.unwrap();
    let now = w.store.now().await.unwrap();
    assert_eq!(w.store.usage(w.owner, now).await.unwrap().len(), 1, "since today");
    let days: Vec<_> = w.store.usage(w.owner, 0.0).await.unwrap().into_iter().map(|s| s.day).collect();
    assert!(days.len() == 4 && days[0] > days[1], "{days:?}");
}
