//! Writes a checkpoint as GGUF: `gguf BASE TOKENIZER bf16|q8_0 OUT`, the first two folders. For `golden/gguf/check.py`.
//! Does not know what is done with it.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use tiger_formats::{Checkpoint, GgufFile, GgufType, Merged};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [base, tokenizer, kind, out] = args.as_slice() else { return Err("usage: gguf BASE TOKENIZER bf16|q8_0 OUT".into()) };
    let checkpoint = Checkpoint::open(Path::new(base))?;
    let kind = if kind == "q8_0" { GgufType::Q8_0 } else { GgufType::Bf16 };
    let merged = Merged::new(&checkpoint, None);
    GgufFile::new(&merged, Path::new(tokenizer), "golden", kind)?.write(BufWriter::new(File::create(out)?))?;
    Ok(())
}
