//! `cargo xtask contracts`: compiles the ledger's contract, and says whether the committed artifact is what the source builds.
//!
//! A plain build never comes here: `ledger-node` embeds `ledger-client/contracts/Caregate.json`. The compiler is npm's `solc`,
//! pinned by the lock file beside the source; it is WebAssembly and gives the same bytes everywhere.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value, json};

use crate::build;
use crate::say;

const FOLDER: &str = "ledger-client/contracts";
const SOURCES: &str = "src";
const MAIN: &str = "src/Caregate.sol";
const CONTRACT: &str = "Caregate";
const ARTIFACT: &str = "Caregate.json";

/// Compile the ledger's contract into ledger-client/contracts/Caregate.json
///
/// Needs Node and npm; installs the pinned compiler into the folder's node_modules.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Write nothing, and fail where the committed artifact differs from what the source builds
    #[arg(long)]
    check: bool,
}

/// Compiles, and writes or compares.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let folder = build::npm_packages(FOLDER)?;
    let artifact = compile(&folder)?;
    let path = folder.join(ARTIFACT);
    if arguments.check {
        let committed = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        ensure!(
            committed == artifact,
            "{FOLDER}/{ARTIFACT} is not what the source builds: run `cargo xtask contracts` and commit the result"
        );
        say(&format!("{FOLDER}/{ARTIFACT} is what the source builds"));
        return Ok(());
    }
    fs::write(&path, &artifact).with_context(|| path.display().to_string())?;
    say(&format!("wrote {} ({} bytes)", path.display(), artifact.len()));
    Ok(())
}

/// The artifact's text: what clients and the node need, and what it was made of.
fn compile(folder: &Path) -> Result<String> {
    let sources = sources(folder)?;
    let settings = fs::read_to_string(folder.join("settings.json"))
        .with_context(|| format!("{FOLDER}/settings.json"))?;
    let mut settings: Value = serde_json::from_str(&settings).context("settings.json")?;
    settings["outputSelection"] = json!({ MAIN: { CONTRACT: [
        "abi", "metadata", "storageLayout", "evm.bytecode.object", "evm.deployedBytecode.object",
        "evm.deployedBytecode.immutableReferences",
    ] } });
    let input = json!({ "language": "Solidity", "sources": sources, "settings": settings });
    let output = solc(folder, &input)?;
    if let Some(errors) = output["errors"].as_array().filter(|errors| !errors.is_empty()) {
        let texts: Vec<_> = errors.iter().filter_map(|error| error["formattedMessage"].as_str()).collect();
        // Warnings too: the contract can't be changed once it is deployed.
        bail!("{}", texts.join("\n"));
    }
    let contract = &output["contracts"][MAIN][CONTRACT];
    let metadata = contract["metadata"].as_str().context("the compiler gave no metadata")?;
    let metadata: Value = serde_json::from_str(metadata).context("metadata")?;
    let code = |part: &str| {
        let object = contract["evm"][part]["object"].as_str().filter(|object| !object.is_empty());
        object.map(|object| format!("0x{object}")).with_context(|| format!("the compiler gave no {part}"))
    };
    let hashes: Map<String, Value> = metadata["sources"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, source)| (name.clone(), source["keccak256"].clone()))
        .collect();
    let artifact = json!({
        "contract": CONTRACT,
        "solc": metadata["compiler"]["version"],
        "settings": metadata["settings"],
        "sources": hashes,
        "abi": contract["abi"],
        "bytecode": code("bytecode")?,
        "deployedBytecode": code("deployedBytecode")?,
        "immutableReferences": contract["evm"]["deployedBytecode"]["immutableReferences"],
        "storageLayout": contract["storageLayout"],
    });
    Ok(serde_json::to_string_pretty(&artifact)? + "\n")
}

/// Every file in the folder of sources, by its path: what imports each other, and nothing else.
fn sources(folder: &Path) -> Result<Map<String, Value>> {
    let mut sources = Map::new();
    for entry in fs::read_dir(folder.join(SOURCES)).with_context(|| format!("{FOLDER}/{SOURCES}"))? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).context("a source's name is no text")?;
        let content = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        sources.insert(format!("{SOURCES}/{name}"), json!({ "content": content }));
    }
    Ok(sources)
}

/// Standard JSON in, standard JSON out; out through a file, since the compiler ends before a pipe has taken all of it.
fn solc(folder: &Path, input: &Value) -> Result<Value> {
    let place = folder.join("node_modules/.caregate-output.json");
    let mut command = Command::new("node");
    command.args(["node_modules/solc/solc.js", "--standard-json"]).current_dir(folder);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(fs::File::create(&place).with_context(|| place.display().to_string())?)
        .spawn()
        .context("node, which runs the Solidity compiler")?;
    // The compiler reads all of its input before it writes.
    let mut stdin = child.stdin.take().context("the compiler has no input")?;
    stdin.write_all(&serde_json::to_vec(input)?)?;
    drop(stdin);
    let status = child.wait()?;
    ensure!(status.success(), "the Solidity compiler ended with {status}");
    let text = fs::read_to_string(&place)?;
    // It may say something about its callbacks first.
    let begin = text.find('{').context("the Solidity compiler gave no JSON")?;
    serde_json::from_str(&text[begin..]).context("the Solidity compiler's output")
}
