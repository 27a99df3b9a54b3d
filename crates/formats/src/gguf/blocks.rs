//! Types of tensors in GGUF files, and their values as f32. Blocks are laid out as ggml's (`ggml-common.h`): a few values share a scale.
//! Does not know tensors' names or shapes.

use half::{bf16, f16};

/// Values of a block of the types with 4 to 8 bits that are no K-quants.
const SMALL: usize = 32;
/// Values of a block of a K-quant.
const LARGE: usize = 256;
/// Bytes of the scales and minimums of Q4_K and Q5_K: eight of each, six bits long.
const K_SCALES: usize = 12;

/// A type of tensor that this program reads. Letters as in ggml's names: d a scale in half precision, m a minimum, q an integer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TensorType {
    /// Single precision.
    F32,
    /// Half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// 32 values: d, q of 4 bits. d · (q − 8).
    Q4_0,
    /// 32 values: d, m, q of 4 bits. d · q + m.
    Q4_1,
    /// 32 values: d, the fifth bits, q of 4 bits. d · (q − 16).
    Q5_0,
    /// 32 values: d, m, the fifth bits, q of 4 bits. d · q + m.
    Q5_1,
    /// 32 values: d, q of 8 bits. d · q.
    Q8_0,
    /// 256 values in eight groups: d, the minimums' own scale, scales and minimums of 6 bits, q of 4 bits.
    Q4K,
    /// The same with fifth bits before the others.
    Q5K,
    /// 256 values in sixteen groups: q of 4 bits, 2 more bits each, scales of 8 bits, d. d · scale · (q − 32).
    Q6K,
}

