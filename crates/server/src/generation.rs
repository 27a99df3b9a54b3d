//! One generate request: checked, turned into tokens, run by the engine, its text assembled, its samples recorded.
//! Streamed or not, the same code makes the text. Does not know HTTP.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tiger_engine::{Event, FinishReason, GenerateRequest as EngineRequest, Generation, Sampling, TokenMask};
use tiger_formats::{CallGrammar, Constraint, FormatError};
use tiger_store::{NewSample, UsageRecord, sha256_hex};
use tiger_wire::limits::{MAX_SAMPLES, MAX_STOP_STRINGS, MAX_TEMPERATURE, MAX_TOP_LOGPROBS};
use tiger_wire::{
    Chunk, DeltaChunk, ErrorCode, GenerateRequest, GenerateResponse, GenerateStop, Message, ResponseFormat, ResponseFormatType, Role,
    Sample, StopReason, StreamedSample, TokenLogprob, TopToken, Usage,
};

use crate::app::App;
use crate::auth::Caller;
use crate::bases::Front;
use crate::error::ApiError;
use crate::limits::{SCHEMA_BYTES, STOP_BYTES, TOP_K};
use crate::metrics;
use crate::prompt::{self, Conversation, Prompt};
use crate::router::random_id;
use crate::stream::{ChunkSender, HungUp};
use crate::target::Target;
use crate::text::{Assembler, Piece, ThinkSplit};

/// A request that passed every check that needs no tokenizer.
pub struct Plan {
    caller: Caller,
    started: Instant,
    target: Target,
    conversation: Conversation,
    sampling: Sampling,
    /// As asked, else the model's own.
    max_tokens: Option<u32>,
    stops: Vec<String>,
    samples: u32,
    logprobs: bool,
    /// Told beside each token.
    alternatives: usize,
    format: ResponseFormat,
}

impl Plan {
    /// Checks a request; finds its model.
    pub async fn check(app: &App, caller: Caller, started: Instant, request: GenerateRequest) -> Result<Plan, ApiError> {
        let target = Target::find(app, caller.account, &request.model).await?;
        Plan::of(app, target, (caller, started), request)
    }

    /// The same for a model that is found already.
    pub fn of(app: &App, target: Target, who: (Caller, Instant), request: GenerateRequest) -> Result<Plan, ApiError> {
        prompt::check_messages(&request.messages, "messages", app.limits().messages)?;
        let conversation = Conversation::of(&request.messages);
        Plan::with(target, who, (request, conversation))
    }

    /// The same for a conversation of another dialect; `messages` of the request are not looked at.
    pub fn with(
        target: Target,
        (caller, started): (Caller, Instant),
        (request, conversation): (GenerateRequest, Conversation),
    ) -> Result<Plan, ApiError> {
        let alternatives = check_alternatives(&request)?;
        let samples = request.n.unwrap_or(1);
        if samples == 0 || samples > MAX_SAMPLES {
            return Err(ApiError::invalid("n", format!("`n` is {samples}; it must be between 1 and {MAX_SAMPLES}")));
        }
        let stops = check_stops(request.stop.as_ref().map(tiger_wire::Stop::strings).unwrap_or_default())?;
        let sampling = check_sampling(&target, &request)?;
        if request.max_tokens == Some(0) {
            return Err(ApiError::invalid("max_tokens", "`max_tokens` is 0; it must be at least 1"));
        }
        let own_max = target.row().and_then(|row| row.sampling.max_tokens).and_then(|max| u32::try_from(max).ok());
        let format = check_format(request.response_format.unwrap_or_default())?;
        target.base().facts()?;
        Ok(Plan {
            caller,
            started,
            target,
            conversation,
            sampling,
            max_tokens: request.max_tokens.or(own_max),
            stops,
            samples,
            logprobs: request.logprobs,
            alternatives,
            format,
        })
    }

    /// Id of the model and its revision.
    pub fn model(&self) -> (String, u64) {
        (self.target.id().to_owned(), self.target.revision())
    }

    /// The base's tokenizer and template.
    pub async fn front(&self) -> Result<Arc<Front>, ApiError> {
        self.target.base().front().await
    }

