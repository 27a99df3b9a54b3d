//! The binary `tiger`: parses the command line, runs one command, turns its end into an exit code.
//! Puts the parts together; decides nothing that a crate below could decide.

mod accounts;
mod args;
mod bench;
mod best;
mod builtin;
mod chat;
mod data;
mod doctor;
mod evaluate;
mod failure;
mod files;
mod gguf;
mod home;
mod hub;
mod keys;
mod models;
mod output;
mod pull;
mod quickstart;
mod random;
mod reward;
mod rl;
mod serve;
mod table;
mod train;
mod training;

use std::process::ExitCode;

use clap::Parser;

use args::{Args, Command};
use failure::Failure;

fn main() -> ExitCode {
    let args = Args::parse();
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print();
            ExitCode::from(failure.code)
        }
    }
}

fn run(args: Args) -> Result<(), Failure> {
    match args.command {
        // No runtime beside it: two pools on two cores would measure each other.
        Command::Bench(bench) => return bench::run(&bench, &args.global),
        Command::Completions { shell } => {
            let mut command = <Args as clap::CommandFactory>::command();
            clap_complete::generate(shell, &mut command, "tiger", &mut std::io::stdout());
            return Ok(());
        }
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|e| Failure::new(format!("cannot start the runtime: {e}")))?;
    // `serve` drains and `rl` finishes its step before it stops: they see to Ctrl-C by themselves.
    let sees_signals = matches!(args.command, Command::Serve(_) | Command::Rl(_));
    let ended = runtime.block_on(async {
        tokio::select! {
            ended = command(args) => ended,
            () = interrupted(), if !sees_signals => Err(Failure { code: failure::INTERRUPTED, ..Failure::new("interrupted") }),
        }
    });
    // A thread that waits for standard input must not keep the process.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    ended
}

/// Ctrl-C.
async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn command(args: Args) -> Result<(), Failure> {
    let global = args.global;
    match args.command {
        Command::Serve(serve) => serve::run(&global, serve).await,
        Command::Pull(pull) => pull::run(&global, pull).await,
        Command::Models(models) => models::run(&global, models).await,
        Command::Run(run) => chat::run(&global, run).await,
        Command::Rl(rl) => rl::run(&global, *rl).await,
        Command::Train(train) => train::run(&global, *train).await,
        Command::Evaluate(evaluate) => evaluate::run(&global, *evaluate).await,
        Command::Accounts(accounts) => accounts::run(&global, accounts).await,
        Command::Import(import) => files::import(&global, import).await,
        Command::Export(export) => files::export(&global, export).await,
        Command::Keys(keys) => keys::run(&global, keys).await,
        Command::Quickstart(quickstart) => quickstart::run(&global, quickstart).await,
        Command::Doctor => doctor::run(&global).await,
        Command::Bench(_) | Command::Completions { .. } => Ok(()),
    }
}
