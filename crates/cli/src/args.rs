//! The command line as data: every command and flag with its help. Does not know what a command does.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use tiger_wire::limits::DEFAULT_PORT;

/// Make language models your own: serve, copy, train with rewards.
#[derive(Debug, Parser)]
#[command(name = "tiger", version, about, after_help = EXIT_CODES)]
pub struct Args {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done; 1 failed; 2 wrong command line; 3 the server cannot be reached; 4 the key is missing, unknown or \
not allowed; 5 no such model or key; 6 conflict (name taken, another revision, data directory in use); 130 interrupted.\n\
Results go to standard output, everything else to standard error.";

/// Flags of every command.
#[derive(Debug, Clone, clap::Args)]
pub struct Global {
    /// Print results as JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// Folder of accounts, keys, models and checkpoints [default: ~/.local/share/tigercity]
    #[arg(long, global = true, env = "TIGER_HOME", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address of the server
    #[arg(long, global = true, env = "TIGER_BASE_URL", default_value = "http://localhost:45678", value_name = "URL")]
    pub base_url: String,
    /// API key; better kept in the environment than typed
    #[arg(long, global = true, env = "TIGER_API_KEY", hide_env_values = true, value_name = "KEY")]
    pub api_key: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start the server
    Serve(Serve),
    /// Download a base model from the Hugging Face hub, or take it from a folder
    Pull(Pull),
    /// List, show, create, remove and roll back models
    #[command(subcommand)]
    Models(Models),
    /// Chat with a model, or ask it once
    Run(Run),
    /// Train a model on rated responses, one JSON object a line: {"messages": […], "responses": [{"content": …, "reward": …}, …]}
    Train(Box<Train>),
    /// Compare a model with its parent or an older revision: answers side by side, log-probs, win rate by your reward
    Evaluate(Box<crate::evaluate::Evaluate>),
    /// Make, list and revoke API keys of this machine's server, whether it runs or not
    #[command(subcommand)]
    Keys(Keys),
    /// The whole loop in two minutes: serve, copy, sample, reward, train, compare
    Quickstart(Quickstart),
    /// Measure this machine and the engine on it
    Bench(Bench),
    /// Look for what could be wrong
    Doctor,
    /// Print a completion script
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// How weights are stored in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PrecisionArg {
    F32,
    Bf16,
    Int8,
    Int4,
}

impl From<PrecisionArg> for tiger_model::Precision {
    fn from(arg: PrecisionArg) -> Self {
        match arg {
            PrecisionArg::F32 => Self::F32,
            PrecisionArg::Bf16 => Self::Bf16,
            PrecisionArg::Int8 => Self::Int8,
            PrecisionArg::Int4 => Self::Int4,
        }
    }
}

/// How keys and values are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KvArg {
    F32,
    Bf16,
    Int8,
}

impl From<KvArg> for tiger_model::KvType {
    fn from(arg: KvArg) -> Self {
        match arg {
            KvArg::F32 => Self::F32,
            KvArg::Bf16 => Self::Bf16,
            KvArg::Int8 => Self::Int8,
        }
    }
}

#[derive(Debug, clap::Args)]
pub struct Serve {
    /// Address to listen on; other than this machine's own only once there is an owner's account (the first start says how)
    #[arg(long, default_value = "127.0.0.1")]
    pub host: std::net::IpAddr,
    /// Port; 0 picks a free one
    #[arg(long, default_value_t = DEFAULT_PORT)]
    pub port: u16,
    /// How weights are stored in memory
    #[arg(long, value_enum, default_value_t = PrecisionArg::Bf16)]
    pub precision: PrecisionArg,
    /// How keys and values of contexts are stored: int8 halves their memory [default: bf16]
    #[arg(long, value_enum)]
    pub kv_cache: Option<KvArg>,
    /// Threads of arithmetic [default: all cores]
    #[arg(long)]
    pub threads: Option<usize>,
    /// GiB for bases, caches and adapters together [default: 85 % of what is free now]
    #[arg(long, value_name = "GIB")]
    pub memory: Option<f64>,
    /// GiB of it for the keys and values of a base, which bound how long contexts can be [default: an eighth, at least 1]
    #[arg(long, value_name = "GIB")]
    pub kv_memory: Option<f64>,
    /// Folder of one more base model, listed under the folder's name; may be given several times
    #[arg(long, value_name = "DIR")]
    pub model_dir: Vec<PathBuf>,
    /// Load this base before the server calls itself ready; may be given several times
    #[arg(long, value_name = "MODEL")]
    pub preload: Vec<String>,
    /// Base that clients find selected [default: Tiger-Nano]
    #[arg(long, value_name = "MODEL")]
    pub default_model: Option<String>,
    /// Requests of one key per minute; above it they are answered 429
    #[arg(long, value_name = "N", default_value_t = tiger_server::Limits::default().requests_per_minute, value_parser = clap::value_parser!(u32).range(1..))]
    pub requests_per_minute: u32,
    /// Do not compute likely continuations ahead; answers are the same either way
    #[arg(long)]
    pub no_speculation: bool,
    /// Send session cookies over HTTPS only (behind a proxy that speaks TLS)
    #[arg(long)]
    pub secure_cookies: bool,
    /// Shape of the log on standard error; what is logged: TIGER_LOG (error, warn, info, debug)
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, clap::Args)]
pub struct Pull {
    /// A listed base (Llama-3.1-8b, DeepSeek-R1-8b), a hub repository (owner/name), or a checkpoint folder
    pub model: String,
    /// Name in the list [default: the base's, or the last part of the repository or folder]
    #[arg(long)]
    pub name: Option<String>,
    /// Branch, tag or commit of the repository
    #[arg(long, default_value = "main")]
    pub revision: String,
}