/// A type's number in the file, name, values of a block and bytes of a block.
type Facts = (u32, &'static str, usize, usize);

/// Names of the types that are not read, for refusals: number and name.
const OTHERS: [(u32, &str); 20] = [
    (9, "Q8_1"),
    (10, "Q2_K"),
    (11, "Q3_K"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
];

impl TensorType {
    /// Every type.
    pub const ALL: [TensorType; 11] =
        [Self::F32, Self::F16, Self::Bf16, Self::Q4_0, Self::Q4_1, Self::Q5_0, Self::Q5_1, Self::Q8_0, Self::Q4K, Self::Q5K, Self::Q6K];

    fn facts(self) -> Facts {
        match self {
            Self::F32 => (0, "F32", 1, 4),
            Self::F16 => (1, "F16", 1, 2),
            Self::Bf16 => (30, "BF16", 1, 2),
            Self::Q4_0 => (2, "Q4_0", SMALL, 2 + SMALL / 2),
            Self::Q4_1 => (3, "Q4_1", SMALL, 4 + SMALL / 2),
            Self::Q5_0 => (6, "Q5_0", SMALL, 6 + SMALL / 2),
            Self::Q5_1 => (7, "Q5_1", SMALL, 8 + SMALL / 2),
            Self::Q8_0 => (8, "Q8_0", SMALL, 2 + SMALL),
            Self::Q4K => (12, "Q4_K", LARGE, 4 + K_SCALES + LARGE / 2),
            Self::Q5K => (13, "Q5_K", LARGE, 4 + K_SCALES + LARGE / 8 + LARGE / 2),
            Self::Q6K => (14, "Q6_K", LARGE, LARGE / 2 + LARGE / 4 + LARGE / 16 + 2),
        }
    }

    /// ggml's name.
    pub fn name(self) -> &'static str {
        self.facts().1
    }

    /// Values of a block; a row is a whole number of blocks.
    pub fn block_values(self) -> usize {
        self.facts().2
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        self.facts().3
    }

    /// Whether this type is not one of single values.
    pub fn is_quantised(self) -> bool {
        self.block_values() > 1
    }

    /// The type of this number, or the name of one that is not read.
    pub(super) fn of_number(number: u32) -> Result<TensorType, String> {
        let known = Self::ALL.into_iter().find(|kind| kind.facts().0 == number);
        known.ok_or_else(|| match OTHERS.iter().find(|(other, _)| *other == number) {
            Some((_, name)) => (*name).to_owned(),
            None => format!("type {number}"),
        })
    }

    /// The names of all types, for refusals.
    pub(super) fn supported() -> String {
        Self::ALL.map(Self::name).join(", ")
    }

    /// Appends the values of `bytes`, whole blocks, to `out`. The products and sums are those of ggml's reference, in its order.
    ///
    /// # Panics
    /// When `bytes` are no whole number of blocks.
    pub fn dequantise(self, bytes: &[u8], out: &mut Vec<f32>) {
        assert!(bytes.len().is_multiple_of(self.block_bytes()), "whole blocks");
        for block in bytes.chunks_exact(self.block_bytes()) {
            match self {
                Self::F32 => out.push(f32::from_le_bytes([block[0], block[1], block[2], block[3]])),
                Self::F16 => out.push(half_at(block, 0)),
                Self::Bf16 => out.push(bf16::from_le_bytes([block[0], block[1]]).to_f32()),
                Self::Q8_0 => {
                    let d = half_at(block, 0);
                    out.extend(block[2..].iter().map(|q| f32::from(*q as i8) * d));
                }
                Self::Q4_0 => affine(half_at(block, 0), 8, None, nibbles(&block[2..]), out),
                Self::Q4_1 => affine(half_at(block, 0), 0, Some(half_at(block, 2)), nibbles(&block[4..]), out),
                Self::Q5_0 => affine(half_at(block, 0), 16, None, fives(&block[2..6], &block[6..]), out),
                Self::Q5_1 => affine(half_at(block, 0), 0, Some(half_at(block, 2)), fives(&block[4..8], &block[8..]), out),
                Self::Q4K => k_quant(block, &[0; LARGE / 8], &block[4 + K_SCALES..], out),
                Self::Q5K => k_quant(block, &block[4 + K_SCALES..][..LARGE / 8], &block[4 + K_SCALES + LARGE / 8..], out),
                Self::Q6K => q6_k(block, out),
            }
        }
    }
}

fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// d · (q − shift) + m.
fn affine(d: f32, shift: u8, m: Option<f32>, values: impl Iterator<Item = u8>, out: &mut Vec<f32>) {
    let products = values.map(|q| d * (f32::from(q) - f32::from(shift)));
    match m {
        // Adding nothing would make a zero of −0.
        None => out.extend(products),
        Some(m) => out.extend(products.map(|product| product + m)),
    }
}

/// The low halves of all bytes, then the high ones.
fn nibbles(bytes: &[u8]) -> impl Iterator<Item = u8> {
    bytes.iter().map(|b| b & 15).chain(bytes.iter().map(|b| b >> 4))
}

/// The same with a fifth bit each.
fn fives(high: &[u8], low: &[u8]) -> impl Iterator<Item = u8> {
    nibbles(low).enumerate().map(|(i, q)| q | (((high[i / 8] >> (i % 8)) & 1) << 4))
}

/// Q4_K and Q5_K: each group of 32 has d · scale and dmin · minimum. `high` are the fifth bits: bit g of byte i belongs to value i of group g.
fn k_quant(block: &[u8], high: &[u8], low: &[u8], out: &mut Vec<f32>) {
    let (d, dmin, scales) = (half_at(block, 0), half_at(block, 2), &block[4..4 + K_SCALES]);
    for group in 0..LARGE / 32 {
        let (scale, minimum) = k_scale(scales, group);
        let (scale, minimum) = (d * f32::from(scale), dmin * f32::from(minimum));
        // Two groups share 32 bytes: the first has the low halves.
        let bytes = &low[group / 2 * 32..][..32];
        let value = |(byte, high): (&u8, &u8)| {
            let q = ((byte >> (group % 2 * 4)) & 15) | (((high >> group) & 1) << 4);
            scale * f32::from(q) - minimum
        };
        out.extend(bytes.iter().zip(high).map(value));
    }
}

/// Scale and minimum of a group: of the first four the low six bits of bytes 0..4 and 4..8; of the others four bits of bytes 8..12 and the top
/// two bits of those.
fn k_scale(scales: &[u8], group: usize) -> (u8, u8) {
    if group < 4 {
        return (scales[group] & 63, scales[group + 4] & 63);
    }
    let (low, i) = (scales[group + 4], group - 4);
    ((low & 15) | (scales[i] >> 6 << 4), (low >> 4) | (scales[i + 4] >> 6 << 4))
}

fn q6_k(block: &[u8], out: &mut Vec<f32>) {
    let (low, rest) = block.split_at(LARGE / 2);
    let (high, rest) = rest.split_at(LARGE / 4);
    let (scales, d) = rest.split_at(LARGE / 16);
    let d = half_at(d, 0);
    for (group, scale) in scales.iter().enumerate() {
        let scale = d * f32::from(*scale as i8);
        // Each half of the block has 64 bytes of low bits and 32 of high ones; a quarter of a half has 32 values, two groups.
        let (half, quarter) = (group / 8, group % 8 / 2);
        let within = group % 2 * 16;
        let low = &low[half * 64 + quarter % 2 * 32 + within..][..16];
        let high = &high[half * 32 + within..][..16];
        let value = |(low, high): (&u8, &u8)| {
            let q = ((low >> (quarter / 2 * 4)) & 15) | (((high >> (quarter * 2)) & 3) << 4);
            scale * f32::from(q as i8 - 32)
        };
        out.extend(low.iter().zip(high).map(value));
    }
}
