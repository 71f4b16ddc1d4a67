//! What operators ask of the controller: its REST interface, over mutual TLS.

mod intents;
mod switches;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use caregate_host::identity::{Identity, IdentityFiles, Role};
use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::Value;

use crate::http::{Answer, Ask, Server};
use crate::outcome::{Done, Failure, Outcome};
use crate::table::{Column, table};

pub(crate) use intents::{IntentsArgs, QuarantineArgs, ReleaseArgs, intents, quarantine, release};
pub(crate) use switches::{
    EventsArgs, FlowModArgs, RevocationArgs, SwitchArgs, events, flow_mod, flows, ports, revocation,
    switches, tables,
};

/// Which controller, and as whom.
#[derive(Debug, Args)]
pub(crate) struct ControllerArgs {
    /// The controller's REST interface
    #[arg(long, value_name = "URL", default_value = "https://127.0.0.1:9443")]
    controller: String,
    /// Folder with the operator's certificate.pem, key.pem and ca.pem, as `cargo xtask pki issue --role operator` makes it
    #[arg(long, value_name = "DIR", default_value = "/etc/caregate/operator")]
    identity: PathBuf,
    /// The controller's name in its certificate; without it any controller of the deployment will do
    #[arg(long, value_name = "NAME")]
    controller_name: Option<String>,
}

impl ControllerArgs {
    fn server(&self) -> anyhow::Result<Server> {
        Server::new(&self.controller, || {
            let at = |name: &str| self.identity.join(name);
            let files =
                IdentityFiles { certificate: at("certificate.pem"), key: at("key.pem"), ca: at("ca.pem") };
            let identity = Identity::load(&files)?;
            let name = self.controller_name.as_deref();
            Ok(Arc::new(identity.client_config(Role::Controller, name, &[b"http/1.1"])))
        })
    }

    async fn ask(&self, ask: Ask<'_>) -> Result<Answer, Failure> {
        let answer = self.server()?.exchange(ask).await?;
        if answer.status.is_success() { Ok(answer) } else { Err(problem(&answer)) }
    }

    async fn read(&self, path: &str) -> Result<Value, Failure> {
        let answer = self.ask(Ask { path, ..Ask::default() }).await?;
        Ok(serde_json::from_slice(&answer.body).context("the controller's answer is no JSON")?)
    }

    async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer, Failure> {
        let body = body.map(|body| ("application/json", body.to_string().into_bytes()));
        self.ask(Ask { method, path, body, ..Ask::default() }).await
    }

    /// A list of the answer, for people and whole.
    async fn list(&self, path: &str, list: &str, columns: &[Column]) -> Outcome {
        let answer = self.read(path).await?;
        let rows = answer[list].as_array().cloned().unwrap_or_default();
        Ok(Done::new(table(&rows, columns), answer))
    }
}

/// What a controller answers that does not do it (RFC 9457). Its own troubles are failures, the rest refusals.
fn problem(answer: &Answer) -> Failure {
    let body = answer.json();
    let detail =
        body["detail"].as_str().unwrap_or_else(|| answer.status.canonical_reason().unwrap_or("error"));
    if answer.status.is_server_error() {
        return Failure::Failed(anyhow::anyhow!("the controller: {detail} ({})", answer.status.as_u16()));
    }
    let reason =
        body["error"]["code_name"].as_str().map_or_else(|| answer.status.as_str().to_owned(), str::to_owned);
    Failure::refused(format_args!("the controller refuses: {detail}"), reason)
}

/// A name as part of a path.
pub(crate) fn segment(name: &str) -> anyhow::Result<&str> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if !name.is_empty() && name.bytes().all(good) && !name.bytes().all(|byte| byte == b'.') {
        Ok(name)
    } else {
        anyhow::bail!("`{name}` is no name: A-Z a-z 0-9 . _ -")
    }
}

/// Policy connections.
#[derive(Debug, Args)]
pub(crate) struct GatewaysArgs {
    #[command(flatten)]
    controller: ControllerArgs,
    #[command(subcommand)]
    command: Option<GatewaysCommand>,
}

#[derive(Debug, Subcommand)]
enum GatewaysCommand {
    /// Write the last bundle that a gateway was sent into a file, as it was sent
    Bundle {
        /// The gateway's name
        name: String,
        /// The file
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

pub(crate) async fn gateways(arguments: GatewaysArgs) -> Outcome {
    let GatewaysArgs { controller, command } = arguments;
    match command {
        None => {
            let columns = [
                ("GATEWAY", "/name"),
                ("CONNECTED", "/connected"),
                ("EPOCH", "/verdict/epoch"),
                ("BLOCK", "/verdict/number"),
                ("REFUSED", "/verdict/refused"),
                ("POLICY_AGE_MS", "/policy_age_ms"),
            ];
            controller.list("/v1/gateways", "gateways", &columns).await
        }
        Some(GatewaysCommand::Bundle { name, out }) => {
            let path = format!("/v1/gateways/{}/bundle", segment(&name)?);
            let bytes = controller.ask(Ask { path: &path, ..Ask::default() }).await?.body;
            std::fs::write(&out, &bytes).with_context(|| out.display().to_string())?;
            let text = format!("{}: {} bytes", out.display(), bytes.len());
            Ok(Done::new(text, serde_json::json!({ "file": out, "bytes": bytes.len() })))
        }
    }
}

#[cfg(test)]
mod tests {
    use hyper::{HeaderMap, StatusCode};
    use serde_json::json;

    use super::*;

    fn answer(status: StatusCode, body: &Value) -> Answer {
        Answer { status, headers: HeaderMap::new(), body: body.to_string().into() }
    }

    #[test]
    fn a_switchs_error_is_its_refusal_and_the_controllers_troubles_are_failures() {
        let body = json!({ "detail": "the switch refuses: EPERM", "error": { "code_name": "OFPBRC_EPERM" } });
        match problem(&answer(StatusCode::CONFLICT, &body)) {
            Failure::Refused { reason, text } => {
                assert_eq!(reason, "OFPBRC_EPERM");
                assert!(text.ends_with("the switch refuses: EPERM"), "{text}");
            }
            other @ (Failure::Failed(_) | Failure::Faulty { .. }) => panic!("{other:?}"),
        }
        assert!(matches!(problem(&answer(StatusCode::GATEWAY_TIMEOUT, &json!({}))), Failure::Failed(_)));
        match problem(&answer(StatusCode::NOT_FOUND, &Value::Null)) {
            Failure::Refused { reason, .. } => assert_eq!(reason, "404"),
            other @ (Failure::Failed(_) | Failure::Faulty { .. }) => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_name_stays_in_its_place() {
        assert_eq!(segment("quarantine-02-00").unwrap(), "quarantine-02-00");
        for name in ["", "..", "a/b", "a?b", "a%2f"] {
            assert!(segment(name).is_err(), "{name}");
        }
    }
}
