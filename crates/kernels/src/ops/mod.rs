//! One file per op; each checks its shapes, then calls the vector code. Forward beside backward.

pub mod adamw;
pub mod attention;
pub mod linear;
pub mod logprob;
pub mod lora;
pub mod rmsnorm;
pub mod rope;
pub mod rows;
pub mod swiglu;
pub mod weights;
