//! rmsnorm, rope and swiglu.

use tiger_kernels::Cpu;
use tiger_kernels::ops::rmsnorm::{add_rmsnorm, rmsnorm, rmsnorm_backward, rmsnorm_heads, rmsnorm_heads_backward};
use tiger_kernels::ops::rope::{Heads, RopeRows, Turn, rope};
use tiger_kernels::ops::rows::{Rows, RowsMut};
use tiger_kernels::ops::swiglu::{swiglu, swiglu_backward};

use crate::support::{Random, assert_close, assert_same, differences, dot, fast, same_everywhere, wide};

const EPS: f32 = 1e-5;
/// Forward ops in f32 against f64.
const FORWARD: f64 = 1e-6;
/// Gradients in f32 against differences in f64.
const GRADIENT: f64 = 1e-5;

/// Row counts and widths: whole vectors, tails, less than a vector, enough rows for several tasks.
const SHAPES: [(usize, usize); 5] = [(1, 16), (3, 20), (2, 7), (5, 64), (70, 1000)];

fn rmsnorm_f64(x: &[f64], w: &[f64]) -> Vec<f64> {
    x.chunks(w.len())
        .flat_map(|row| {
            let inverse = 1.0 / (row.iter().map(|x| x * x).sum::<f64>() / w.len() as f64 + f64::from(EPS)).sqrt();
            row.iter().zip(w).map(move |(x, w)| x * inverse * w).collect::<Vec<_>>()
        })
        .collect()
}

/// Asserts that each row alone gives the bits that it has in the batch.
#[track_caller]
fn rows_alone(x: &[f32], width: usize, out_width: usize, op: impl Fn(&Cpu, &[f32]) -> Vec<f32>) {
    let cpu = fast();
    let all = op(&cpu, x);
    for (t, row) in x.chunks(width).enumerate() {
        assert_same(&op(&cpu, row), &all[t * out_width..(t + 1) * out_width], &format!("row {t} alone"));
    }
}

#[test]
fn rmsnorm_matches_f64_and_keeps_rows_apart() {
    let mut random = Random(1);
    for (t, c) in SHAPES {
        let (x, w, delta) = (random.vec(t * c), random.vec(c), random.vec(t * c));
        let norm = |cpu: &Cpu, x: &[f32]| {
            let mut y = vec![0.0; x.len()];
            rmsnorm(cpu, x, &w, EPS, &mut y);
            y
        };
        let y = same_everywhere(|cpu| norm(cpu, &x));
        assert_close(&y, &rmsnorm_f64(&wide(&x), &wide(&w)), FORWARD, "rmsnorm");
        rows_alone(&x, c, c, norm);
        let both = same_everywhere(|cpu| {
            let (mut x, mut y) = (x.clone(), vec![0.0; t * c]);
            add_rmsnorm(cpu, &mut x, &delta, &w, EPS, &mut y);
            x.extend(y);
            x
        });
        let sum: Vec<f32> = x.iter().zip(&delta).map(|(a, b)| a + b).collect();
        assert_same(&both[..t * c], &sum, "residual sum");
        assert_same(&both[t * c..], &norm(&fast(), &sum), "norm of the sum");
    }
}

#[test]
fn rmsnorm_backward_matches_differences() {
    let mut random = Random(2);
    for (t, c) in &SHAPES[..4] {
        let (x, w, dy, before) = (random.vec(t * c), random.vec(*c), random.vec(t * c), random.vec(t * c));
        let dx = same_everywhere(|cpu| {
            let mut dx = before.clone();
            rmsnorm_backward(cpu, &x, &w, EPS, &dy, &mut dx);
            dx
        });
        let expected = differences(&wide(&x), |x| dot(&rmsnorm_f64(x, &wide(&w)), &wide(&dy)));
        let expected: Vec<f64> = expected.iter().zip(&before).map(|(g, b)| g + f64::from(*b)).collect();
        assert_close(&dx, &expected, GRADIENT, "dx");
    }
}

