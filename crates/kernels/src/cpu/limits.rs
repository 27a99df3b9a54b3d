//! What this machine can do at best: read bandwidth and arithmetic peak. Measured, not looked up. (Being written.)

use crate::Cpu;
use crate::ops::linear::Precision;

/// Bytes per second that all threads together read from memory, in GB/s.
pub fn read_bandwidth(cpu: &Cpu) -> f64 {
    let _ = cpu;
    0.0
}

/// Multiply-adds (two operations each) of all threads together, in GFLOP/s, for weights of this precision.
pub fn peak_flops(cpu: &Cpu, precision: Precision) -> f64 {
    let _ = (cpu, precision);
    0.0
}
