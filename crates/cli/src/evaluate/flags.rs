//! The flags of `tiger evaluate`.

use std::path::PathBuf;

use tiger_wire::limits::MAX_EVALUATE_SAMPLES;
use tiger_wire::{Against, ParentName};

const HELP: &str = "\
The reward command is run by `sh -c` once for each answer, which it reads as one JSON object from its standard input: messages, response, \
stop_reason, sample (which of the answers to the prompt), and the prompt line's other fields. It prints a number. A URL is sent the same object and answers a number or \
{\"reward\": number}.\n\n\
An answer wins against the other side's answer of the same number and seed if its reward is higher; ties count half. The interval of the win \
rate is Wilson's at 95 % with one observation a prompt.\n\n\
Example:\n  tiger evaluate pirate --prompts examples/questions.jsonl --samples 4 --reward 'python3 examples/reward.py'";

/// The flags.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Evaluate {
    /// Private model, id or name
    pub model: String,
    /// Prompts, one JSON object a line: {"prompt": "…"} or {"messages": […]}, and "responses": ["…", …] where texts are to be scored (of a training file's rated responses those above their mean); - is standard input
    #[arg(long, value_name = "FILE")]
    pub prompts: PathBuf,
    /// Revision in question [default: the newest]
    #[arg(long, value_name = "N")]
    pub revision: Option<u64>,
    /// What it is compared with: parent, or a revision
    #[arg(long, value_name = "N", default_value = "parent", value_parser = against)]
    pub against: Against,
    /// Answers of each side to each prompt; 0 only scores the given responses
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=i64::from(MAX_EVALUATE_SAMPLES)))]
    pub samples: u32,
    /// Temperature of the answers [default: the model's own]
    #[arg(long, value_name = "T")]
    pub temperature: Option<f64>,
    #[arg(long)]
    pub top_p: Option<f64>,
    /// Longest answer, tokens
    #[arg(long, value_name = "N")]
    pub max_tokens: Option<u32>,
    /// Seed of the answers, the same for both sides
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Command that reads an answer as JSON and prints a number
    #[arg(long, value_name = "COMMAND", conflicts_with = "reward_url", group = "judge")]
    pub reward: Option<String>,
    /// Address that is sent an answer as JSON and answers a number or {"reward": number}
    #[arg(long, value_name = "URL", group = "judge")]
    pub reward_url: Option<String>,
    /// Time for one reward, seconds
    #[arg(long, value_name = "S", default_value_t = 30.0, value_parser = crate::args::seconds, requires = "judge")]
    pub reward_timeout: f64,
}

fn against(text: &str) -> Result<Against, String> {
    match text {
        "parent" => Ok(Against::Named(ParentName::Parent)),
        number => number.parse().map(Against::Revision).map_err(|_| "it must be `parent` or the number of a revision".to_owned()),
    }
}
