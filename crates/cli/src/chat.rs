//! `tiger run`: one answer, or a chat in the terminal. Text on standard output as it comes, status on standard error.

use std::io::{IsTerminal, Write};

use futures::StreamExt;
use tiger_client::Client;
use tiger_wire::{Chunk, GenerateRequest, Message, Role, StopChunk};

use crate::args::{Global, Run};
use crate::failure::Failure;
use crate::{home, output};

const HELP: &str = "/reset forgets the conversation, /system TEXT sets the system prompt, /exit (or Ctrl-D) ends";

/// Asks once or chats.
pub async fn run(global: &Global, args: Run) -> Result<(), Failure> {
    let client = home::client(global)?;
    let mut chat = Chat { messages: Vec::new(), request: request(&args), system: args.system };
    if let Some(prompt) = args.prompt {
        return chat.once(&client, prompt, global.json).await;
    }
    if !std::io::stdin().is_terminal() {
        let prompt = tokio::task::spawn_blocking(|| std::io::read_to_string(std::io::stdin()))
            .await
            .map_err(|e| Failure::because("standard input", e))?
            .map_err(|e| Failure::because("standard input", e))?;
        return chat.once(&client, prompt.trim_end().to_owned(), global.json).await;
    }
    eprintln!("{HELP}");
    loop {
        eprint!("> ");
        let mut line = String::new();
        let read = tokio::task::spawn_blocking(move || std::io::stdin().read_line(&mut line).map(|n| (n, line)))
            .await
            .map_err(|e| Failure::because("standard input", e))?;
        let (read, line) = read.map_err(|e| Failure::because("standard input", e))?;
        let line = line.trim();
        match (read, line) {
            (0, _) | (_, "/exit") => return Ok(()),
            (_, "") => {}
            (_, "/reset") => chat.messages.clear(),
            (_, "/help") => eprintln!("{HELP}"),
            (_, command) if command.starts_with("/system") => {
                chat.system = Some(command["/system".len()..].trim().to_owned()).filter(|text| !text.is_empty());
                chat.messages.clear();
            }
            (_, text) => {
                if let Err(failure) = chat.turn(&client, text.to_owned(), &mut std::io::stdout()).await {
                    failure.print();
                    chat.messages.pop();
                }
            }
        }
    }
}

fn request(args: &Run) -> GenerateRequest {
    GenerateRequest {
        model: args.model.clone(),
        temperature: args.temperature,
        top_p: args.top_p,
        max_tokens: args.max_tokens,
        seed: args.seed,
        ..Default::default()
    }
}

struct Chat {
    messages: Vec<Message>,
    request: GenerateRequest,
    system: Option<String>,
}

impl Chat {
    async fn once(&mut self, client: &Client, prompt: String, json: bool) -> Result<(), Failure> {
        if json {
            self.messages.push(Message::new(Role::User, prompt));
            return output::json(&client.generate(&self.next()).await?);
        }
        self.turn(client, prompt, &mut std::io::stdout()).await
    }

    fn next(&self) -> GenerateRequest {
        let system = self.system.iter().map(|text| Message::new(Role::System, text.clone()));
        GenerateRequest { messages: system.chain(self.messages.iter().cloned()).collect(), ..self.request.clone() }
    }

    async fn turn(&mut self, client: &Client, prompt: String, out: &mut impl Write) -> Result<(), Failure> {
        self.messages.push(Message::new(Role::User, prompt));
        let mut chunks = client.generate_stream(&self.next()).await?;
        let mut answer = String::new();
        let broken = |e: std::io::Error| Failure::because("standard output", e);
        while let Some(chunk) = chunks.next().await {
            match chunk? {
                Chunk::Info(info) => eprintln!("{}", info.message),
                Chunk::Delta(delta) => {
                    if let Some(reasoning) = &delta.reasoning {
                        eprint!("{reasoning}");
                    }
                    if let Some(text) = &delta.delta {
                        answer.push_str(text);
                        write!(out, "{text}").and_then(|()| out.flush()).map_err(broken)?;
                    }
                }
                Chunk::Progress(_) => {}
                Chunk::Stop(stop) => {
                    writeln!(out).map_err(broken)?;
                    if let StopChunk::Generate(stop) = *stop
                        && stop.stop_reason == tiger_wire::StopReason::MaxTokens
                    {
                        eprintln!("(cut at the token limit)");
                    }
                    self.messages.push(Message::new(Role::Assistant, answer));
                    return Ok(());
                }
                Chunk::Error(error) => return Err(Failure::new(error.error.message)),
            }
        }
        Err(Failure::new("the connection ended before the answer did"))
    }
}
