//! A revision beside another one: both answer the same prompts with the same seeds, and each scores what the other said and the texts given.
//! Answers come from the path of every generate request, scores from a training of equal rewards that changes nothing: there is no forward
//! of its own here. Does not know HTTP.

use std::sync::Arc;
use std::time::Instant;

use futures::StreamExt;
use tiger_engine::{Baseline, Group, Knobs, Response as EngineResponse, TrainEvent, TrainRequest as EngineRequest};
use tiger_model::{Adapter, AdapterState};
use tiger_store::UsageRecord;
use tiger_wire::{
    Chunk, ErrorCode, EvaluatePrompt, EvaluateRequest, EvaluateResponse, EvaluateResult, EvaluateUsage, EvaluatedAnswer, EvaluatedAnswers,
    EvaluatedResponse, GenerateRequest, ProgressChunk, Sample, StepMetricsOrEmpty, Usage,
};

use crate::app::App;
use crate::auth::Caller;
use crate::bases::Front;
use crate::error::ApiError;
use crate::generation::{Plan, random_seed};
use crate::limits::EVALUATE_AT_ONCE;
use crate::prompt::{self, Prompt};
use crate::router::random_id;
use crate::stream::ChunkSender;
use crate::target::{Own, Target};

/// What is compared, checked as far as it can be without a tokenizer.
pub struct Comparison {
    /// Who asks.
    pub caller: Caller,
    /// When the request came.
    pub started: Instant,
    /// The model at the revision in question, and at the one it is compared with.
    pub sides: [Own; 2],
    /// As asked.
    pub request: EvaluateRequest,
    /// Answers of each side to each prompt.
    pub samples: u32,
    /// Most tokens of an answer.
    pub max_tokens: u32,
}

/// A comparison in tokens.
pub struct Evaluation {
    comparison: Comparison,
    front: Arc<Front>,
    seed: u64,
    prompts: Vec<Encoded>,
}

/// A prompt and the given responses to it.
struct Encoded {
    prompt: Prompt,
    responses: Vec<Vec<u32>>,
}

/// An answer with its tokens.
struct Answer {
    sample: Sample,
    tokens: Vec<u32>,
    /// Sum of the log-probs that the sampler saw.
    logprob: f64,
}

/// The answers of one side, by prompt.
type Answers = Vec<Vec<Answer>>;

impl Comparison {
    /// Turns texts into tokens and checks their lengths.
    pub async fn encode(self, app: &App, sink: Option<&ChunkSender>) -> Result<Evaluation, ApiError> {
        let base = Arc::clone(&self.sides[0].base);
        if let (Some(sink), false) = (sink, base.front_is_loaded()) {
            sink.info("Loading tokenizer", None, "loading").await?;
        }
        let front = base.front().await?;
        let (texts, now) = (self.request.prompts.clone(), app.config().clock.unix_s());
        let (context, asks) = (base.facts()?.architecture.context_length, self.samples > 0);
        let encode = move |front: &Front| {
            let one = |(index, prompt): (usize, &EvaluatePrompt)| encoded(front, (index, prompt), now, (context, asks));
            texts.iter().enumerate().map(one).collect::<Result<Vec<_>, _>>()
        };
        let prompts = prompt::blocking(Arc::clone(&front), encode).await?;
        self.check_size(&prompts, context, app.limits().train_tokens)?;
        let seed = match self.request.seed {
            Some(seed) => seed,
            None => random_seed()?,
        };
        Ok(Evaluation { comparison: self, front, seed, prompts })
    }

    fn check_size(&self, prompts: &[Encoded], context: usize, limit: usize) -> Result<(), ApiError> {
        let given: usize = prompts.iter().map(|p| p.prompt.tokens.len() + p.responses.iter().map(Vec::len).sum::<usize>()).sum();
        if given > limit {
            let message = format!("the prompts and responses have {given} tokens; at most {limit} are evaluated in one call; split it");
            return Err(ApiError::invalid("prompts", message));
        }
        let each = self.sides.len() * self.samples as usize;
        let room = |prompt: &Encoded| (self.max_tokens as usize).min(context.saturating_sub(prompt.prompt.tokens.len()));
        if given + each * prompts.iter().map(room).sum::<usize>() > limit {
            let fits = (limit - given) / (each * prompts.len());
            let message = format!(
                "{} answers of up to {} tokens are more than one call may evaluate ({limit} tokens); set `max_tokens` to at most {fits}, or split the call",
                each * prompts.len(),
                self.max_tokens
            );
            return Err(ApiError::invalid("max_tokens", message));
        }
        Ok(())
    }
}

