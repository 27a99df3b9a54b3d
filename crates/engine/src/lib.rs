//! Everything that lives: requests, the pages of their memory, adapters, the one loop that samples and trains.
//! Knows token ids only: no HTTP, no SQL, no path, no text.

mod adapters;
pub mod command;
pub mod request;
pub mod sample;
pub mod source;
pub mod train;
mod worker;

pub use command::{Config, Engine, Handle, Rejected, Speculation, Status};
pub use request::{
    AdapterId, BaseId, Constraint, EngineError, Event, FinishReason, GenerateRequest, Generation, MAX_ALTERNATIVES, Sampling, TokenMask,
    TrainEvent, Training,
};
pub use source::{Progress, Source};
pub use train::{
    AdvantageScale, Baseline, Group, Knobs, LengthNorm, Mode, Objective, Outcome, Recorded, Response, ResponseMetrics, RewardSummary,
    StepMetrics, TrainMetrics, TrainRequest,
};
