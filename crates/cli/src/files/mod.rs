//! `tiger import` and `tiger export`: models as files that other programs read and write.
//! Does not know the formats; `tiger_formats` does.

mod base;

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use tiger_client::{Client, NewAdapter};
use tiger_formats::peft::{CONFIG_FILE, WEIGHTS_FILE};
use tiger_formats::{Adapter, Checkpoint, GgufFile, GgufType, Merged};
use tiger_wire::ModelInfo;

use crate::args::Global;
use crate::failure::{CONFLICT, Failure};
use crate::{home, output};

/// Room for pieces of tensors, bytes.
const BUFFER_BYTES: usize = 1 << 20;

#[derive(Debug, clap::Args)]
pub struct Import {
    /// Folder with adapter_config.json and adapter_model.safetensors (a GGUF file is a base: `tiger pull FILE.gguf`)
    #[arg(value_parser = adapter_folder)]
    pub folder: PathBuf,
    /// Name of the new model
    #[arg(long)]
    pub name: String,
    /// Base model that the adapter was trained on, id or name
    #[arg(long, value_name = "BASE")]
    pub parent: String,
    #[arg(long, default_value = "")]
    pub description: String,
}

const EXPORT_HELP: &str = "\
peft  the adapter alone, for PEFT and everything that reads its files\n\
hf    base and adapter in one Hugging Face folder, in the base's own type\n\
gguf  base and adapter in one file for llama.cpp, with tokenizer and chat template\n\n\
hf and gguf read the base's checkpoint on this machine: of the data directory, or what is given with --base.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXPORT_HELP)]
pub struct Export {
    /// Private model, id or name; with hf and gguf a base too
    pub model: String,
    /// What to write
    #[arg(long, value_enum, default_value_t = Format::Peft)]
    pub format: Format,
    /// Where: a folder for peft and hf, made if it is not there; a file for gguf
    #[arg(long, value_name = "PATH")]
    pub to: PathBuf,
    /// Type of a GGUF file's matrices
    #[arg(long = "type", value_enum, default_value_t = TypeArg::Bf16, value_name = "TYPE")]
    pub kind: TypeArg,
    /// Revision to write [default: the newest]
    #[arg(long, value_name = "N")]
    pub revision: Option<u64>,
    /// Checkpoint folder or GGUF file of the base, where it is not in the data directory
    #[arg(long, value_name = "PATH")]
    pub base: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Peft,
    Hf,
    Gguf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TypeArg {
    Bf16,
    #[value(name = "q8_0")]
    Q8_0,
}

/// Refuses what many would try to import before anything else is asked for.
fn adapter_folder(text: &str) -> Result<PathBuf, String> {
    match crate::gguf::is_named(Path::new(text)) {
        true => Err(format!("a GGUF file is a whole model, not an adapter: `tiger pull {text}` makes it a base")),
        false => Ok(PathBuf::from(text)),
    }
}

/// Runs `tiger import`.
pub async fn import(global: &Global, args: Import) -> Result<(), Failure> {
    let client = home::client(global)?;
    let read = |name: &str| {
        let path = args.folder.join(name);
        std::fs::read(&path).map_err(|e| Failure::because(path.display(), e))
    };
    let (config, weights) = (read(CONFIG_FILE)?, read(WEIGHTS_FILE)?);
    let adapter = NewAdapter { name: args.name, description: args.description, parent_model: args.parent, config, weights };
    let info = client.import_adapter(&adapter).await?;
    if global.json {
        return output::json(&info);
    }
    println!("{}", info.id);
    Ok(())
}

/// Runs `tiger export`.
pub async fn export(global: &Global, args: Export) -> Result<(), Failure> {
    let client = home::client(global)?;
    let info = client.model(&args.model).await?;
    let revision = args.revision.or(info.revision);
    let files = match info.read_only {
        true if args.format == Format::Peft => {
            return Err(Failure::new(format!("{} is a base model and has no adapter; --format hf or gguf writes its weights", info.name)));
        }
        true => None,
        false => Some(adapter_files(&client, &info, revision).await?),
    };
    let (global_of, named) = (global.clone(), info.clone());
    let to = args.to.clone();
    let written = tokio::task::spawn_blocking(move || match (args.format, files) {
        (Format::Peft, Some((config, weights))) => write_peft(&args.to, &config, &weights),
        (_, files) => write_merged(&global_of, &args, &named, files),
    });
    written.await.map_err(|e| Failure::because("the export failed", e))??;
    let shown = to.display().to_string();
    if global.json {
        return output::json(&serde_json::json!({"model": info.id, "revision": revision, "path": shown}));
    }
    println!("{shown}");
    Ok(())
}

type AdapterFiles = (Vec<u8>, Vec<u8>);

/// Both files of one revision, though a training may end in between.
async fn adapter_files(client: &Client, info: &ModelInfo, revision: Option<u64>) -> Result<AdapterFiles, Failure> {
    let config = client.adapter_file(&info.id, CONFIG_FILE, revision).await?;
    let weights = client.adapter_file(&info.id, WEIGHTS_FILE, revision).await?;
    Ok((config.to_vec(), weights.to_vec()))
}

fn write_peft(to: &Path, config: &[u8], weights: &[u8]) -> Result<(), Failure> {
    let files = [(to.join(WEIGHTS_FILE), weights), (to.join(CONFIG_FILE), config)];
    std::fs::create_dir_all(to).map_err(|e| Failure::because(to.display(), e))?;
    files.iter().try_for_each(|(path, _)| not_there(path))?;
    files.iter().try_for_each(|(path, bytes)| write_whole(path, |out| io::Write::write_all(out, bytes)))
}

fn write_merged(global: &Global, args: &Export, info: &ModelInfo, files: Option<AdapterFiles>) -> Result<(), Failure> {
    let folder = base::folder(global, args.base.as_deref(), &info.base_model)?;
    let unreadable = |e: tiger_formats::FormatError| Failure::because(format!("the base {} cannot be used", folder.display()), e);
    let checkpoint = Checkpoint::open(&folder).map_err(unreadable)?;
    let read = |(config, weights): AdapterFiles| Adapter::from_bytes(&config, &weights, checkpoint.architecture());
    let adapter =
        files.map(read).transpose().map_err(|e| Failure::because(format!("{} does not fit {}", info.name, folder.display()), e))?;
    let merged = Merged::new(&checkpoint, adapter.as_ref());
    if args.format == Format::Gguf {
        not_there(&args.to)?;
        let kind = if args.kind == TypeArg::Q8_0 { GgufType::Q8_0 } else { GgufType::Bf16 };
        let file = GgufFile::new(&merged, &folder, &info.name, kind).map_err(unreadable)?;
        return write_whole(&args.to, |out| file.write(out));
    }
    let weights = args.to.join("model.safetensors");
    std::fs::create_dir_all(&args.to).map_err(|e| Failure::because(args.to.display(), e))?;
    not_there(&weights)?;
    base::copy_small_files(&folder, &args.to)?;
    write_whole(&weights, |out| merged.write_safetensors(out))
}

fn not_there(path: &Path) -> Result<(), Failure> {
    match path.exists() {
        true => {
            Err(Failure { code: CONFLICT, ..Failure::new(format!("{} is already there; remove it or give another --to", path.display())) })
        }
        false => Ok(()),
    }
}

/// Under another name first, so that a file with the right name is whole.
fn write_whole(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<(), Failure> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let written = || {
        let mut out = BufWriter::with_capacity(BUFFER_BYTES, File::create(&part)?);
        write(&mut out)?;
        out.into_inner()?.sync_all()?;
        std::fs::rename(&part, path)
    };
    written().map_err(|e| {
        let _ = std::fs::remove_file(&part);
        Failure::because(path.display(), e)
    })
}