    /// Whether [`Plan::start`] will not have to wait for a tokenizer.
    pub fn is_quick(&self) -> bool {
        self.target.base().front_is_loaded()
    }

    /// Encodes the prompt and asks the engine.
    pub async fn start(self, app: &App, sink: Option<&ChunkSender>) -> Result<Run, ApiError> {
        let base = Arc::clone(self.target.base());
        if let (Some(sink), false) = (sink, base.front_is_loaded()) {
            sink.info("Loading tokenizer", None, "loading").await?;
        }
        let front = base.front().await?;
        let constraint = constraint(&front, &self.format, self.conversation.calls.as_ref()).await?;
        // One that may be text may be thought about.
        let formed = self.format.kind != ResponseFormatType::Text;
        let prompt = prompt::prompt(Arc::clone(&front), &self.conversation, app.config().clock.unix_s(), formed).await?;
        self.begin(app, front, prompt, constraint)
    }

    /// Asks the engine to answer a prompt that is encoded already.
    pub fn begin(self, app: &App, front: Arc<Front>, prompt: Prompt, constraint: Option<Factory>) -> Result<Run, ApiError> {
        let max_tokens = self.room(&prompt)?;
        let request = EngineRequest {
            base: self.target.base().engine_id(),
            adapter: self.target.adapter()?,
            account: u64::try_from(self.caller.account.0).unwrap_or(0),
            prompt: prompt.tokens.clone(),
            samples: self.samples,
            max_tokens,
            sampling: self.sampling,
            end_tokens: front.end_tokens.clone(),
            constraint,
            alternatives: self.alternatives,
        };
        let generation = app.engine().generate(request)?;
        // Text that goes on without a template is given as it is, thoughts and their marks included.
        let splits = front.reasoning && !self.conversation.messages.is_empty();
        let split = splits.then(|| ThinkSplit::new(prompt.opens_thought));
        let samples = (0..self.samples).map(|_| Track::new(&front, split.clone(), &self.stops)).collect();
        Ok(Run { plan: self, front, prompt, generation, samples, cached_tokens: 0, output_tokens: 0 })
    }

    /// How many tokens a response may have.
    fn room(&self, prompt: &Prompt) -> Result<u32, ApiError> {
        let context = self.target.base().facts()?.architecture.context_length;
        let used = prompt.tokens.len();
        if used >= context {
            let message = format!(
                "the messages have {used} tokens; the model's context has {context}, and at least one must be left for the response; shorten the messages"
            );
            return Err(ApiError::refused(ErrorCode::ContextLengthExceeded, "messages", message));
        }
        let left = u32::try_from(context - used).unwrap_or(u32::MAX);
        Ok(self.max_tokens.map_or(left, |max| max.min(left)))
    }
}

fn check_alternatives(request: &GenerateRequest) -> Result<usize, ApiError> {
    let Some(asked) = request.top_logprobs.filter(|asked| *asked > 0) else { return Ok(0) };
    if asked > MAX_TOP_LOGPROBS {
        return Err(ApiError::invalid("top_logprobs", format!("`top_logprobs` is {asked}; it must be between 0 and {MAX_TOP_LOGPROBS}")));
    }
    if !request.logprobs {
        return Err(ApiError::invalid("top_logprobs", "`top_logprobs` needs `logprobs` to be true"));
    }
    Ok(asked as usize)
}

fn check_stops(stops: &[String]) -> Result<Vec<String>, ApiError> {
    if stops.len() > MAX_STOP_STRINGS {
        return Err(ApiError::invalid("stop", format!("`stop` has {} strings; at most {MAX_STOP_STRINGS} are allowed", stops.len())));
    }
    if let Some(at) = stops.iter().position(String::is_empty) {
        return Err(ApiError::invalid(format!("stop[{at}]"), "a stop string is empty; leave it out instead"));
    }
    if stops.iter().map(String::len).sum::<usize>() > STOP_BYTES {
        return Err(ApiError::invalid("stop", format!("the stop strings have more than {STOP_BYTES} bytes together")));
    }
    Ok(stops.to_vec())
}

