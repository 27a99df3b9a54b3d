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
    /// Download a base model from the Hugging Face hub, or take it from a folder or a GGUF file
    Pull(Pull),
    /// List, show, create, remove and roll back models
    #[command(subcommand)]
    Models(Models),
    /// Chat with a model, or ask it once
    Run(Run),
    /// Train a model by rewards: sample answers to prompts, reward each by your command or URL, train, again and again
    Rl(Box<Rl>),
    /// Train a model on data that is there already: rated answers, preference pairs, demonstrations
    Train(Box<Train>),
    /// Compare a model with its parent or an older revision: answers side by side, log-probs, win rate by your reward
    Evaluate(Box<crate::evaluate::Evaluate>),
    /// Make a private model from a LoRA adapter in PEFT's form
    Import(crate::files::Import),
    /// Write a model for other programs: its adapter as PEFT reads it, or base and adapter together as a Hugging Face folder or a GGUF file
    Export(crate::files::Export),
    /// Make, list and revoke API keys of this machine's server, whether it runs or not
    #[command(subcommand)]
    Keys(Keys),
    /// List who may sign in to this machine's server, and set a forgotten password
    #[command(subcommand)]
    Accounts(Accounts),
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
    /// Folder or GGUF file of one more base model, listed under its name; may be given several times
    #[arg(long, value_name = "PATH")]
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
    /// A listed base (Llama-3.1-8b, DeepSeek-R1-8b), a hub repository (owner/name), a checkpoint folder, or a GGUF file
    pub model: String,
    /// Name in the list [default: the base's, or the last part of the repository, folder or file]
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

/// How one train call learns; what is left out is the server's default.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Training")]
pub struct Knobs {
    /// Learning rate of AdamW [default: the model's own, else by its size]
    #[arg(long)]
    pub learning_rate: Option<f64>,
    /// Weight of the KL to the parent [default: 0.05]
    #[arg(long, visible_alias = "kl")]
    pub kl_coefficient: Option<f64>,
    /// Running mean of the KL to the parent above which the model is not trained any further [default: 1]
    #[arg(long)]
    pub kl_limit: Option<f64>,
    /// Loss [default: tapered]
    #[arg(long, value_enum)]
    pub objective: Option<ObjectiveArg>,
}

const RL_HELP: &str = "\
The reward command is run by `sh -c` once for each response, which it reads as one JSON object from its standard input: messages, response, \
stop_reason, sample (which of the answers to the prompt), and the prompt line's other fields. It prints a number. A URL is sent the same \
object and answers a number or {\"reward\": number}.\n\n\
Ctrl-C stops between two steps; the same command goes on from there. A second Ctrl-C ends at once and loses no training either.\n\n\
Example, with the files of the folder examples/:\n  \
tiger rl examples/questions.jsonl --model pirate --base tiger-nano --reward 'python3 examples/reward.py' --eval-share 0.2 --steps 12";

