//! `edge-gateway switch` as a program: what it says of itself and of its file. That it switches is shown by `tests/tests/interop`.

use std::path::Path;
use std::process::{Command, Output};

use caregate_host::identity::{IdentityFiles, Role};
use edge_gateway::GUARDED;

use crate::openflow_support::pki::Pki;

const PROGRAM: &str = env!("CARGO_BIN_EXE_edge-gateway");

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

/// Has a file checked.
fn check(pki: &Pki, change: impl FnOnce(String) -> String) -> (bool, String) {
    let folder = tempfile::tempdir().unwrap();
    let IdentityFiles { certificate, key, ca } = pki.issue(Role::Gateway, "switch-1");
    let text = format!(
        "data = {:?}\nadmin = \"127.0.0.1:0\"\nidentity = {{ certificate = {certificate:?}, key = {key:?}, ca = {ca:?} }}\n\
         [controller]\naddress = \"127.0.0.1:6653\"\ndatapath_id = \"00000000000000a2\"\n",
        folder.path().join("data"),
    );
    let config = folder.path().join("switch.toml");
    std::fs::write(&config, change(text)).unwrap();
    let output = Command::new(PROGRAM).args(["switch", "--check", "--config"]).arg(&config).output().unwrap();
    (output.status.success(), said(&output))
}

#[test]
fn a_file_that_is_good_is_said_to_be() {
    let (is_good, said) = check(&Pki::new(), |text| text);
    assert!(is_good, "{said}");
}

#[test]
fn what_is_wrong_is_one_sentence_with_its_key() {
    let pki = Pki::new();
    let gateway = |text: String| text + "[mqtt]\nlisten = \"127.0.0.1:1883\"\n";
    let (is_good, said) = check(&pki, gateway);
    assert!(!is_good && said.contains("unknown field `mqtt`"), "{said}");
    let nobody = |text: String| text.split("[controller]").next().unwrap().to_owned();
    let (is_good, said) = check(&pki, nobody);
    assert!(!is_good && said.contains("missing field `controller`"), "{said}");
    let off = |text: String| format!("datapath = \"off\"\n{text}");
    let (is_good, said) = check(&pki, off);
    assert!(!is_good && said.contains("`datapath`") && said.contains("leaves no switch"), "{said}");
    let number = |text: String| text.replace("00000000000000a2", "a2");
    let (is_good, said) = check(&pki, number);
    assert!(!is_good && said.contains("`controller.datapath_id`"), "{said}");
}

/// Where there is nobody at the helper's socket it does not start, and says what to do.
#[test]
fn without_its_helper_it_does_not_start() {
    let (pki, folder) = (Pki::new(), tempfile::tempdir().unwrap());
    let IdentityFiles { certificate, key, ca } = pki.issue(Role::Gateway, "switch-1");
    let text = format!(
        "data = {:?}\nadmin = \"127.0.0.1:0\"\nidentity = {{ certificate = {certificate:?}, key = {key:?}, ca = {ca:?} }}\n\
         [datapath]\nhelper = {:?}\n[controller]\naddress = \"127.0.0.1:6653\"\ndatapath_id = \"00000000000000a2\"\n",
        folder.path().join("data"),
        folder.path().join("nobody.sock"),
    );
    let config = folder.path().join("switch.toml");
    std::fs::write(&config, text).unwrap();
    let output = Command::new(PROGRAM).args(["switch", "--config"]).arg(&config).output().unwrap();
    let said = said(&output);
    assert!(!output.status.success() && said.contains("start caregate-datapathd"), "{said}");
}

fn refuse(program: &Path) -> (bool, String) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/refuse-conformance.sh");
    let output = Command::new(script).arg(program).output().unwrap();
    (output.status.success(), said(&output))
}

/// A build without guard says so by its version, and what installs programs goes by that.
#[test]
fn a_build_without_guard_is_refused_by_name() {
    let (is_taken, said) = refuse(Path::new(PROGRAM));
    assert_eq!(is_taken, GUARDED, "{said}");
    let folder = tempfile::tempdir().unwrap();
    for (version, is_good) in [("edge-gateway 0.1.0", true), ("edge-gateway 0.1.0+conformance", false)] {
        let program = folder.path().join("program");
        // A process that another test starts meanwhile would have what is open here open to write, and the program would be busy.
        let write = "printf '#!/bin/sh\\necho %s\\n' \"$1\" > \"$0\" && chmod 700 \"$0\"";
        assert!(
            Command::new("sh").args(["-c", write]).arg(&program).arg(version).status().unwrap().success()
        );
        let (is_taken, said) = refuse(&program);
        assert_eq!(is_taken, is_good, "{said}");
        assert!(said.contains(version) && (is_good || said.contains("without guard")), "{said}");
    }
}