/// A number that must lie in a range; `open` excludes the lower end.
pub fn check_range(param: &str, value: Option<f64>, (low, high): (f64, f64), open: bool) -> Result<(), ApiError> {
    let Some(value) = value else { return Ok(()) };
    let fits = value.is_finite() && value <= high && if open { value > low } else { value >= low };
    if fits {
        return Ok(());
    }
    let range = if open { format!("above {low} and at most {high}") } else { format!("between {low} and {high}") };
    Err(ApiError::invalid(param, format!("`{param}` is {value}; it must be {range}")))
}

/// Checks the sampling numbers that create, patch and generate share.
pub fn check_defaults(temperature: Option<f64>, top_p: Option<f64>, top_k: Option<u32>, max_tokens: Option<u32>) -> Result<(), ApiError> {
    check_range("temperature", temperature, (0.0, MAX_TEMPERATURE), false)?;
    check_range("top_p", top_p, (0.0, 1.0), true)?;
    if let Some(top_k) = top_k.filter(|top_k| *top_k > TOP_K) {
        return Err(ApiError::invalid("top_k", format!("`top_k` is {top_k}; it must be at most {TOP_K} (0 keeps all tokens)")));
    }
    if max_tokens == Some(0) {
        return Err(ApiError::invalid("max_tokens", "`max_tokens` is 0; it must be at least 1"));
    }
    Ok(())
}

fn check_sampling(target: &Target, request: &GenerateRequest) -> Result<Sampling, ApiError> {
    check_defaults(request.temperature, request.top_p, request.top_k, request.max_tokens)?;
    check_range("min_p", request.min_p, (0.0, 1.0), false)?;
    let own = target.row().map(|row| row.sampling).unwrap_or_default();
    let (temperature, top_p, top_k) = target.base().sampling();
    let own_top_k = own.top_k.and_then(|top_k| u32::try_from(top_k).ok());
    Ok(Sampling {
        temperature: request.temperature.or(own.temperature).unwrap_or(temperature) as f32,
        top_p: positive(request.top_p.or(own.top_p).unwrap_or(top_p)),
        top_k: request.top_k.or(own_top_k).or(top_k).unwrap_or(0),
        min_p: request.min_p.unwrap_or(0.0) as f32,
        seed: match request.seed {
            Some(seed) => seed,
            None => random_seed()?,
        },
    })
}

/// A number above 0 in f32, above 0 there too.
pub fn positive(value: f64) -> f32 {
    (value as f32).max(f32::MIN_POSITIVE)
}

/// A seed that nobody chose: 53 bits, for answers tell it and JavaScript rounds larger numbers.
pub fn random_seed() -> Result<u64, ApiError> {
    let bits = getrandom::u64().map_err(|error| ApiError::internal(format!("no randomness: {error}")))?;
    Ok(bits >> 11)
}

fn check_format(format: ResponseFormat) -> Result<ResponseFormat, ApiError> {
    match (format.kind, &format.schema) {
        (ResponseFormatType::JsonSchema, None) => {
            Err(ApiError::invalid("response_format.schema", "`schema` is missing; `json_schema` needs one, `json_object` takes any object"))
        }
        (ResponseFormatType::JsonSchema, Some(schema)) => {
            let bytes = schema.to_string().len();
            if bytes > SCHEMA_BYTES {
                return Err(ApiError::invalid(
                    "response_format.schema",
                    format!("the schema has {bytes} bytes; at most {SCHEMA_BYTES} are allowed"),
                ));
            }
            Ok(format)
        }
        (_, Some(_)) => Err(ApiError::invalid("response_format.schema", "`schema` goes with the type `json_schema` only")),
        _ => Ok(format),
    }
}

/// Makes a grammar for each sample.
pub type Factory = Box<dyn Fn() -> Result<Box<dyn tiger_engine::Constraint>, String> + Send>;

