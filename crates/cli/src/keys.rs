//! `tiger keys`: API keys straight in the data directory, with the server up or down.

use serde_json::json;
use tiger_store::Store;

use crate::args::{Global, Keys};
use crate::failure::{Failure, NOT_FOUND};
use crate::table::Table;
use crate::{home, output};

/// Runs one of the key commands.
pub async fn run(global: &Global, command: Keys) -> Result<(), Failure> {
    let data_dir = home::data_dir(global)?;
    let store = Store::open_shared(&data_dir).await?;
    let ended = with_store(&store, global, command).await;
    store.close().await;
    ended
}

async fn with_store(store: &Store, global: &Global, command: Keys) -> Result<(), Failure> {
    let owner = store.ensure_owner().await?;
    match command {
        Keys::Create { name } => {
            let key = store.create_key(owner.id, &name).await?;
            if global.json {
                return output::json(&json!({"id": key.row.id.0, "name": key.row.name, "prefix": key.row.prefix, "key": key.secret}));
            }
            println!("{}", key.secret);
            eprintln!("This is the only time the key is shown. Keep it: export TIGER_API_KEY=…");
            Ok(())
        }
        Keys::Ls => {
            let keys = store.keys(owner.id).await?;
            if global.json {
                let rows: Vec<_> = keys
                    .iter()
                    .map(|k| json!({"id": k.id.0, "name": k.name, "prefix": k.prefix, "created": k.created, "last_used": k.last_used, "revoked": k.revoked}))
                    .collect();
                return output::json(&rows);
            }
            let mut table = Table::new(&["ID", "NAME", "PREFIX", "CREATED", "LAST USED", "STATE"]);
            for key in keys {
                let used = key.last_used.map_or_else(|| "never".to_owned(), output::time);
                let state = if key.revoked.is_some() { "revoked" } else { "active" };
                table.row([key.id.0.to_string(), key.name, key.prefix, output::time(key.created), used, state.to_owned()]);
            }
            print!("{table}");
            Ok(())
        }
        Keys::Revoke { id } => {
            let known = store.keys(owner.id).await?.into_iter().find(|key| key.id.0 == id);
            let Some(key) = known else {
                return Err(Failure { message: format!("there is no key {id}; `tiger keys ls` lists them"), code: NOT_FOUND });
            };
            store.revoke_key(owner.id, key.id).await?;
            eprintln!("revoked {} ({})", key.name, key.prefix);
            if global.json { output::json(&json!({"id": id, "revoked": true})) } else { Ok(()) }
        }
    }
}
