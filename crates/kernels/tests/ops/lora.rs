//! Adapters: forward and backward against f64, rows apart, many adapters in one batch.

use tiger_kernels::Cpu;
use tiger_kernels::ops::lora::{LoraGradients, LoraPair, LoraRun, LoraSaved, lora_backward, lora_forward};
use tiger_kernels::ops::rows::{Rows, RowsMut};

use crate::support::{Random, assert_close, assert_same, fast, same_everywhere, wide};

const TOLERANCE: f64 = 1e-5;
/// Sums over 80 rows of terms that are themselves sums.
const GRADIENT: f64 = 5e-5;

fn pair(random: &mut Random, k: usize, n: usize, rank: usize) -> LoraPair {
    let padded = rank.next_multiple_of(16);
    let mut a = vec![0.0; k * padded];
    for row in a.chunks_mut(padded) {
        row[..rank].copy_from_slice(&random.scaled(rank, 1.0 / (k as f32).sqrt()));
    }
    LoraPair { k, n, rank, a, b: random.vec(rank * n) }
}

/// (h, y) of one row.
fn forward_f64(p: &LoraPair, scale: f32, x: &[f32], y: &[f32]) -> (Vec<f64>, Vec<f64>) {
    let padded = p.padded_rank();
    let h: Vec<f64> = (0..padded).map(|r| (0..p.k).map(|k| f64::from(x[k]) * f64::from(p.a[k * padded + r])).sum()).collect();
    let y = (0..p.n).map(|n| f64::from(y[n]) + f64::from(scale) * (0..p.rank).map(|r| h[r] * f64::from(p.b[r * p.n + n])).sum::<f64>());
    let y = y.collect();
    (h, y)
}

const H_STRIDE: usize = 50;

/// h then y, whole matrices.
fn forward(cpu: &Cpu, x: &[f32], runs: &[LoraRun], y: &[f32], stride: usize, column: usize) -> Vec<f32> {
    let (mut h, mut y) = (vec![0.0; y.len() / stride * H_STRIDE], y.to_vec());
    lora_forward(cpu, x, runs, RowsMut { data: &mut h, stride: H_STRIDE, column: 2 }, RowsMut { data: &mut y, stride, column });
    h.extend(y);
    h
}

#[test]
fn batch_of_adapters_matches_f64_and_keeps_rows_apart() {
    let mut random = Random(20);
    for (k, n) in [(16, 16), (20, 37), (100, 300), (7, 5)] {
        let (t, stride, column) = (23, n + 9, 4);
        let pairs = [pair(&mut random, k, n, 8), pair(&mut random, k, n, 16), pair(&mut random, k, n, 33)];
        let (x, y) = (random.vec(t * k), random.vec(t * stride));
        // Rows 3, 4 and 22 have no adapter.
        let runs = [
            LoraRun { rows: 0..3, pair: &pairs[0], scale: 2.0 },
            LoraRun { rows: 5..6, pair: &pairs[1], scale: 0.5 },
            LoraRun { rows: 6..22, pair: &pairs[2], scale: 1.0 },
        ];
        let all = same_everywhere(|cpu| forward(cpu, &x, &runs, &y, stride, column));
        let (h, got) = all.split_at(t * H_STRIDE);
        for run in &runs {
            for row in run.rows.clone() {
                let (eh, ey) = forward_f64(run.pair, run.scale, &x[row * k..(row + 1) * k], &y[row * stride + column..][..n]);
                assert_close(&h[row * H_STRIDE + 2..][..eh.len()], &eh, TOLERANCE, "h");
                assert_close(&got[row * stride + column..][..n], &ey, TOLERANCE, "y");
                let alone = [LoraRun { rows: 0..1, ..run.clone() }];
                let alone = forward(&fast(), &x[row * k..(row + 1) * k], &alone, &y[row * stride..(row + 1) * stride], stride, column);
                assert_same(&alone[H_STRIDE..], &got[row * stride..(row + 1) * stride], &format!("row {row} alone"));
            }
        }
        for row in [3, 4, 22] {
            assert_same(&got[row * stride..(row + 1) * stride], &y[row * stride..(row + 1) * stride], "a row without adapter");
        }
    }
}

#[test]
fn backward_matches_f64() {
    let mut random = Random(21);
    for (k, n, rank, rows) in [(16, 16, 16, 2..9), (20, 37, 8, 0..1), (70, 130, 33, 1..80), (7, 5, 1, 0..3)] {
        let p = pair(&mut random, k, n, rank);
        let padded = p.padded_rank();
        let (t, stride, column, scale) = (rows.end + 1, n + 6, 3, 1.5f32);
        let (x, y, dy) = (random.vec(t * k), random.vec(t * stride), random.vec(t * stride));
        let run = LoraRun { rows: rows.clone(), pair: &p, scale };
        let all = forward(&fast(), &x, std::slice::from_ref(&run), &y, stride, column);
        let h = &all[..t * H_STRIDE];
        let (da0, db0, dx0) = (vec![0.0; p.a.len()], random.vec(p.b.len()), random.vec(t * k));
        let got = same_everywhere(|cpu| {
            let (mut da, mut db, mut dx) = (da0.clone(), db0.clone(), dx0.clone());
            let saved = LoraSaved { x: &x, h: Rows { data: h, stride: H_STRIDE, column: 2 }, dy: Rows { data: &dy, stride, column } };
            lora_backward(cpu, &run, saved, LoraGradients { da: &mut da, db: &mut db, dx: Some(&mut dx) });
            [da, db, dx].concat()
        });
        let (mut da, mut db, mut dx) = (wide(&da0), wide(&db0), wide(&dx0));
        for row in rows {
            let (x, dy) = (wide(&x[row * k..(row + 1) * k]), wide(&dy[row * stride + column..][..n]));
            let (h, _) = forward_f64(&p, scale, &x.iter().map(|x| *x as f32).collect::<Vec<_>>(), &vec![0.0; n]);
            for r in 0..rank {
                let mut dh = 0.0;
                for j in 0..n {
                    db[r * n + j] += f64::from(scale) * h[r] * dy[j];
                    dh += f64::from(scale) * dy[j] * f64::from(p.b[r * n + j]);
                }
                for i in 0..k {
                    da[i * padded + r] += x[i] * dh;
                    dx[row * k + i] += dh * f64::from(p.a[i * padded + r]);
                }
            }
        }
        assert_close(&got, &[da, db, dx].concat(), GRADIENT, &format!("dA, dB, dx of {k} {n} {rank}"));
    }
}

#[test]
fn without_input_gradient_the_rest_is_the_same() {
    let mut random = Random(22);
    let p = pair(&mut random, 24, 40, 4);
    let (x, h, dy) = (random.vec(5 * 24), random.vec(5 * 16), random.vec(5 * 40));
    let run = LoraRun { rows: 0..5, pair: &p, scale: 1.0 };
    let saved = LoraSaved { x: &x, h: Rows { data: &h, stride: 16, column: 0 }, dy: Rows { data: &dy, stride: 40, column: 0 } };
    let backward = |dx: Option<&mut [f32]>| {
        let (mut da, mut db) = (vec![0.0; p.a.len()], vec![0.0; p.b.len()]);
        lora_backward(&fast(), &run, saved, LoraGradients { da: &mut da, db: &mut db, dx });
        [da, db].concat()
    };
    assert_same(&backward(None), &backward(Some(&mut [0.0; 5 * 24])), "dA, dB");
}