/// Compiles the grammar once, so that what it does not support is the caller's 422.
async fn constraint(front: &Arc<Front>, format: &ResponseFormat, calls: Option<&CallGrammar>) -> Result<Option<Factory>, ApiError> {
    if format.kind == ResponseFormatType::Text && calls.is_none() {
        return Ok(None);
    }
    let env = front.tok_env().await?;
    let (kind, schema, calls) = (format.kind, format.schema.clone(), calls.cloned());
    let make = move || match (kind, &schema, &calls) {
        (ResponseFormatType::Text, _, Some(calls)) => Constraint::calls(&env, calls),
        (_, Some(schema), _) => Constraint::json_schema(&env, schema),
        _ => Constraint::json_object(&env),
    };
    let trial = tokio::task::spawn_blocking(move || make().map(|first| (first, make)));
    let refused = |error: FormatError| ApiError::refused(ErrorCode::UnsupportedSchema, "response_format.schema", error.to_string());
    let (_, make) = trial.await.map_err(ApiError::internal)?.map_err(refused)?;
    Ok(Some(Box::new(move || {
        let made = make().map_err(|error| error.to_string())?;
        Ok(Box::new(Grammar(made)) as Box<dyn tiger_engine::Constraint>)
    })))
}

/// A grammar as the engine asks for it.
struct Grammar(Constraint);

impl tiger_engine::Constraint for Grammar {
    fn mask(&mut self) -> Result<TokenMask, String> {
        self.0.mask().map_err(|error| error.to_string())
    }

    fn accept(&mut self, token: u32) -> Result<(), String> {
        self.0.accept(token).map_err(|error| error.to_string())
    }

    fn is_done(&self) -> bool {
        self.0.is_done()
    }
}

/// One response while it grows.
struct Track {
    assembler: Assembler,
    tokens: Vec<u32>,
    logprobs: Vec<f32>,
    alternatives: Vec<Vec<(u32, f32)>>,
    content: String,
    reasoning: Option<String>,
    finish: Option<StopReason>,
    /// Tokens whose log-probs were streamed.
    sent: usize,
    first: Option<Instant>,
}

impl Track {
    fn new(front: &Front, split: Option<ThinkSplit>, stops: &[String]) -> Track {
        Track {
            reasoning: split.is_some().then(String::new),
            assembler: Assembler::new(front.tokenizer.decode_stream(), split, stops),
            tokens: Vec::new(),
            logprobs: Vec::new(),
            alternatives: Vec::new(),
            content: String::new(),
            finish: None,
            sent: 0,
            first: None,
        }
    }

    fn take(&mut self, piece: &Piece) {
        self.content.push_str(&piece.content);
        if let Some(reasoning) = &mut self.reasoning {
            reasoning.push_str(&piece.reasoning);
        }
    }

    fn entries(&self, front: &Front, from: usize, to: usize) -> Vec<TokenLogprob> {
        let text = |id: u32| String::from_utf8_lossy(front.tokenizer.token_bytes(id)).into_owned();
        let top = |(token_id, logprob): &(u32, f32)| TopToken { token_id: *token_id, token: text(*token_id), logprob: *logprob };
        let told = self.tokens.iter().zip(&self.logprobs).zip(&self.alternatives).take(to).skip(from);
        told.map(|((&token_id, &logprob), alternatives)| TokenLogprob {
            token_id,
            token: text(token_id),
            logprob,
            top: (!alternatives.is_empty()).then(|| alternatives.iter().map(top).collect()),
        })
        .collect()
    }
}

/// A token, its log-prob, and the alternatives with theirs.
type Told = (u32, f32, Vec<(u32, f32)>);

/// A request that runs. Dropping it is a hang-up.
pub struct Run {
    plan: Plan,
    front: Arc<Front>,
    prompt: Prompt,
    generation: Generation,
    samples: Vec<Track>,
    cached_tokens: u32,
    output_tokens: u64,
}

impl Run {
    /// Follows the engine to the end, records the samples, and gives what answers are made of.
    pub async fn finish(mut self, app: &App, sink: Option<&ChunkSender>) -> Result<Finished, ApiError> {
        while let Some(event) = self.generation.events.recv().await {
            match event {
                Event::Info { message, progress } => {
                    if let Some(sink) = sink {
                        let stage = if message.starts_with("Loading") { "loading" } else { "waiting" };
                        sink.info(message, progress, stage).await?;
                    }
                }
                Event::Started { cached_tokens } => self.cached_tokens = cached_tokens,
                Event::Token { sample, id, logprob, alternatives } => self.token(sample, (id, logprob, alternatives), sink).await?,
                Event::Finished { sample, reason } => self.finished(sample, reason, sink).await?,
                Event::Done => return self.record(app).await,
                Event::Failed(error) => return Err(error.into()),
            }
        }
        Err(ApiError::internal("the engine ended a request without an end"))
    }

