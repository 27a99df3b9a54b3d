//! `tiger serve`: puts store, engine and server together on one socket, until a signal says stop.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use tiger_server::{App, BaseFolder, Config, Puller, serve};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::{Global, LogFormat, Serve};
use crate::failure::{CONFLICT, Failure};
use crate::pull::Hub;
use crate::{builtin, gguf, home};

/// Serves until SIGTERM or Ctrl-C, then drains.
pub async fn run(global: &Global, args: Serve) -> Result<(), Failure> {
    log(args.log_format);
    let data_dir = home::data_dir(global)?;
    let mut config = Config::new(&data_dir);
    config.builtin = Some(builtin::folder(&data_dir)?);
    config.model_dirs = args.model_dir.iter().map(|dir| operator_folder(dir, &data_dir)).collect::<Result<_, _>>()?;
    config.default_model = args.default_model;
    config.preload = args.preload;
    config.precision = args.precision.into();
    config.kv_type = args.kv_cache.map(Into::into);
    config.engine = home::engine_config(args.threads, args.memory, args.kv_memory)?;
    config.limits.requests_per_minute = args.requests_per_minute;
    if args.no_speculation {
        config.engine.speculation = tiger_engine::Speculation::Off;
    }
    config.secure_cookies = args.secure_cookies;
    config.pull = Some(Puller(Arc::new(Hub { models: data_dir.join("models") })));
    let listener = TcpListener::bind((args.host, args.port)).await.map_err(|e| Failure {
        code: CONFLICT,
        ..Failure::because(
            format!("cannot listen on {}:{} (is another server running? --port 0 picks a free port)", args.host, args.port),
            e,
        )
    })?;
    let address = listener.local_addr().map_err(|e| Failure::because("cannot read the listening address", e))?;
    let app = App::open(config).await?;
    // Before anything is said of it; `serve` looks again.
    app.check_address(address).await?;
    let hints = hints(&app, address, &data_dir).await?;
    // Before the line that scripts wait for: once it is printed, a signal is always answered by a drain.
    let stop = stop_signal()?;
    eprintln!("listening on http://{address}");
    for hint in hints {
        eprintln!("{hint}");
    }
    serve(listener, app, stop).await?;
    Ok(())
}

/// What a first start should be told.
async fn hints(app: &App, address: SocketAddr, data_dir: &Path) -> Result<Vec<String>, Failure> {
    let mut hints = Vec::new();
    let mut keys = 0;
    for account in app.store().accounts().await? {
        keys += app.store().keys(account.id).await?.len();
    }
    if keys == 0 {
        hints.push(format!("no API key yet: make one with `tiger keys create NAME --data-dir {}`", data_dir.display()));
    }
    let url = url(address);
    hints.push(match app.setup_token() {
        // Behind `#` it is neither sent nor logged by anybody.
        Some(token) => format!("Open {url}/welcome#token={token} to create the owner's account (the link works once)"),
        None => format!("Playground: {url}/"),
    });
    Ok(hints)
}

/// How a browser on this machine reaches it.
fn url(address: SocketAddr) -> String {
    let host = match address.ip() {
        ip if ip.is_loopback() || ip.is_unspecified() => "localhost".to_owned(),
        std::net::IpAddr::V6(ip) => format!("[{ip}]"),
        ip => ip.to_string(),
    };
    format!("http://{host}:{}", address.port())
}

/// A folder as it is; of a GGUF file, or of a folder with nothing else, a folder is made in the data directory.
fn operator_folder(path: &Path, data_dir: &Path) -> Result<BaseFolder, Failure> {
    let path = path.canonicalize().map_err(|e| Failure::because(format!("--model-dir {}", path.display()), e))?;
    let file = if path.is_file() { Some(path.clone()) } else { gguf::only_file(&path)? };
    let name = if path.is_file() { gguf::name(&path) } else { path.file_name().unwrap_or_default().to_string_lossy().into_owned() };
    let dir = match file {
        Some(file) => gguf::beside(&file, data_dir)?,
        None => path,
    };
    Ok(BaseFolder { name, description: String::new(), dir })
}

fn stop_signal() -> Result<impl Future<Output = ()> + Send + 'static, Failure> {
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| Failure::because("cannot wait for SIGTERM", e))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|e| Failure::because("cannot wait for SIGINT", e))?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Structured logs on standard error; never prompts or keys, which nothing below hands to the log.
fn log(format: LogFormat) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("TIGER_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn,tiger_server=info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
}
