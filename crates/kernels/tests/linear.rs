//! Linear maps against f64, and their exactness rule bit by bit.

use tiger_kernels::ops::linear::{Epilogue, Precision, Raw, RawType, Weight, add_bias, gather_rows, linear, linear_backward_x};
use tiger_kernels::{Cpu, Isa};

/// Largest error of an output against f64, relative to the root of the sum of the squared products.
const TOLERANCE_F32: f64 = 1e-5;
const TOLERANCE_BF16: f64 = 1e-5;
/// bf16 activations against unrounded ones.
const TOLERANCE_ROUNDED: f64 = 1e-2;
/// int8: root mean square error over root mean square output, normal values.
const TOLERANCE_INT8: f64 = 0.0075;
/// The same with outlier channels.
const TOLERANCE_INT8_OUTLIERS: f64 = 0.013;

/// The same for int4, and how much of the error of a scale that just maps the largest magnitude to −8 may be left.
const TOLERANCE_INT4: f64 = 0.078;
const TOLERANCE_INT4_OUTLIERS: f64 = 0.082;
const INT4_OF_NAIVE: f64 = 0.945;

const PRECISIONS: [Precision; 4] = [Precision::F32, Precision::Bf16, Precision::Int8, Precision::Int4];
/// [N, K]: small, odd, and beyond each block of K and panel of N.
const SHAPES: [[usize; 2]; 7] = [[1, 1], [64, 64], [3, 7], [70, 129], [130, 1100], [200, 2500], [65, 4100]];

struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    /// Nearly normal, variance 1.
    fn normal(&mut self) -> f32 {
        let sum: u64 = (0..4).map(|_| self.bits() & 0xffff).sum();
        (sum as f32 / 65_536.0 - 2.0) * 3f32.sqrt()
    }

    fn values(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.normal()).collect()
    }
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn bf16(v: f32) -> f32 {
    half::bf16::from_f32(v).to_f32()
}

/// Weights of variance 1 / K from f32.
fn weight(cpu: &Cpu, precision: Precision, [n, k]: [usize; 2], seed: u64) -> Weight {
    let values: Vec<f32> = Random(seed).values(n * k).iter().map(|v| v / (k as f32).sqrt()).collect();
    Weight::pack(cpu, precision, k, &[Raw { dtype: RawType::F32, bytes: &bytes(&values), rows: n }])
}

