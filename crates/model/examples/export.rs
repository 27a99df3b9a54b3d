//! What an import and an export make of a PEFT adapter: `export BASE ADAPTER OUT`, folders all. For `golden/peft/make.py`.
//! Does not know what is done with it.

use std::path::Path;

use tiger_formats::Checkpoint;
use tiger_formats::peft::{self, CONFIG_FILE, WEIGHTS_FILE};
use tiger_model::Adapter;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [base, adapter, out] = args.as_slice() else { return Err("usage: export BASE ADAPTER OUT".into()) };
    let (base, adapter, out) = (Path::new(base), Path::new(adapter), Path::new(out));
    let checkpoint = Checkpoint::open(base)?;
    let (config, weights) = (std::fs::read(adapter.join(CONFIG_FILE))?, std::fs::read(adapter.join(WEIGHTS_FILE))?);
    let file = peft::Adapter::from_bytes(&config, &weights, checkpoint.architecture())?;
    let file = Adapter::from_peft(checkpoint.architecture(), &file)?.to_peft();
    let name = base.file_name().unwrap_or_default().to_string_lossy();
    std::fs::create_dir_all(out)?;
    std::fs::write(out.join(CONFIG_FILE), file.config_bytes(&name))?;
    std::fs::write(out.join(WEIGHTS_FILE), file.weights_bytes()?)?;
    Ok(())
}
