//! `tiger accounts`: who may sign in, and a new password for who forgot it; straight in the data directory, with the server up or down.

use std::io::{IsTerminal, stdin};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use serde_json::json;
use tiger_store::Store;

use crate::args::{Accounts, Global};
use crate::failure::{Failure, NOT_FOUND};
use crate::table::Table;
use crate::{home, output};

/// Runs one of the account commands.
pub async fn run(global: &Global, command: Accounts) -> Result<(), Failure> {
    let data_dir = home::data_dir(global)?;
    let store = Store::open_shared(&data_dir).await?;
    let ended = with_store(&store, global, command).await;
    store.close().await;
    ended
}

async fn with_store(store: &Store, global: &Global, command: Accounts) -> Result<(), Failure> {
    let accounts = store.accounts().await?;
    match command {
        Accounts::Ls => {
            if global.json {
                let row = |a: &tiger_store::AccountRow| json!({"id": a.id.0, "name": a.name, "owner": a.owner, "has_password": a.has_password, "created": a.created});
                return output::json(&accounts.iter().map(row).collect::<Vec<_>>());
            }
            let mut table = Table::new(&["ID", "NAME", "OWNER", "PASSWORD", "CREATED"]);
            let yes = |it: bool| if it { "yes" } else { "no" }.to_owned();
            for account in accounts {
                let created = output::time(account.created);
                table.row([account.id.0.to_string(), account.name, yes(account.owner), yes(account.has_password), created]);
            }
            print!("{table}");
            Ok(())
        }
        Accounts::Owner { name } => {
            // Refused before anybody types a password.
            if store.has_owner().await? {
                return Err(tiger_store::Error::OwnerExists.into());
            }
            let password = password(&name).await?;
            let made = store.create_owner(&name, Some(&password)).await?;
            eprintln!("{} owns this server; sign in at its address, or make API keys with `tiger keys create NAME`", made.name);
            if global.json { output::json(&json!({"id": made.id.0, "name": made.name})) } else { Ok(()) }
        }
        Accounts::Password { name } => {
            let Some(account) = accounts.into_iter().find(|account| account.name.eq_ignore_ascii_case(&name)) else {
                return Err(Failure { message: format!("there is no account {name:?}; `tiger accounts ls` lists them"), code: NOT_FOUND });
            };
            let password = password(&account.name).await?;
            store.set_password(account.id, &password).await?;
            eprintln!("{} has a new password; every session of the account has ended, its API keys go on working", account.name);
            if global.json { output::json(&json!({"id": account.id.0, "name": account.name})) } else { Ok(()) }
        }
    }
}

/// One line of standard input; a terminal is asked and does not show it.
async fn password(name: &str) -> Result<String, Failure> {
    let hidden = if stdin().is_terminal() {
        eprint!("New password for {name}: ");
        Some(Hidden::begin()?)
    } else {
        None
    };
    let read = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        stdin().read_line(&mut line).map(|_| line)
    });
    let line = read.await.map_err(|e| Failure::because("cannot read the password", e))?;
    if hidden.is_some() {
        eprintln!();
    }
    let line = line.map_err(|e| Failure::because("cannot read the password", e))?;
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}

/// A terminal that does not show what is typed, until this is dropped, by Ctrl-C too.
struct Hidden(Termios);

impl Hidden {
    fn begin() -> Result<Hidden, Failure> {
        let failed = |e| Failure::because("cannot hide what is typed; give the password by a pipe", e);
        let shown = tcgetattr(stdin()).map_err(failed)?;
        let mut hidden = shown.clone();
        hidden.local_modes -= LocalModes::ECHO;
        tcsetattr(stdin(), OptionalActions::Flush, &hidden).map_err(failed)?;
        Ok(Hidden(shown))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        let _ = tcsetattr(stdin(), OptionalActions::Now, &self.0);
    }
}