/// The weight as it is multiplied, `[N, K]`.
fn rows(w: &Weight) -> Vec<f32> {
    let mut out = vec![0.0; w.n() * w.k()];
    for (n, out) in out.chunks_exact_mut(w.k()).enumerate() {
        w.row(n, out);
    }
    out
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// x `[T, K]` times rows `[N, K]` in f64 plus `start`, and the root of the sum of squares, `[T, N]`.
fn reference(x: &[f32], w: &[f32], k: usize, start: &[f32]) -> Vec<(f64, f64)> {
    let n = w.len() / k;
    let mut out = Vec::new();
    for (t, x) in x.chunks_exact(k).enumerate() {
        for (i, w) in w.chunks_exact(k).enumerate() {
            let start = f64::from(start[t * n + i]);
            let products = x.iter().zip(w).map(|(a, b)| f64::from(*a) * f64::from(*b));
            out.push((start + products.clone().sum::<f64>(), (start * start + products.map(|p| p * p).sum::<f64>()).sqrt()));
        }
    }
    out
}

fn largest_error(y: &[f32], reference: &[(f64, f64)]) -> f64 {
    assert_eq!(y.len(), reference.len());
    y.iter().zip(reference).map(|(y, (value, size))| (f64::from(*y) - value).abs() / size.max(1e-30)).fold(0.0, f64::max)
}

/// Root mean square of the error over that of the values.
fn mean_error(y: &[f32], reference: &[(f64, f64)]) -> f64 {
    let error: f64 = y.iter().zip(reference).map(|(y, r)| (f64::from(*y) - r.0).powi(2)).sum();
    (error / reference.iter().map(|r| r.0 * r.0).sum::<f64>()).sqrt()
}

fn forward(cpu: &Cpu, x: &[f32], w: &Weight) -> Vec<f32> {
    let mut y = vec![f32::NAN; x.len() / w.k() * w.n()];
    linear(cpu, x, w, &mut y, Epilogue::Store);
    y
}

fn backward(cpu: &Cpu, dy: &[f32], w: &Weight) -> Vec<f32> {
    let mut dx = vec![f32::NAN; dy.len() / w.n() * w.k()];
    linear_backward_x(cpu, dy, w, &mut dx, Epilogue::Store);
    dx
}

/// Rows as a kernel sees them for this precision, where that is a simple rounding.
fn seen(precision: Precision, x: &[f32]) -> Vec<f32> {
    if precision == Precision::F32 { x.to_vec() } else { x.iter().map(|v| bf16(*v)).collect() }
}

fn transposed(w: &[f32], k: usize) -> Vec<f32> {
    (0..k).flat_map(|i| w.iter().skip(i).step_by(k)).copied().collect()
}

#[test]
fn forward_agrees_with_f64() {
    let cpu = Cpu::new(2, None);
    for (precision, tolerance) in [(Precision::F32, TOLERANCE_F32), (Precision::Bf16, TOLERANCE_BF16)] {
        for [n, k] in SHAPES {
            let w = weight(&cpu, precision, [n, k], 1);
            let x = Random(2).values(11 * k);
            let old = Random(3).values(11 * n);
            let mut y = old.clone();
            linear(&cpu, &x, &w, &mut y, Epilogue::Add);
            let zeros = vec![0.0; 11 * n];
            for (y, start) in [(y, &old), (forward(&cpu, &x, &w), &zeros)] {
                let error = largest_error(&y, &reference(&seen(precision, &x), &rows(&w), k, start));
                assert!(error < tolerance, "{precision:?} [{n}, {k}]: {error:e}");
                let error = largest_error(&y, &reference(&x, &rows(&w), k, start));
                assert!(error < TOLERANCE_ROUNDED, "{precision:?} [{n}, {k}] unrounded: {error:e}");
            }
        }
    }
}

#[test]
fn integer_error_is_small_also_with_outlier_channels() {
    let cpu = Cpu::new(2, None);
    let cases = [
        (Precision::Int8, 0, TOLERANCE_INT8),
        (Precision::Int8, 6, TOLERANCE_INT8_OUTLIERS),
        (Precision::Int4, 0, TOLERANCE_INT4),
        (Precision::Int4, 6, TOLERANCE_INT4_OUTLIERS),
    ];
    for (precision, outliers, tolerance) in cases {
        let [n, k] = [192, 2048];
        let values: Vec<f32> = Random(1).values(n * k).iter().map(|v| v / (k as f32).sqrt()).collect();
        let w = Weight::pack(&cpu, precision, k, &[Raw { dtype: RawType::F32, bytes: &bytes(&values), rows: n }]);
        let mut x = Random(2).values(16 * k);
        for row in x.chunks_exact_mut(k) {
            for i in 0..outliers {
                row[i * 331 + 5] *= 30.0;
            }
        }
        let error = mean_error(&forward(&cpu, &x, &w), &reference(&x, &values, k, &vec![0.0; 16 * n]));
        println!("{precision:?} with {outliers} outlier channels of {k}: error {:.2} %", 100.0 * error);
        assert!(error < tolerance, "{precision:?}, {outliers} outliers: {error:e}");
        // The error is that of quantisation, not of the sums.
        assert!(error > 1e-3, "{precision:?}, {outliers} outliers: {error:e}");
    }
}

#[test]
fn int4_scales_leave_less_error_than_the_largest_magnitude_would() {
    let cpu = Cpu::new(2, None);
    let [n, k] = [128, 1024];
    let values = Random(22).values(n * k);
    let w = Weight::pack(&cpu, Precision::Int4, k, &[Raw { dtype: RawType::F32, bytes: &bytes(&values), rows: n }]);
    let error = |got: &[f32]| got.iter().zip(&values).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt();
    let naive: Vec<f32> = values
        .chunks_exact(32)
        .flat_map(|group| {
            let extreme = group.iter().fold(0.0, |e: f32, v| if v.abs() > e.abs() { *v } else { e });
            group.iter().map(move |v| (v / extreme * -8.0).round().clamp(-8.0, 7.0) * extreme / -8.0)
        })
        .collect();
    let ratio = error(&rows(&w)) / error(&naive);
    println!("int4: {ratio:.3} of the naive scale's error");
    assert!(ratio < INT4_OF_NAIVE, "{ratio}");
}

#[test]
fn backward_agrees_with_f64() {
    let cpu = Cpu::new(2, None);
    for precision in PRECISIONS {
        let tolerance = if precision == Precision::F32 { TOLERANCE_F32 } else { TOLERANCE_BF16 };
        for [n, k] in SHAPES {
            let w = weight(&cpu, precision, [n, k], 4);
            let dy = Random(5).values(9 * n);
            let old = Random(6).values(9 * k);
            let mut dx = old.clone();
            linear_backward_x(&cpu, &dy, &w, &mut dx, Epilogue::Add);
            let zeros = vec![0.0; 9 * k];
            let columns = transposed(&seen(precision, &rows(&w)), k);
            for (dx, start) in [(dx, &old), (backward(&cpu, &dy, &w), &zeros)] {
                let error = largest_error(&dx, &reference(&seen(precision, &dy), &columns, n, start));
                assert!(error < tolerance, "{precision:?} [{n}, {k}]: {error:e}");
            }
        }
    }
}

#[test]
fn a_row_does_not_depend_on_the_others_nor_on_threads() {
    let cpus: Vec<Cpu> = (1..=3).map(|threads| Cpu::new(threads, None)).collect();
    for precision in PRECISIONS {
        for [n, k] in [[70, 129], [130, 1100], [65, 4100]] {
            let w = weight(&cpus[0], precision, [n, k], 7);
            let most = 515;
            let x = Random(8).values(most * k);
            let dy = Random(9).values(most * n);
            let (y, dx) = (bits(&forward(&cpus[0], &x, &w)), bits(&backward(&cpus[0], &dy, &w)));
            let counts = if k > 2000 { (1..=9).chain([33, 64]).collect() } else { (1..=33).chain([64, 100, 512]).collect::<Vec<_>>() };
            for t in counts {
                for cpu in &cpus {
                    let case = format!("{precision:?} [{n}, {k}], {t} rows, {} threads", cpu.threads());
                    // The last t rows, so that a row also changes its place.
                    let from = most - t;
                    assert_eq!(bits(&forward(cpu, &x[from * k..], &w)), y[from * n..], "{case}");
                    if !(10..=30).contains(&t) {
                        assert_eq!(bits(&backward(cpu, &dy[from * n..], &w)), dx[from * k..], "backward {case}");
                    }
                }
            }
        }
    }
}

#[test]
fn every_instruction_set_gives_the_same_bits() {
    let portable = Cpu::new(1, Some(Isa::Portable));
    for isa in [Isa::Avx2, Isa::Avx512, Isa::Amx, Isa::Neon, Isa::NeonDot] {
        let cpu = Cpu::new(1, Some(isa));
        if cpu.isa() != isa {
            continue;
        }
        for precision in PRECISIONS {
            for [n, k] in SHAPES {
                let (w, same) = (weight(&portable, precision, [n, k], 10), weight(&cpu, precision, [n, k], 10));
                assert_eq!(bits(&rows(&w)), bits(&rows(&same)));
                for t in [1, 2, 3, 5, 7, 18, 33] {
                    let (mut y, dy) = (Random(11).values(t * n), Random(12).values(t * n));
                    let (mut dx, x) = (Random(13).values(t * k), Random(14).values(t * k));
                    let (mut other_y, mut other_dx) = (y.clone(), dx.clone());
                    linear(&portable, &x, &w, &mut y, Epilogue::Add);
                    linear(&cpu, &x, &w, &mut other_y, Epilogue::Add);
                    linear_backward_x(&portable, &dy, &w, &mut dx, Epilogue::Add);
                    linear_backward_x(&cpu, &dy, &w, &mut other_dx, Epilogue::Add);
                    // AMX has a chain of its own for bf16, which is also that of the gradients of integers.
                    if isa != Isa::Amx || precision != Precision::Bf16 {
                        assert_eq!(bits(&y), bits(&other_y), "{isa:?} {precision:?} [{n}, {k}], {t} rows");
                    }
                    if isa != Isa::Amx || precision == Precision::F32 {
                        assert_eq!(bits(&dx), bits(&other_dx), "backward {isa:?} {precision:?} [{n}, {k}], {t} rows");
                    }
                }
            }
        }
    }
}

/// The definition in the module's comment, in order.
#[test]
fn the_chain_is_the_documented_one() {
    let cpu = Cpu::new(2, None);
    let [n, k] = [67, 1234];
    for precision in [Precision::F32, Precision::Bf16] {
        let w = weight(&cpu, precision, [n, k], 15);
        let x = Random(16).values(3 * k);
        let (y, w) = (forward(&cpu, &x, &w), rows(&w));
        for (i, y) in y.iter().enumerate() {
            let (x, w) = (&seen(precision, &x)[i / n * k..][..k], &w[i % n * k..][..k]);
            let sum = |ks: &mut dyn Iterator<Item = usize>, start: f32| ks.fold(start, |acc, j| x[j].mul_add(w[j], acc));
            let chain = match (precision, cpu.isa()) {
                (Precision::Bf16, Isa::Amx) => (0..k).step_by(32).fold(0.0, |acc, from| {
                    let block = from..k.min(from + 32);
                    acc + (sum(&mut block.clone().step_by(2), 0.0) + sum(&mut block.skip(1).step_by(2), 0.0))
                }),
                (Precision::Bf16, _) => sum(&mut (0..k).map(|j| j ^ 1), 0.0),
                _ => sum(&mut (0..k), 0.0),
            };
            assert_eq!(chain.to_bits(), y.to_bits(), "{precision:?} output {i}");
        }
    }
}

#[test]
fn a_weight_is_the_same_after_its_bytes_were_kept() {
    let cpu = Cpu::new(3, None);
    for precision in PRECISIONS {
        // One of some bytes, and one of several huge pages.
        for shape in [[67, 129], [1030, 9000]] {
            let w = weight(&cpu, precision, shape, 23);
            let bytes = w.packed().concat();
            assert_eq!(Some(bytes.len()), Weight::packed_bytes(precision, shape));
            let same = Weight::read(&cpu, precision, shape, &|at, out| {
                out.copy_from_slice(&bytes[at..][..out.len()]);
                Ok::<(), ()>(())
            });
            let same = same.unwrap();
            assert_eq!((same.n(), same.k(), same.precision(), same.bytes()), (w.n(), w.k(), precision, w.bytes()));
            assert!(same.packed().concat() == bytes);
            let x = Random(24).values(3 * shape[1]);
            assert_eq!(bits(&forward(&cpu, &x, &same)), bits(&forward(&cpu, &x, &w)));
        }
        let failed = Weight::read(&cpu, precision, [70, 70], &|at, _| if at == 0 { Err("broken") } else { Ok(()) });
        assert_eq!(failed.err(), Some("broken"));
        assert_eq!(Weight::packed_bytes(precision, [usize::MAX / 64, 4096]), None);
        assert_eq!(Weight::packed_bytes(precision, [64, usize::MAX]), None);
    }
}

#[test]
fn every_checkpoint_type_is_packed_rounded_and_stacked() {
    let cpu = Cpu::new(2, None);
    let k = 33;
    let values = Random(17).values(70 * k);
    let encoded = |dtype: RawType| -> (Vec<u8>, Vec<f32>) {
        match dtype {
            RawType::F32 => (bytes(&values), values.clone()),
            RawType::F16 => (
                values.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect(),
                values.iter().map(|v| half::f16::from_f32(*v).to_f32()).collect(),
            ),
            RawType::Bf16 => {
                (values.iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect(), values.iter().map(|v| bf16(*v)).collect())
            }
        }
    };
    for dtype in [RawType::F32, RawType::F16, RawType::Bf16] {
        let (bytes, values) = encoded(dtype);
        // Not aligned to anything.
        let shifted: Vec<u8> = std::iter::once(0).chain(bytes.iter().copied()).collect();
        let size = bytes.len() / values.len();
        let parts = [
            Raw { dtype, bytes: &shifted[1..][..7 * k * size], rows: 7 },
            Raw { dtype, bytes: &[], rows: 0 },
            Raw { dtype, bytes: &shifted[1 + 7 * k * size..], rows: 63 },
        ];
        for precision in PRECISIONS {
            let w = Weight::pack(&cpu, precision, k, &parts);
            assert_eq!((w.n(), w.k(), w.precision()), (70, k, precision));
            let got = rows(&w);
            match precision {
                Precision::F32 => assert_eq!(bits(&got), bits(&values)),
                Precision::Bf16 => assert_eq!(bits(&got), bits(&seen(precision, &values))),
                Precision::Int8 => {
                    for (got, values) in got.chunks_exact(k).zip(values.chunks_exact(k)) {
                        let max = values.iter().fold(0f32, |m, v| m.max(v.abs()));
                        // Half a step of the largest scale that the search tries: nine bf16 steps of at most 1/128 above the smallest.
                        assert!(got.iter().zip(values).all(|(a, b)| (a - b).abs() <= 0.5 * (1.0 + 9.0 / 128.0) * max / 127.0));
                    }
                }
                Precision::Int4 => {
                    for (got, values) in got.chunks_exact(k).zip(values.chunks_exact(k)) {
                        let max = values.iter().fold(0f32, |m, v| m.max(v.abs()));
                        // A step, where the magnitude of the other sign is cut to 7.
                        assert!(got.iter().zip(values).all(|(a, b)| (a - b).abs() <= 1.1 * max / 8.0));
                    }
                }
            }
            let ids = [69, 0, 7, 6, 7];
            let mut out = vec![f32::NAN; ids.len() * k];
            gather_rows(&cpu, &w, &ids, &mut out);
            for (id, out) in ids.iter().zip(out.chunks_exact(k)) {
                assert_eq!(bits(out), bits(&got[*id as usize * k..][..k]));
            }
        }
    }
}

#[test]
fn synthetic_weights_have_the_asked_spread_for_any_threads() {
    let w = Weight::synthetic(&Cpu::new(1, None), Precision::Bf16, 100, 300, 18, 0.5);
    let values = rows(&w);
    let mean = values.iter().sum::<f32>() / values.len() as f32;
    let std = (values.iter().map(|v| (v - mean) * (v - mean)).sum::<f32>() / values.len() as f32).sqrt();
    assert!(mean.abs() < 0.02 && (std - 0.5).abs() < 0.02, "mean {mean}, std {std}");
    assert_eq!(bits(&values), bits(&rows(&Weight::synthetic(&Cpu::new(3, None), Precision::Bf16, 100, 300, 18, 0.5))));
}

#[test]
fn no_rows_bias_and_values_that_are_not_finite() {
    let cpu = Cpu::new(2, None);
    for precision in PRECISIONS {
        let w = weight(&cpu, precision, [66, 130], 19);
        linear(&cpu, &[], &w, &mut [], Epilogue::Store);
        linear_backward_x(&cpu, &[], &w, &mut [], Epilogue::Add);
        gather_rows(&cpu, &w, &[], &mut []);
        // Zero rows stay zero, a bad value is seen in its own row and nowhere else.
        for bad in [f32::NAN, f32::INFINITY] {
            let mut x = vec![0.0; 3 * 130];
            x[130 + 40] = bad;
            x[2 * 130 + 129] = 3e38;
            let y = forward(&cpu, &x, &w);
            assert!(y[..66].iter().all(|v| *v == 0.0), "{precision:?}");
            assert!(y[66..132].iter().all(|v| !v.is_finite()), "{precision:?}: {bad} is hidden");
            assert!(y[132..].iter().all(|v| v.is_finite()), "{precision:?}");
            let mut dy = vec![1.0; 2 * 66];
            dy[65] = bad;
            let dx = backward(&cpu, &dy, &w);
            assert!(dx[..130].iter().all(|v| !v.is_finite()) && dx[130..].iter().all(|v| v.is_finite()), "{precision:?}");
        }
    }
    let mut y = Random(20).values(5 * 7);
    let (before, bias) = (y.clone(), Random(21).values(7));
    add_bias(&cpu, &mut y, &bias);
    assert!(y.iter().enumerate().all(|(i, y)| *y == before[i] + bias[i % 7]));
}

#[test]
#[should_panic(expected = "output has as many rows")]
fn a_wrong_shape_is_refused() {
    let cpu = Cpu::new(1, None);
    linear(&cpu, &[0.0; 8], &weight(&cpu, Precision::F32, [3, 4], 1), &mut [0.0; 5], Epilogue::Store);
}