    async fn token(&mut self, sample: u32, (id, logprob, alternatives): Told, sink: Option<&ChunkSender>) -> Result<(), ApiError> {
        self.output_tokens += 1;
        let is_end = self.front.end_tokens.contains(&id);
        let track =
            self.samples.get_mut(sample as usize).ok_or_else(|| ApiError::internal("the engine named a sample that nobody asked for"))?;
        if track.finish.is_some() || track.assembler.stopped() {
            return Ok(());
        }
        if track.first.is_none() {
            track.first = Some(Instant::now());
            metrics::first_token(self.plan.started.elapsed());
        }
        track.tokens.push(id);
        track.logprobs.push(logprob);
        track.alternatives.push(alternatives);
        if is_end {
            track.assembler.push_silent();
            return Ok(());
        }
        let piece = track.assembler.push(id);
        track.take(&piece);
        if track.assembler.stopped() {
            self.generation.cancel(sample);
        }
        if piece == Piece::default() {
            return Ok(());
        }
        let certain = track.assembler.certain_tokens();
        Ok(self.send(sample, certain, piece, sink).await?)
    }

    async fn finished(&mut self, sample: u32, reason: FinishReason, sink: Option<&ChunkSender>) -> Result<(), ApiError> {
        let track =
            self.samples.get_mut(sample as usize).ok_or_else(|| ApiError::internal("the engine named a sample that nobody asked for"))?;
        let piece = track.assembler.finish();
        track.take(&piece);
        track.finish = Some(match reason {
            // A stop string may also be found in the very last token.
            _ if track.assembler.stopped() => StopReason::StopSequence,
            FinishReason::EndOfTurn => StopReason::EndTurn,
            FinishReason::MaxTokens => StopReason::MaxTokens,
            FinishReason::Cancelled => return Err(tiger_engine::EngineError::Cancelled.into()),
        });
        if let (Some(first), 2..) = (track.first, track.tokens.len()) {
            metrics::per_token(first.elapsed().as_secs_f64() / (track.tokens.len() - 1) as f64);
        }
        let kept = track.assembler.kept_tokens();
        track.tokens.truncate(kept);
        track.logprobs.truncate(kept);
        track.alternatives.truncate(kept);
        let leftover = self.plan.logprobs && track.sent < kept;
        if leftover || piece != Piece::default() {
            self.send(sample, kept, piece, sink).await?;
        }
        Ok(())
    }

    /// Sends text, with the log-probs of the tokens before the `upto`-th that were not sent yet.
    async fn send(&mut self, sample: u32, upto: usize, piece: Piece, sink: Option<&ChunkSender>) -> Result<(), HungUp> {
        let (Some(track), Some(_)) = (self.samples.get_mut(sample as usize), sink) else { return Ok(()) };
        let from = std::mem::replace(&mut track.sent, upto);
        let entries = self.plan.logprobs.then(|| track.entries(&self.front, from, upto));
        self.send_text(sample, piece, entries, sink).await
    }

    /// At most one chunk for each kind of text; log-probs go with the last.
    async fn send_text(
        &self,
        sample: u32,
        piece: Piece,
        logprobs: Option<Vec<TokenLogprob>>,
        sink: Option<&ChunkSender>,
    ) -> Result<(), HungUp> {
        let Some(sink) = sink else { return Ok(()) };
        let index = (self.plan.samples > 1).then_some(sample);
        let mut chunks = Vec::new();
        if !piece.reasoning.is_empty() {
            chunks.push(DeltaChunk { reasoning: Some(piece.reasoning), index, ..DeltaChunk::default() });
        }
        if !piece.content.is_empty() || chunks.is_empty() {
            chunks.push(DeltaChunk { delta: Some(piece.content), index, ..DeltaChunk::default() });
        }
        if let Some(last) = chunks.last_mut() {
            last.logprobs = logprobs;
        }
        for chunk in chunks {
            sink.send(Chunk::Delta(chunk)).await?;
        }
        Ok(())
    }

