//! Reads the feed's stream into a file.

use std::fs::File;
use std::io::BufWriter;
use std::path::PathBuf;

use anyhow::Context as _;
use caregate_host::{log, shutdown};
use caregate_tests::feed::{Address, Credentials, follow};
use clap::Parser;

/// Follows a clinician-feed's WebSocket stream, resuming after disconnects, and writes each message as one JSON line.
///
/// Each line is the message with the reader's clock in front: {"arrived_ms":…,"type":"reading",…}. Stops on SIGTERM or
/// SIGINT with status 0. Status 1: wrong password, a message that is not as documented, or the file can't be written.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Where the feed listens: `http://HOST[:PORT]`.
    #[arg(long)]
    url: Address,
    /// Who logs in.
    #[arg(long)]
    user: String,
    /// File with the password; a line end after it is ignored.
    #[arg(long, value_name = "FILE")]
    password_file: PathBuf,
    /// Written: one JSON line per message.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// First number to read, where the feed still holds it; otherwise the stream begins with the next reading.
    #[arg(long, value_name = "N")]
    from: Option<u64>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    log::init(log::LogFormat::Text)?;
    tokio::runtime::Runtime::new()?.block_on(read(arguments))
}

async fn read(arguments: Arguments) -> anyhow::Result<()> {
    let Arguments { url, user, password_file, out, from } = arguments;
    let password = std::fs::read_to_string(&password_file)
        .with_context(|| format!("password file {}", password_file.display()))?;
    let credentials = Credentials { user, password: password.trim_end_matches(['\r', '\n']).to_owned() };
    let file = File::create(&out).with_context(|| format!("output {}", out.display()))?;
    let stop = shutdown::token()?;
    let messages = follow(&url, &credentials, from, &mut BufWriter::new(file), &stop).await?;
    tracing::info!(messages, "done");
    Ok(())
}