#[test]
fn rmsnorm_survives_large_and_zero_rows() {
    let mut y = vec![1.0; 64];
    let x: Vec<f32> = (0..64).map(|i| if i < 32 { 0.0 } else { 1e4 }).collect();
    rmsnorm(&fast(), &x, &[1.0; 32], EPS, &mut y);
    assert_eq!(y[..32], [0.0; 32]);
    assert_close(&y[32..], &[1.0; 32], FORWARD, "constant row");
}

/// Rows, heads, head size, columns before and after the heads.
const HEADS: [(usize, usize, usize, usize, usize); 5] =
    [(1, 1, 16, 0, 0), (3, 2, 20, 5, 3), (4, 3, 64, 64, 1), (2, 5, 6, 0, 7), (70, 4, 128, 128, 16)];

/// The heads' columns of every row, one after the other.
fn columns(x: &[f32], stride: usize, part: std::ops::Range<usize>) -> Vec<f32> {
    x.chunks(stride).flat_map(|row| row[part.clone()].to_vec()).collect()
}

#[test]
fn every_head_is_normed_as_a_row_of_its_own_and_nothing_else_is_touched() {
    let mut random = Random(5);
    for (t, count, size, column, rest) in HEADS {
        let (heads, stride, part) = (Heads { count, size }, column + count * size + rest, column..column + count * size);
        let (x, w) = (random.vec(t * stride), random.vec(size));
        let normed = |cpu: &Cpu, x: &[f32]| {
            let mut x = x.to_vec();
            rmsnorm_heads(cpu, RowsMut { data: &mut x, stride, column }, heads, &w, EPS);
            x
        };
        let y = same_everywhere(|cpu| normed(cpu, &x));
        let before = columns(&x, stride, part.clone());
        let mut expected = vec![0.0; before.len()];
        rmsnorm(&fast(), &before, &w, EPS, &mut expected);
        assert_same(&columns(&y, stride, part.clone()), &expected, "heads as rows");
        assert_close(&expected, &rmsnorm_f64(&wide(&before), &wide(&w)), FORWARD, "heads");
        for outside in [0..column, part.end..stride] {
            assert_same(&columns(&y, stride, outside.clone()), &columns(&x, stride, outside), "columns beside the heads");
        }
        rows_alone(&x, stride, stride, normed);
    }
}

#[test]
fn gradients_of_normed_heads_match_differences() {
    let mut random = Random(6);
    for (t, count, size, column, rest) in HEADS {
        let (heads, width, stride) = (Heads { count, size }, count * size, column + count * size + rest);
        let (x, w, dy) = (random.vec(t * (width + 2)), random.vec(size), random.vec(t * stride));
        let backward = |cpu: &Cpu| {
            let mut dx = dy.clone();
            let x = Rows { data: &x, stride: width + 2, column: 1 };
            rmsnorm_heads_backward(cpu, x, heads, &w, EPS, RowsMut { data: &mut dx, stride, column });
            dx
        };
        let dx = same_everywhere(backward);
        for outside in [0..column, column + width..stride] {
            assert_same(&columns(&dx, stride, outside.clone()), &columns(&dy, stride, outside), "columns beside the heads");
        }
        let [before, dy_heads] = [columns(&x, width + 2, 1..1 + width), columns(&dy, stride, column..column + width)];
        let mut as_rows = vec![0.0; before.len()];
        rmsnorm_backward(&fast(), &before, &w, EPS, &dy_heads, &mut as_rows);
        assert_same(&columns(&dx, stride, column..column + width), &as_rows, "gradients of rows of their own");
        if t * width < 1000 {
            let expected = differences(&wide(&before), |x| dot(&rmsnorm_f64(x, &wide(&w)), &wide(&dy_heads)));
            assert_close(&as_rows, &expected, GRADIENT, "dx");
        }
    }
}

fn rope_f64(x: &[f64], d: usize, cos: &[f64], sin: &[f64]) -> Vec<f64> {
    let half = d / 2;
    let mut y = x.to_vec();
    for (y, x) in y.chunks_mut(d).zip(x.chunks(d)) {
        for i in 0..half {
            y[i] = x[i] * cos[i] - x[i + half] * sin[i];
            y[i + half] = x[i + half] * cos[i] + x[i] * sin[i];
        }
    }
    y
}