    /// Keeps the samples for training and counts the use.
    async fn record(self, app: &App) -> Result<Finished, ApiError> {
        let Plan { caller, target, started, samples: _, logprobs, .. } = self.plan;
        let duration: Duration = started.elapsed();
        let usage = Usage {
            duration: duration.as_secs_f64(),
            input_tokens: self.prompt.tokens.len() as u64,
            cached_tokens: u64::from(self.cached_tokens),
            output_tokens: self.output_tokens,
        };
        let prompt_sha256 = prompt_sha256(&self.prompt.tokens);
        let mut rows = Vec::new();
        let mut samples = Vec::new();
        for track in self.samples {
            let stop_reason = track.finish.ok_or_else(|| ApiError::internal("the engine ended a request before its samples"))?;
            let response_id = random_id("resp");
            let entries = logprobs.then(|| track.entries(&self.front, 0, track.tokens.len()));
            rows.push(NewSample {
                response_id: response_id.clone(),
                account: caller.account,
                model: target.row().map(|row| row.key),
                base_model: target.base().name.clone(),
                revision: target.row().map(|row| row.revision),
                blob_sha256: target.row().map(|row| row.blob_sha256.clone()),
                prompt_sha256: prompt_sha256.clone(),
                tokens: track.tokens,
                logprobs: track.logprobs,
                finish: stop_reason_name(stop_reason).to_owned(),
                text: track.content.clone(),
            });
            let reasoning = track.reasoning.filter(|reasoning| !reasoning.is_empty());
            samples.push(Sample { content: track.content, stop_reason, response_id, logprobs: entries, reasoning });
        }
        let recorder = app.recorder()?;
        recorder.samples(rows).await?;
        recorder.usage(UsageRecord {
            account: caller.account,
            key: caller.key,
            model: target.id().to_owned(),
            kind: "generate".to_owned(),
            input_tokens: i64::try_from(usage.input_tokens).unwrap_or(i64::MAX),
            output_tokens: i64::try_from(usage.output_tokens).unwrap_or(i64::MAX),
            trained_tokens: 0,
            duration: usage.duration,
        });
        Ok(Finished { id: random_id("gen"), model: target.id().to_owned(), revision: target.revision(), samples, usage })
    }
}

/// Names a prompt in the samples' rows.
pub fn prompt_sha256(tokens: &[u32]) -> String {
    let bytes: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
    sha256_hex(&bytes)
}

fn stop_reason_name(reason: StopReason) -> &'static str {
    match reason {
        StopReason::EndTurn => "end_turn",
        StopReason::MaxTokens => "max_tokens",
        StopReason::StopSequence => "stop_sequence",
    }
}

/// What an answer is made of.
pub struct Finished {
    id: String,
    model: String,
    revision: u64,
    /// At least one.
    pub samples: Vec<Sample>,
    /// What it took.
    pub usage: Usage,
}

impl Finished {
    /// The answer that is not streamed.
    pub fn response(self) -> Result<GenerateResponse, ApiError> {
        let first = self.samples.first().cloned().ok_or_else(|| ApiError::internal("a request without samples"))?;
        Ok(GenerateResponse {
            id: self.id,
            model: self.model,
            revision: self.revision,
            message: Message { role: Role::Assistant, content: first.content },
            stop_reason: first.stop_reason,
            response_id: first.response_id,
            usage: self.usage,
            logprobs: first.logprobs,
            reasoning: first.reasoning,
            responses: (self.samples.len() > 1).then_some(self.samples),
        })
    }

    /// The last chunk of a stream.
    pub fn stop(self) -> Result<GenerateStop, ApiError> {
        let first = self.samples.first().ok_or_else(|| ApiError::internal("a request without samples"))?;
        let sum = |(index, sample): (usize, &Sample)| StreamedSample {
            index: u32::try_from(index).unwrap_or(u32::MAX),
            stop_reason: sample.stop_reason,
            response_id: sample.response_id.clone(),
        };
        let several = self.samples.len() > 1;
        Ok(GenerateStop {
            stop_reason: first.stop_reason,
            response_id: first.response_id.clone(),
            responses: several.then(|| self.samples.iter().enumerate().map(sum).collect()),
            index: several.then_some(0),
            usage: self.usage,
            id: self.id,
            model: self.model,
            revision: self.revision,
        })
    }
}