fn encoded(
    front: &Front,
    (index, prompt): (usize, &EvaluatePrompt),
    now: i64,
    (context, asks): (usize, bool),
) -> Result<Encoded, ApiError> {
    let path = format!("prompts[{index}]");
    let messages = format!("{path}.messages");
    let encoded = prompt::encode_prompt(front, &prompt.messages, now).map_err(|error| error.param(messages.as_str()))?;
    let used = encoded.tokens.len();
    if asks && used >= context {
        let message = format!(
            "`{messages}` has {used} tokens; the model's context has {context}, and at least one must be left for an answer; shorten it"
        );
        return Err(ApiError::refused(ErrorCode::ContextLengthExceeded, messages, message));
    }
    let mut responses = Vec::new();
    for (at, content) in prompt.responses.iter().flatten().enumerate() {
        let param = format!("{path}.responses[{at}]");
        let tokens = prompt::encode_response(front, &prompt.messages, content, now).map_err(|error| error.param(param.as_str()))?;
        if tokens.is_empty() {
            return Err(ApiError::invalid(param.clone(), format!("`{param}` has no token to score; leave it out")));
        }
        let length = used + tokens.len();
        if length > context {
            let message = format!("`{param}`: messages and response have {length} tokens together; the model's context has {context}");
            return Err(ApiError::refused(ErrorCode::ContextLengthExceeded, param, message));
        }
        responses.push(tokens);
    }
    Ok(Encoded { prompt: encoded, responses })
}

impl Evaluation {
    /// Samples, scores, sums up.
    pub async fn run(self, app: &App, sink: Option<&ChunkSender>) -> Result<EvaluateResponse, ApiError> {
        let asked = if self.comparison.samples > 0 { 2 * self.prompts.len() } else { 0 };
        let mut progress = Progress { sink, done: 0, all: u32::try_from(asked + 2).unwrap_or(u32::MAX) };
        let mut usage = EvaluateUsage::default();
        let [ours, theirs] = self.sample(app, &mut progress, &mut usage).await?;
        let mut scores = Vec::new();
        for (side, others) in [(0, &theirs), (1, &ours)] {
            scores.push(self.score(app, (side, others), &mut usage).await?);
            progress.step().await?;
        }
        let (ours_score, theirs_score) = (scores.remove(0), scores.remove(0));
        usage.duration = self.comparison.started.elapsed().as_secs_f64();
        self.answer([ours, theirs], [ours_score, theirs_score], usage)
    }

    /// Both sides' answers; some prompts at once, and whichever comes first.
    async fn sample(&self, app: &App, progress: &mut Progress<'_>, usage: &mut EvaluateUsage) -> Result<[Answers; 2], ApiError> {
        let mut answers: [Answers; 2] = std::array::from_fn(|_| self.prompts.iter().map(|_| Vec::new()).collect());
        if self.comparison.samples == 0 {
            return Ok(answers);
        }
        let work: Vec<_> = (0..self.prompts.len()).flat_map(|index| [0, 1].map(|side| self.ask(app, side, index))).collect();
        let mut work = futures::stream::iter(work).buffer_unordered(EVALUATE_AT_ONCE);
        while let Some(done) = work.next().await {
            let (side, index, samples, used) = done?;
            usage.input_tokens += used.input_tokens;
            usage.cached_tokens += used.cached_tokens;
            usage.output_tokens += used.output_tokens;
            answers[side][index] = samples;
            progress.step().await?;
        }
        Ok(answers)
    }

