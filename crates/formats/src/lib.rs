//! Files from outside, all untrusted, turned into types that cannot be wrong.
//! Knows no device, no HTTP, no database.

pub mod architecture;
pub mod checkpoint;
pub mod config;
pub mod constraint;
pub mod digest;
pub mod error;
mod fields;
#[doc(hidden)]
pub mod fuzz;
pub mod generation;
pub mod gguf;
mod map;
pub mod merge;
pub mod modules;
pub mod packed;
pub mod peft;
pub mod safetensors;
pub mod template;
pub mod tokenizer;

pub use architecture::{Architecture, Rope, RopeScaling};
pub use checkpoint::Checkpoint;
pub use config::ModelConfig;
pub use constraint::{CallGrammar, Constraint, TokEnv};
pub use error::FormatError;
pub use generation::GenerationConfig;
pub use gguf::{Gguf, GgufFile, GgufType, TensorType};
pub use merge::Merged;
pub use modules::Module;
pub use packed::PackedFile;
pub use peft::Adapter;
pub use safetensors::{Dtype, SafeTensors, TensorView};
pub use template::{ChatTemplate, Ending, Message, Render, ToolStyle};
pub use tokenizer::{DecodeStream, Tokenizer};
