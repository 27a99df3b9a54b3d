//! `tiger models`: list, show, create, remove, roll back, over the API.

use tiger_client::Client;
use tiger_wire::{CreateModelRequest, ModelInfo, ModelStatus, RevisionInfo};

use crate::args::{Global, Models};
use crate::failure::Failure;
use crate::table::Table;
use crate::{home, output};

/// Runs one of the model commands.
pub async fn run(global: &Global, command: Models) -> Result<(), Failure> {
    let client = home::client(global)?;
    match command {
        Models::Ls => {
            let models = client.models().await?;
            if global.json {
                return output::json(&models);
            }
            print!("{}", list(&models));
            Ok(())
        }
        Models::Show { model, revisions } => {
            let info = client.model(&model).await?;
            let history = if revisions { Some(client.revisions(&info.id).await?) } else { None };
            if global.json {
                return match history {
                    Some(history) => output::json(&serde_json::json!({"model": info, "revisions": history})),
                    None => output::json(&info),
                };
            }
            show(&info)?;
            if let Some(history) = history {
                print!("\n{}", revisions_table(&history));
            }
            Ok(())
        }
        Models::Revisions { model, limit, before } => list_revisions(global, &client, &model, (limit, before)).await,
        Models::Create { name, parent, description, rank, alpha, dropout, learning_rate, seed } => {
            let request = CreateModelRequest {
                name,
                description,
                parent_model: parent,
                rank,
                alpha,
                dropout,
                learning_rate,
                seed,
                ..Default::default()
            };
            let info = client.create(&request).await?;
            if global.json {
                return output::json(&info);
            }
            println!("{}", info.id);
            Ok(())
        }
        Models::Rm { model } => {
            let gone = client.delete(&model).await?;
            if global.json {
                return output::json(&gone);
            }
            eprintln!("{}: {}", gone.id, gone.message);
            Ok(())
        }
        Models::Rollback { model, revision } => {
            let info = client.rollback(&model, revision).await?;
            if global.json {
                return output::json(&info);
            }
            eprintln!("{} has revision {revision}'s weights again, as revision {}", info.id, info.revision.unwrap_or(0));
            Ok(())
        }
    }
}

async fn list_revisions(global: &Global, client: &Client, model: &str, page: (Option<u32>, Option<u64>)) -> Result<(), Failure> {
    let history = match page {
        (None, None) => client.revisions(model).await?,
        (limit, before) => client.revisions_page(model, limit, before).await?,
    };
    if global.json {
        return output::json(&history);
    }
    print!("{}", revisions_table(&history));
    Ok(())
}

fn list(models: &[ModelInfo]) -> Table {
    let mut table = Table::new(&["ID", "NAME", "PARENT", "REVISION", "STATUS", "PARAMETERS", "SIZE"]);
    for model in models {
        let parameters = model.parameters.map_or_else(String::new, |p| format!("{:.1} M", p as f64 / 1e6));
        table.row([
            model.id.clone(),
            model.name.clone(),
            model.parent_model.clone().unwrap_or_default(),
            model.revision.map_or_else(String::new, |r| r.to_string()),
            status(model.status).to_owned(),
            parameters,
            model.size_bytes.map_or_else(String::new, output::bytes),
        ]);
    }
    table
}

fn status(status: ModelStatus) -> &'static str {
    match status {
        ModelStatus::Ready => "ready",
        ModelStatus::Loading => "loading",
        ModelStatus::NotDownloaded => "not downloaded",
        ModelStatus::Training => "training",
    }
}

fn show(info: &ModelInfo) -> Result<(), Failure> {
    let value = serde_json::to_value(info).map_err(|e| Failure::because("cannot show the model", e))?;
    for (key, value) in value.as_object().into_iter().flatten() {
        match value {
            serde_json::Value::String(text) => println!("{key:<16} {text}"),
            other => println!("{key:<16} {other}"),
        }
    }
    Ok(())
}

fn revisions_table(history: &[RevisionInfo]) -> Table {
    let mut table = Table::new(&["REVISION", "TIME", "REWARD", "LOSS", "KL TO PARENT", "ENTROPY", "TOKENS", "NOTES"]);
    for revision in history {
        let metrics = revision.metrics.as_ref();
        let number = |path: &str| metrics.and_then(|m| m.pointer(path)).and_then(serde_json::Value::as_f64);
        let shown = |path: &str| number(path).map_or_else(String::new, |x| format!("{x:.4}"));
        table.row([
            revision.revision.to_string(),
            output::time(revision.created),
            shown("/reward/mean"),
            shown("/loss"),
            shown("/kl_parent"),
            shown("/entropy"),
            number("/usage/trained_tokens").map_or_else(String::new, |tokens| format!("{tokens}")),
            notes(revision),
        ]);
    }
    table
}

/// What is to be known of a revision besides numbers: where its weights come from, and the names of its warnings.
fn notes(revision: &RevisionInfo) -> String {
    let back = revision.rolled_back_to.map(|to| format!("rolled back to {to}"));
    let gone = (!revision.available).then(|| "weights no longer kept".to_owned());
    let warnings = revision.metrics.as_ref().and_then(|m| m["warnings"].as_array()).into_iter().flatten();
    let names = warnings.filter_map(|w| Some(w.as_str()?.split(':').next()?.to_owned()));
    back.into_iter().chain(gone).chain(names).collect::<Vec<_>>().join(", ")
}