#[derive(Debug, Subcommand)]
pub enum Models {
    /// All models, base models first
    Ls,
    /// One model
    Show {
        /// Id or name
        model: String,
        /// Its revisions too
        #[arg(long)]
        revisions: bool,
    },
    /// A model's revisions, newest first, with the numbers of their trainings
    Revisions {
        /// Id or name
        model: String,
        /// At most so many
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: Option<u32>,
        /// Only those before this one
        #[arg(long, value_name = "REVISION")]
        before: Option<u64>,
    },
    /// A private copy of a model
    Create {
        /// Name of the copy
        name: String,
        /// What to copy
        #[arg(long, default_value = "tiger-nano")]
        parent: String,
        #[arg(long, default_value = "")]
        description: String,
        /// Rank of the adapter
        #[arg(long)]
        rank: Option<u32>,
        /// Scale of the adapter is alpha / rank
        #[arg(long)]
        alpha: Option<f64>,
        /// Dropout while training
        #[arg(long)]
        dropout: Option<f64>,
        /// Default learning rate
        #[arg(long)]
        learning_rate: Option<f64>,
        /// Seed of the first weights
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Delete a private model
    Rm {
        /// Id or name
        model: String,
    },
    /// Make an old revision's weights the newest revision
    Rollback {
        /// Id or name
        model: String,
        /// Revision to go back to
        revision: u64,
    },
}

#[derive(Debug, clap::Args)]
pub struct Run {
    /// Id or name
    pub model: String,
    /// Ask once and end; without it, chat (standard input is read where it is no terminal)
    pub prompt: Option<String>,
    /// System prompt
    #[arg(long)]
    pub system: Option<String>,
    #[arg(long)]
    pub temperature: Option<f64>,
    #[arg(long)]
    pub top_p: Option<f64>,
    #[arg(long)]
    pub max_tokens: Option<u32>,
    #[arg(long)]
    pub seed: Option<u64>,
}

#[derive(Debug, clap::Args)]
pub struct Train {
    /// JSON lines; - is standard input
    pub file: String,
    /// Private model to train
    #[arg(long)]
    pub model: String,
    /// Lines trained as one step
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub batch: u32,
    /// Times through the file
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub epochs: u32,
    #[arg(long)]
    pub learning_rate: Option<f64>,
    /// Optimizer steps a call, 1..16
    #[arg(long)]
    pub steps: Option<u32>,
    /// Weight of the KL to the parent
    #[arg(long)]
    pub kl_coefficient: Option<f64>,
    #[arg(long, value_enum)]
    pub objective: Option<ObjectiveArg>,
    /// Compute everything, change nothing
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum ObjectiveArg {
    Tapered,
    ImportanceSampling,
    Ppo,
    Sft,
}

#[derive(Debug, Subcommand)]
pub enum Keys {
    /// Make a key; it is printed once, alone on standard output
    Create {
        /// What it is for
        name: String,
    },
    /// All keys
    Ls,
    /// End a key at once
    Revoke {
        /// Id, from `tiger keys ls`
        id: i64,
    },
}

#[derive(Debug, clap::Args)]
pub struct Quickstart {
    /// Seed of everything that is drawn
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Most train calls
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub calls: u32,
    /// Fail unless the model learnt the style (95 %) and kept its knowledge (92 % of what it was)
    #[arg(long)]
    pub check: bool,
}

#[derive(Debug, clap::Args)]
pub struct Bench {
    /// Shape with synthetic weights (1b, 8b, nano, tiny) or a checkpoint folder
    #[arg(long, default_value = "1b")]
    pub model: String,
    #[arg(long, value_enum, default_value_t = PrecisionArg::Bf16)]
    pub precision: PrecisionArg,
    /// How keys and values are stored [default: bf16]
    #[arg(long, value_enum)]
    pub kv_cache: Option<KvArg>,
    /// Threads [default: all cores]
    #[arg(long)]
    pub threads: Option<usize>,
    /// Measure training too: LoRA rank 16, 8 sequences of 256 tokens
    #[arg(long)]
    pub train: bool,
    /// Measure more: a longer prompt, many streams, adapters, a long context, a cached prompt, drafts
    #[arg(long)]
    pub full: bool,
    /// Measure only answers with drafts of likely tokens beside the same without
    #[arg(long, conflicts_with = "full")]
    pub speculation: bool,
    /// Instead of time: how far this precision of a checkpoint is from bf16 on this text (KL, perplexity)
    #[arg(long, value_name = "FILE")]
    pub text: Option<PathBuf>,
    /// llama.cpp's `llama-bench`, to be run in turns with ours (and `llama-batched-bench`, if it lies beside it)
    #[arg(long, value_name = "PROGRAM", requires = "llama_model")]
    pub llama_bench: Option<PathBuf>,
    /// GGUF file for it: of the same shape and bits, or the comparison means nothing
    #[arg(long, value_name = "FILE", requires = "llama_bench")]
    pub llama_model: Option<PathBuf>,
    /// Instead of kernels: one-token requests to this running `tiger serve`, for its base named by --model, with the key of --api-key
    #[arg(long, value_name = "URL", conflicts_with_all = ["text", "llama_bench", "full", "train"])]
    pub http: Option<String>,
    /// A running `llama-server` with the same model, to be asked in turns with ours
    #[arg(long, value_name = "URL", requires = "http")]
    pub against: Option<String>,
    /// Rounds; medians are printed
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
}
