//! The door from outside: real sockets, the real engine on a tiny model. The files mirror the URL tree.

mod account;
mod adapter;
mod chats;
mod contract;
mod evaluate;
mod generate;
mod harness;
mod hostile;
mod load;
mod models;
mod openai;
mod openai_text;
mod openai_tools;
mod openapi;
mod packed;
mod page;
mod pulls;
mod recording;
mod security;
mod stop;
mod train;