    async fn ask(&self, app: &App, side: usize, index: usize) -> Result<(usize, usize, Vec<Answer>, Usage), ApiError> {
        let Comparison { caller, sides, request, samples, max_tokens, .. } = &self.comparison;
        let (asked, own) = (&request.prompts[index], &sides[side]);
        let generate = GenerateRequest {
            messages: asked.messages.clone(),
            temperature: request.temperature,
            top_p: request.top_p,
            top_k: request.top_k,
            max_tokens: Some(*max_tokens),
            seed: Some(self.seed.wrapping_add(index as u64)),
            n: Some(*samples),
            // Each token with what the sampler saw, to be scored by the other side.
            logprobs: true,
            ..GenerateRequest::default()
        };
        let plan = Plan::of(app, Target::Own(Box::new(own.clone())), (*caller, Instant::now()), generate)?;
        let run = plan.begin(app, Arc::clone(&self.front), self.prompts[index].prompt.clone(), None)?;
        let finished = run.finish(app, None).await?;
        let answers = finished.samples.into_iter().map(|mut sample| {
            let entries = sample.logprobs.take().unwrap_or_default();
            let logprob = entries.iter().map(|entry| f64::from(entry.logprob)).sum();
            Answer { sample, tokens: entries.iter().map(|entry| entry.token_id).collect(), logprob }
        });
        Ok((side, index, answers.collect(), finished.usage))
    }

    /// Sums of log-probs under one side: for each prompt those of the given responses, then those of the other side's answers.
    async fn score(&self, app: &App, (side, others): (usize, &Answers), usage: &mut EvaluateUsage) -> Result<Vec<Vec<f64>>, ApiError> {
        let response = |tokens: &Vec<u32>| EngineResponse { tokens: tokens.clone(), reward: 0.0, recorded: None };
        let groups = self.prompts.iter().zip(others).map(|(prompt, answers)| Group {
            prompt: prompt.prompt.tokens.clone(),
            responses: prompt.responses.iter().chain(answers.iter().map(|answer| &answer.tokens)).map(response).collect(),
        });
        let groups: Vec<Group> = groups.collect();
        let counts: Vec<usize> = groups.iter().map(|group| group.responses.len()).collect();
        let groups: Vec<Group> = groups.into_iter().filter(|group| !group.responses.is_empty()).collect();
        let prompts: usize = groups.iter().map(|group| group.prompt.len()).sum();
        let tokens: usize = groups.iter().flat_map(|group| &group.responses).map(|response| response.tokens.len()).sum();
        usage.scored_tokens += tokens as u64;
        let started = Instant::now();
        let mut sums = scores(app, &self.comparison.sides[side], groups).await?.into_iter();
        app.recorder()?.usage(UsageRecord {
            account: self.comparison.caller.account,
            key: self.comparison.caller.key,
            model: self.comparison.sides[side].row.id.clone(),
            kind: "evaluate".to_owned(),
            input_tokens: i64::try_from(prompts + tokens).unwrap_or(i64::MAX),
            output_tokens: 0,
            trained_tokens: 0,
            duration: started.elapsed().as_secs_f64(),
        });
        Ok(counts.into_iter().map(|count| sums.by_ref().take(count).collect()).collect())
    }

    fn answer(
        self,
        sides: [Answers; 2],
        [by_model, by_against]: [Vec<Vec<f64>>; 2],
        usage: EvaluateUsage,
    ) -> Result<EvaluateResponse, ApiError> {
        let [ours, theirs] = sides;
        let mean_tokens = |answers: &Answers| {
            let counts: Vec<f64> = answers.iter().flatten().map(|answer| answer.tokens.len() as f64).collect();
            (!counts.is_empty()).then(|| counts.iter().sum::<f64>() / counts.len() as f64)
        };
        let means = (mean_tokens(&ours), mean_tokens(&theirs));
        let (mut model, mut against, mut moved) = (Mean::default(), Mean::default(), Mean::default());
        let mut results = Vec::with_capacity(self.prompts.len());
        let texts = self.comparison.request.prompts.into_iter().map(|prompt| prompt.responses.unwrap_or_default());
        for (((prompt, texts), (ours, theirs)), (by_model, by_against)) in
            self.prompts.iter().zip(texts).zip(ours.into_iter().zip(theirs)).zip(by_model.iter().zip(&by_against))
        {
            let given = prompt.responses.len();
            let missing = || ApiError::internal("the engine scored fewer responses than it was given");
            let scored = (by_model.split_at_checked(given).ok_or_else(missing)?, by_against.split_at_checked(given).ok_or_else(missing)?);
            let ((model_given, model_other), (against_given, against_other)) = scored;
            for (answer, other) in ours.iter().zip(against_other) {
                moved.add(answer.logprob - other, answer.tokens.len());
            }
            let scores = texts.into_iter().zip(&prompt.responses).zip(model_given.iter().zip(against_given));
            let responses = scores.map(|((content, tokens), (sum, sum_against))| {
                let count = tokens.len();
                model.add(*sum, count);
                against.add(*sum_against, count);
                EvaluatedResponse {
                    content,
                    tokens: count as u64,
                    logprob: sum / count as f64,
                    logprob_against: sum_against / count as f64,
                }
            });
            let responses = responses.collect();
            let answers = EvaluatedAnswers { model: evaluated(ours, against_other), against: evaluated(theirs, model_other) };
            results.push(EvaluateResult { answers, responses });
        }
        let own = &self.comparison.sides[0].row;
        Ok(EvaluateResponse {
            id: random_id("eval"),
            model: own.id.clone(),
            revision: u64::try_from(own.revision).unwrap_or(0),
            against: self.comparison.request.against.unwrap_or_default(),
            seed: self.seed,
            results,
            mean_logprob: model.value(),
            mean_logprob_against: against.value(),
            mean_tokens: means.0,
            mean_tokens_against: means.1,
            kl: moved.value(),
            usage,
        })
    }
}