#[test]
fn rope_turns_only_its_columns_and_back() {
    let mut random = Random(3);
    for (t, heads, d, column, rest) in [(1, 1, 2, 0, 0), (3, 2, 20, 5, 3), (4, 3, 64, 64, 1), (5, 2, 128, 0, 16)] {
        let stride = column + heads * d + rest;
        let x = random.vec(t * stride);
        let angles = random.scaled(t * d / 2, 3.0);
        let rows = RopeRows { cos: angles.iter().map(|a| a.cos()).collect(), sin: angles.iter().map(|a| a.sin()).collect() };
        let turned = |cpu: &Cpu, x: &[f32], turn| {
            let mut x = x.to_vec();
            rope(cpu, RowsMut { data: &mut x, stride, column }, Heads { count: heads, size: d }, &rows, turn);
            x
        };
        let y = same_everywhere(|cpu| turned(cpu, &x, Turn::Forward));
        let mut expected = wide(&x);
        for row in 0..t {
            let part = row * stride + column..row * stride + column + heads * d;
            let angle = row * d / 2..(row + 1) * d / 2;
            let y = rope_f64(&expected[part.clone()], d, &wide(&rows.cos[angle.clone()]), &wide(&rows.sin[angle]));
            expected[part].copy_from_slice(&y);
        }
        assert_close(&y, &expected, FORWARD, "rope");
        let back = same_everywhere(|cpu| turned(cpu, &y, Turn::Backward));
        assert_close(&back, &wide(&x), FORWARD, "there and back");
        let dy = random.vec(t * stride);
        let dx = turned(&fast(), &dy, Turn::Backward);
        // A rotation keeps inner products: ⟨dy, R x⟩ = ⟨Rᵀ dy, x⟩.
        let (left, right) = (dot(&wide(&dy), &expected), dot(&wide(&dx), &wide(&x)));
        assert!((left - right).abs() < 1e-5 * (t * stride) as f64, "gradient of rope: {left} {right}");
    }
}

fn swiglu_f64(gate_up: &[f64], f: usize) -> Vec<f64> {
    gate_up.chunks(2 * f).flat_map(|row| (0..f).map(|i| row[i] / (1.0 + (-row[i]).exp()) * row[f + i]).collect::<Vec<_>>()).collect()
}

#[test]
fn swiglu_matches_f64_and_differences() {
    let mut random = Random(4);
    for (t, f) in SHAPES {
        let (gate_up, dy) = (random.scaled(2 * t * f, 4.0), random.vec(t * f));
        let forward = |cpu: &Cpu, gate_up: &[f32]| {
            let mut y = vec![0.0; gate_up.len() / 2];
            swiglu(cpu, gate_up, f, &mut y);
            y
        };
        let y = same_everywhere(|cpu| forward(cpu, &gate_up));
        assert_close(&y, &swiglu_f64(&wide(&gate_up), f), FORWARD, "swiglu");
        rows_alone(&gate_up, 2 * f, f, forward);
        let d = same_everywhere(|cpu| {
            let mut d = gate_up.clone();
            swiglu_backward(cpu, &mut d, f, &dy);
            d
        });
        if t * f < 1000 {
            let expected = differences(&wide(&gate_up), |x| dot(&swiglu_f64(x, f), &wide(&dy)));
            assert_close(&d, &expected, GRADIENT, "dgate_up");
        }
    }
}

#[test]
fn swiglu_survives_extremes() {
    let gate_up: Vec<f32> = [1e4, -1e4, 0.0, f32::MAX, -90.0, f32::NEG_INFINITY].into_iter().chain([1.0; 6]).collect();
    let (mut y, mut d) = (vec![0.0; 6], gate_up.clone());
    swiglu(&fast(), &gate_up, 6, &mut y);
    swiglu_backward(&fast(), &mut d, 6, &[1.0; 6]);
    assert_eq!(y[..4], [1e4, 0.0, 0.0, f32::MAX]);
    assert!(y.iter().chain(&d).all(|x| x.is_finite()), "{y:?} {d:?}");
}