#[derive(Debug, clap::Args)]
#[command(after_help = RL_HELP)]
pub struct Rl {
    /// Prompts, one JSON object a line: {"prompt": "…"} or {"messages": […]}; further fields are given to the reward as they are
    #[arg(value_name = "FILE")]
    pub prompts: PathBuf,
    /// Private model to train, id or name
    #[arg(long)]
    pub model: String,
    /// Make the model as a copy of this one if there is none of that name
    #[arg(long, value_name = "MODEL")]
    pub base: Option<String>,
    #[command(flatten)]
    pub reward: RewardArgs,
    #[command(flatten)]
    pub sampling: RlSampling,
    #[command(flatten)]
    pub look: RlEval,
    #[command(flatten)]
    pub knobs: Knobs,
    /// Optimizer steps on each step's answers, 1..16 [default: 1]
    #[arg(long, value_name = "N", help_heading = "Training", value_parser = clap::value_parser!(u32).range(1..=16))]
    pub optimizer_steps: Option<u32>,
    /// Where the run is kept, so that it can go on [default: beside FILE, as FILE.MODEL.rl.json]
    #[arg(long, value_name = "PATH", help_heading = "Run")]
    pub state: Option<PathBuf>,
    /// Forget the kept run and begin a new one with the model as it is now
    #[arg(long, help_heading = "Run")]
    pub restart: bool,
    /// Append every response with its reward to this file, as JSON lines
    #[arg(long, value_name = "PATH", help_heading = "Run")]
    pub log: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Reward")]
pub struct RewardArgs {
    /// Command that reads a response as JSON and prints a number
    #[arg(long, value_name = "COMMAND", required_unless_present = "reward_url", conflicts_with = "reward_url")]
    pub reward: Option<String>,
    /// Address that is sent a response as JSON and answers a number or {"reward": number}
    #[arg(long, value_name = "URL")]
    pub reward_url: Option<String>,
    /// Time for one reward, seconds
    #[arg(long, value_name = "S", default_value_t = 30.0, value_parser = seconds)]
    pub reward_timeout: f64,
    /// Tries after a reward failed
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub reward_retries: u32,
    /// Rewards at once [default: number of cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub reward_parallel: Option<u32>,
    /// When a reward fails after all tries: stop the run, or skip that response
    #[arg(long, value_enum, default_value_t = RewardFailures::Stop)]
    pub reward_failures: RewardFailures,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RewardFailures {
    Stop,
    Skip,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Loop")]
pub struct RlSampling {
    /// Steps in all; a larger number lets a finished run go on
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub steps: u32,
    /// Prompts of one step, in an order shuffled anew each time through the file
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub prompts_per_step: u32,
    /// Answers to each prompt; they are compared with each other
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(2..=i64::from(tiger_wire::limits::MAX_SAMPLES)))]
    pub samples: u32,
    /// Temperature of the answers that are trained on
    #[arg(long, value_name = "T", default_value_t = 1.0)]
    pub temperature: f64,
    /// Longest answer, tokens
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_tokens: u32,
    /// Seed of the order of prompts and of every answer
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Held-out prompts")]
pub struct RlEval {
    /// Held-out prompts, never trained on, in the form of FILE
    #[arg(long, value_name = "FILE", group = "held_out")]
    pub eval: Option<PathBuf>,
    /// Share of FILE to hold out, e.g. 0.1; which prompts is fixed by their text
    #[arg(long, value_name = "SHARE", group = "held_out", value_parser = share)]
    pub eval_share: Option<f64>,
    /// Steps between looks at the held-out prompts; there is one before the first step and one after the last as well
    #[arg(long, value_name = "K", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub eval_every: u32,
    /// Temperature of the answers to held-out prompts; 0 always takes the most probable token
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    pub eval_temperature: f64,
    /// Stop when the mean reward of the held-out prompts reaches this
    #[arg(long, value_name = "REWARD", requires = "held_out", allow_negative_numbers = true)]
    pub until: Option<f64>,
    /// Which weights the model has at the end: those with the best mean reward on held-out prompts, or the last [default: best; last without held-out prompts]
    #[arg(long, value_enum)]
    pub keep: Option<Keep>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Keep {
    Best,
    Last,
}

const TRAIN_HELP: &str = "\
Forms of a line; `prompt` may stand for `messages`, as one text or as a list of messages:\n  \
rated answers    {\"messages\": […], \"responses\": [{\"content\": \"…\", \"reward\": 1}, …]}\n  \
preference pair  {\"messages\": […], \"chosen\": \"…\", \"rejected\": \"…\"}    texts, messages, or whole conversations\n  \
demonstration    {\"messages\": […, {\"role\": \"assistant\", …}]} or {\"prompt\": \"…\", \"completion\": \"…\"}    the last answer is trained\n\n\
Demonstrations are trained with --objective sft and --kl-coefficient 0 unless the command line says otherwise.";

#[derive(Debug, clap::Args)]
#[command(after_help = TRAIN_HELP)]
pub struct Train {
    /// JSON lines: rated answers, preference pairs or demonstrations; - is standard input
    pub file: String,
    /// Private model to train
    #[arg(long)]
    pub model: String,
    /// Lines trained as one step
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub batch: u32,
    /// Times through the file, each in another order
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub epochs: u32,
    /// Seed of the order of lines
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    #[command(flatten)]
    pub knobs: Knobs,
    /// Optimizer steps a call, 1..16
    #[arg(long, help_heading = "Training")]
    pub steps: Option<u32>,
    /// Lines that are not trained on; their loss is measured before and after each epoch
    #[arg(long, value_name = "FILE", group = "validated", help_heading = "Validation")]
    pub validation: Option<String>,
    /// Share of the file to keep for that, e.g. 0.1; which lines is fixed by their prompts
    #[arg(long, value_name = "SHARE", group = "validated", value_parser = share, help_heading = "Validation")]
    pub validation_share: Option<f64>,
    /// Stop after so many epochs without a lower validation loss, and go back to the best revision
    #[arg(long, value_name = "EPOCHS", requires = "validated", conflicts_with = "dry_run", help_heading = "Validation", value_parser = clap::value_parser!(u32).range(1..))]
    pub patience: Option<u32>,
    /// Compute everything, change nothing
    #[arg(long, help_heading = "Training")]
    pub dry_run: bool,
}

fn share(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|_| "it must be a number".to_owned())?;
    if share > 0.0 && share < 1.0 { Ok(share) } else { Err("it must be between 0 and 1, e.g. 0.1".into()) }
}

/// A number of seconds of a flag.
pub fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "it must be a number".to_owned())?;
    if seconds > 0.0 && seconds <= 86_400.0 { Ok(seconds) } else { Err("it must be above 0 and at most 86400".into()) }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum ObjectiveArg {
    Tapered,
    ImportanceSampling,
    Ppo,
    Sft,
}

impl From<ObjectiveArg> for tiger_wire::Objective {
    fn from(arg: ObjectiveArg) -> Self {
        match arg {
            ObjectiveArg::Tapered => Self::Tapered,
            ObjectiveArg::ImportanceSampling => Self::ImportanceSampling,
            ObjectiveArg::Ppo => Self::Ppo,
            ObjectiveArg::Sft => Self::Sft,
        }
    }
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

#[derive(Debug, Subcommand)]
pub enum Accounts {
    /// All accounts, oldest first
    Ls,
    /// Make the owner's account, its password read from standard input: for a machine without a browser, before it listens on a public address
    Owner {
        /// Name to sign in with
        name: String,
    },
    /// Set an account's password, read from standard input, and end its sessions
    Password {
        /// Name to sign in with
        name: String,
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
    /// Measure training (with --full, too; else alone): a step of LoRA rank 16 on sequences of 256 tokens, and 8 answers of 64 tokens to one
    /// prompt of 1,024
    #[arg(long)]
    pub train: bool,
    /// Sequences of a step of training
    #[arg(long, value_name = "COUNT", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=64), requires = "train")]
    pub sequences: u32,
    /// Python interpreter with PyTorch, transformers and PEFT, to train the same shape in turns with ours (not the answers to one prompt)
    #[arg(long, value_name = "INTERPRETER", requires = "train", conflicts_with = "full")]
    pub python: Option<PathBuf>,
    /// Measure more: a longer prompt, many streams, adapters, a long context, a cached prompt, drafts
    #[arg(long)]
    pub full: bool,
    /// Measure only answers with drafts of likely tokens beside the same without
    #[arg(long, conflicts_with = "full")]
    pub speculation: bool,
    /// Measure only the rate and the gaps of so many streams while a model trains, beside the same streams alone
    #[arg(long, value_name = "STREAMS", value_parser = clap::value_parser!(u32).range(1..=64), conflicts_with_all = ["full", "speculation", "train", "context", "llama_bench"])]
    pub beside: Option<u32>,
    /// Of all these, only what has this text in its name
    #[arg(long, value_name = "TEXT")]
    pub only: Option<String>,
    /// Measure only the last tokens of a context of so many
    #[arg(long, value_name = "TOKENS", conflicts_with_all = ["full", "speculation", "llama_bench"])]
    pub context: Option<usize>,
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
    #[arg(long, value_name = "URL", conflicts_with_all = ["text", "llama_bench", "full", "only", "context", "train", "beside"])]
    pub http: Option<String>,
    /// A running `llama-server` with the same model, to be asked in turns with ours
    #[arg(long, value_name = "URL", requires = "http")]
    pub against: Option<String>,
    /// Rounds; medians are printed
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
}
