//! Writes a tiny random checkpoint that talks without end: `tiny DIR CONTEXT`. For journeys through the web page that need long answers.
//! Does not know what is tested with it.

use std::path::Path;

use tiger_testkit::{Tiny, tiny_checkpoint};

fn main() -> std::io::Result<()> {
    let usage = || std::io::Error::other("usage: tiny DIR CONTEXT");
    let mut args = std::env::args().skip(1);
    let dir = args.next().ok_or_else(usage)?;
    let context = args.next().and_then(|text| text.parse().ok()).ok_or_else(usage)?;
    tiny_checkpoint(Path::new(&dir), &Tiny { context, talkative: true, ..Tiny::default() })
}