fn evaluated(answers: Vec<Answer>, others: &[f64]) -> Vec<EvaluatedAnswer> {
    let one = |(answer, other): (Answer, &f64)| {
        let count = answer.tokens.len().max(1) as f64;
        EvaluatedAnswer {
            content: answer.sample.content,
            stop_reason: answer.sample.stop_reason,
            response_id: answer.sample.response_id,
            tokens: answer.tokens.len() as u64,
            logprob: answer.logprob / count,
            logprob_other: other / count,
            reasoning: answer.sample.reasoning,
        }
    };
    answers.into_iter().zip(others).map(one).collect()
}

/// A mean over tokens.
#[derive(Default)]
struct Mean {
    sum: f64,
    tokens: usize,
}

impl Mean {
    fn add(&mut self, sum: f64, tokens: usize) {
        self.sum += sum;
        self.tokens += tokens;
    }

    fn value(&self) -> Option<f64> {
        (self.tokens > 0).then(|| self.sum / self.tokens as f64)
    }
}

/// How far it is.
struct Progress<'a> {
    sink: Option<&'a ChunkSender>,
    done: u32,
    all: u32,
}

impl Progress<'_> {
    async fn step(&mut self) -> Result<(), ApiError> {
        self.done += 1;
        if let Some(sink) = self.sink {
            let chunk = ProgressChunk { step: self.done, steps: self.all, metrics: StepMetricsOrEmpty::Empty };
            sink.send(Chunk::Progress(chunk)).await?;
        }
        Ok(())
    }
}

/// Sums of the log-probs of every response, groups in order: a training whose rewards are all equal scores and ends.
async fn scores(app: &App, own: &Own, groups: Vec<Group>) -> Result<Vec<f64>, ApiError> {
    if groups.is_empty() {
        return Ok(Vec::new());
    }
    let (bytes, facts) = (app.store().blob(&own.row.blob_sha256).await?, own.base.facts()?);
    let read = move || Adapter::from_bytes(&facts.architecture, &bytes).map(AdapterState::new);
    let state = tokio::task::spawn_blocking(read).await.map_err(ApiError::internal)?.map_err(ApiError::internal)?;
    let request = EngineRequest {
        base: own.base.engine_id(),
        account: u64::try_from(own.row.account.0).unwrap_or(0),
        state,
        reference: None,
        dropout: 0.0,
        groups,
        knobs: Knobs { baseline: Baseline::None, kl_coefficient: 0.0, dry_run: true, evaluate: false, ..Knobs::default() },
    };
    let mut training = app.engine().train(request)?;
    while let Some(event) = training.events.recv().await {
        match event {
            TrainEvent::Done(outcome) => return Ok(outcome.metrics.responses.iter().map(|response| response.logprob_before).collect()),
            TrainEvent::Failed(error) => return Err(error.into()),
            TrainEvent::Info { .. } | TrainEvent::Progress { .. } => {}
        }
    }
    Err(ApiError::internal("the engine ended a scoring without an end"))
}
