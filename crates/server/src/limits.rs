//! Every limit of the door, each with its unit and its reason. Limits of the contract are in `tiger_wire::limits`, the engine's in its configuration.

use std::time::Duration;

/// Limits that an operator may change.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of a generate request's body: a whole context of 128k tokens is about 0.6 MB, escapes may double it, chats repeat it.
    pub generate_body_bytes: usize,
    /// Bytes of a train request's body: 256 long responses.
    pub train_body_bytes: usize,
    /// Bytes of a chat: thousands of messages, or a few of a whole context.
    pub chat_body_bytes: usize,
    /// Bytes of an adapter's two files: rank 64 on all linear maps of an 8B model in f32 is 0.7 GB.
    pub adapter_body_bytes: usize,
    /// Bytes of any other body: names and numbers.
    pub small_body_bytes: usize,
    /// Most messages of one conversation: each costs the template some work.
    pub messages: usize,
    /// Most groups of one train call.
    pub train_groups: usize,
    /// Most tokens of one train call, prompts and responses: bounds the memory of a request.
    pub train_tokens: usize,
    /// Time for a request's line and headers, so that idle connections cannot hold places.
    pub header_time: Duration,
    /// Time for a request's body.
    pub body_time: Duration,
    /// Time for an answer that is not streamed; proxies give up earlier anyway.
    pub request_time: Duration,
    /// Requests of one key (or session) at once.
    pub in_flight_per_key: usize,
    /// Requests of one key (or session) per minute.
    pub requests_per_minute: u32,
    /// Attempts to sign in per account name and minute: guessing must be slow.
    pub sign_ins_per_minute: u32,
    /// Attempts to sign in with any name per minute: many names are no way around, and hashing leaves the cores to the models.
    pub sign_ins_per_minute_in_all: u32,
    /// Open connections: each holds a socket and its buffers.
    pub connections: usize,
    /// Time that streams have to finish when the server stops.
    pub drain_time: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            generate_body_bytes: 16 << 20,
            train_body_bytes: 64 << 20,
            chat_body_bytes: 4 << 20,
            adapter_body_bytes: 1 << 30,
            small_body_bytes: 64 << 10,
            messages: 4096,
            train_groups: 1024,
            train_tokens: 4 << 20,
            header_time: Duration::from_secs(20),
            body_time: Duration::from_secs(60),
            request_time: Duration::from_secs(3600),
            in_flight_per_key: 512,
            requests_per_minute: 6000,
            sign_ins_per_minute: 10,
            sign_ins_per_minute_in_all: 300,
            connections: 4096,
            drain_time: Duration::from_secs(30),
        }
    }
}

/// Chunks that wait for a slow client; the engine's own channel holds what follows, at most the request's `max_tokens`.
pub const STREAM_CHUNKS: usize = 64;
/// Longest request id taken from a client, characters: it goes into every log line.
pub const REQUEST_ID_CHARS: usize = 64;
/// Most bytes of all stop strings: they are compared at every token.
pub const STOP_BYTES: usize = 4096;
/// Longest description of a model, bytes.
pub const DESCRIPTION_BYTES: usize = 16 << 10;
/// Longest `adapter_config.json`, bytes: real ones have a few kilobytes, with every module named some hundreds.
pub const ADAPTER_CONFIG_BYTES: usize = 1 << 20;
/// Time for an adapter's files to arrive: a gigabyte over a home's line.
pub const ADAPTER_TIME: Duration = Duration::from_secs(900);
/// Adapters that are read at once; others wait. Each is in memory as sent and as stored.
pub const IMPORTS_AT_ONCE: usize = 2;
/// Longest body that is read a second time with 3.0 taken for 3, bytes: as a tree of values it takes many times its length.
pub const FRACTIONS_BYTES: usize = 1 << 20;
/// Longest piece of a client's string that an error message repeats, characters.
pub const QUOTE_CHARS: usize = 80;
/// Largest JSON schema of `response_format`, bytes: compiling takes time in proportion or worse.
pub const SCHEMA_BYTES: usize = 256 << 10;
/// Most revisions of one answer of the list.
pub const REVISIONS: u32 = 1000;
/// Bytes of one answer of the list of revisions; it ends after the revision that reaches them. A training of thousands of responses has a megabyte.
pub const REVISIONS_BYTES: usize = 16 << 20;
/// Revisions read from the database at once.
pub const REVISIONS_AT_ONCE: u32 = 16;
/// Generate requests of one evaluation at once: with 16 samples each half of what the engine runs at once, so that others have a place.
pub const EVALUATE_AT_ONCE: usize = 8;
/// Days that an invitation is good for.
pub const INVITATION_DAYS: f64 = 7.0;
/// Largest `top_k`: no vocabulary is larger.
pub const TOP_K: u32 = 1 << 22;
/// Largest magnitude of a reward: differences stay exact enough in f64.
pub const REWARD: f64 = 1e12;
/// Largest learning rate that is not surely a mistake.
pub const LEARNING_RATE: f64 = 1.0;
/// Records of use that wait to be written; one takes about 100 bytes.
pub const USAGE_RECORDS: usize = 4096;
/// Requests' samples that wait to be written; at a thousand requests a second ten groups' worth.
pub const SAMPLE_BATCHES: usize = 1024;
/// Longest rendered prompt, bytes, that is encoded in the template's thread: a millisecond or two that other prompts may have to wait.
pub const SHORT_PROMPT_BYTES: usize = 64 << 10;
/// Most chats of an account: ten a day for years; a search reads them all.
pub const CHATS: i64 = 10_000;
/// Most bytes of an account's chats together: the disk is everybody's, and a search reads them all.
pub const CHAT_BYTES: i64 = 1 << 30;
/// Most chats of one answer of the list.
pub const CHATS_PAGE: u32 = 100;
/// Chats of one answer of the list that does not say.
pub const CHATS_PAGE_DEFAULT: u32 = 50;
/// Longest text to search chats for, characters.
pub const SEARCH_CHARS: usize = 200;
/// Longest id of a model in a chat, characters: lists repeat it, and a folder's name may have 255.
pub const CHAT_MODEL_CHARS: usize = 256;
/// Most days of use in one answer: a year.
pub const USAGE_DAYS: u32 = 366;
/// Days of use in an answer that does not say.
pub const USAGE_DAYS_DEFAULT: u32 = 30;
/// Most pulls at once: more would only share the line.
pub const PULLS_AT_ONCE: usize = 4;
/// Pulls that are shown, ended ones too.
pub const PULLS_KEPT: usize = 64;
