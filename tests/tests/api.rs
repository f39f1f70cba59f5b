//! The API and the command line as their users meet them: who may do what, and what they are told when they err.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::palisade::{HOST, Palisade};
use e2e::process::run as run_command;
use e2e::scratch::{Scratch, cache_dir};
use e2e::shell::Output;
use e2e::trials::{Fixture, check, run};
use serde_json::{Value, json};

struct Api {
    palisade: Palisade,
    scratch: Scratch,
}

impl Fixture for Api {
    fn new() -> Result<Self> {
        let scratch = Scratch::new("api")?;
        Ok(Self { palisade: Palisade::start(scratch.path(), &[])?, scratch })
    }

    fn report(&self) -> String {
        self.palisade.report()
    }
}

const BLUE: &str = "kind: Network\nname: blue\nspec:\n  subnets: [10.0.1.0/24]\n";

fn main() -> ExitCode {
    run(vec![
        check("secrets_are_readable_by_their_owner_only", 20, secrets_are_private),
        check("the_admin_token_is_printed_once", 40, token_is_printed_once),
        check("without_a_token_there_is_401_and_an_audit_entry", 20, no_token),
        check("a_wrong_token_gets_401_and_an_audit_entry", 20, wrong_token),
        check("a_viewer_reads_and_its_writes_get_403_and_an_audit_entry", 20, viewer),
        check("the_openapi_document_is_valid_openapi_3_1", 120, openapi),
        check("an_unknown_field_is_named_with_file_and_line", 20, unknown_field),
        check("a_value_of_the_wrong_kind_is_named_with_file_and_line", 20, wrong_value),
        check("broken_yaml_is_named_with_file_and_line", 20, broken_yaml),
        check("a_network_that_does_not_exist_is_named", 20, wrong_reference),
        check("an_address_that_is_taken_is_named", 20, duplicate_address),
        check("subnets_that_overlap_in_a_router_are_named", 20, overlapping_subnets),
        check("a_name_that_is_too_long_is_named", 20, long_name),
        check("a_mistake_in_the_last_document_applies_none_of_them", 20, all_or_nothing),
        check("applying_twice_changes_nothing", 20, idempotent),
        check("what_was_acknowledged_survives_kill_9", 40, survives_kill),
    ])
}

fn secrets_are_private(api: &mut Api) -> Result<()> {
    for entry in fs::read_dir(api.palisade.state_dir())? {
        let entry = entry?;
        let name = entry.file_name();
        let mode = entry.metadata()?.permissions().mode() & 0o777;
        if name != "ca.pem" {
            ensure!(mode & 0o077 == 0, "{name:?} has mode {mode:o}");
        }
    }
    Ok(())
}

fn token_is_printed_once(api: &mut Api) -> Result<()> {
    let scratch = Scratch::new("token")?;
    let palisade = Palisade::start(scratch.path(), &[])?;
    let token = palisade.admin_token()?;
    ensure!(palisade.log().matches(&token).count() == 1, "the first start does not print the token once");
    palisade.stop()?;
    palisade.start_again()?;
    palisade.wait_ready()?;
    ensure!(!palisade.log().contains(&token), "the second start prints the token again");
    ensure!(palisade.admin_token()? != api.palisade.admin_token()?, "two installations share a token");
    Ok(())
}

fn no_token(api: &mut Api) -> Result<()> {
    let (status, body) = api.palisade.http("GET", "/v1/networks", None, None)?;
    problem(status, &body, 401)?;
    audited(api, "GET /v1/networks", 401, None)
}

fn wrong_token(api: &mut Api) -> Result<()> {
    let body = json!({ "kind": "Network", "name": "x", "spec": { "subnets": ["10.9.0.0/24"] } }).to_string();
    let (status, answer) = api.palisade.http("PUT", "/v1/networks/x", Some("wrong"), Some(&body))?;
    problem(status, &answer, 401)?;
    audited(api, "PUT /v1/networks/x", 401, None)
}

fn viewer(api: &mut Api) -> Result<()> {
    let admin = api.palisade.admin_token()?;
    let wish = json!({ "name": "looker", "role": "viewer" }).to_string();
    let (status, body) = api.palisade.http("POST", "/v1/tokens", Some(&admin), Some(&wish))?;
    ensure!((200..300).contains(&status), "{status}: {body}");
    let made: Value = serde_json::from_str(&body)?;
    let secret = made["secret"].as_str().with_context(|| format!("no secret in {body}"))?;
    let (status, body) = api.palisade.http("GET", "/v1/networks", Some(secret), None)?;
    ensure!(status == 200, "a viewer's read: {status}: {body}");
    let network =
        json!({ "kind": "Network", "name": "y", "spec": { "subnets": ["10.9.0.0/24"] } }).to_string();
    let (status, body) = api.palisade.http("PUT", "/v1/networks/y", Some(secret), Some(&network))?;
    problem(status, &body, 403)?;
    audited(api, "PUT /v1/networks/y", 403, Some("looker"))
}

/// An answer that says what went wrong as RFC 9457 asks.
fn problem(status: u16, body: &str, expected: u16) -> Result<()> {
    ensure!(status == expected, "{status}, not {expected}: {body}");
    let problem: Value = serde_json::from_str(body).with_context(|| format!("not JSON: {body}"))?;
    ensure!(problem["status"] == expected && problem["title"].is_string(), "not a problem: {body}");
    Ok(())
}

fn audited(api: &Api, action: &str, status: u16, author: Option<&str>) -> Result<()> {
    let admin = api.palisade.admin_token()?;
    let (code, body) = api.palisade.http("GET", "/v1/audit?limit=100", Some(&admin), None)?;
    ensure!(code == 200, "{code}: {body}");
    let list: Value = serde_json::from_str(&body)?;
    let entries = list["items"].as_array().or(list.as_array()).context("no list")?;
    let found = entries.iter().any(|entry| {
        entry["action"] == action && entry["status"] == status && entry["author"].as_str() == author
    });
    ensure!(found, "no entry for {action} {status} by {author:?} in {list:#}");
    Ok(())
}

fn openapi(api: &mut Api) -> Result<()> {
    let admin = api.palisade.admin_token()?;
    let (status, body) = api.palisade.http("GET", "/v1/openapi.json", Some(&admin), None)?;
    ensure!(status == 200, "{status}: {body}");
    let document: Value = serde_json::from_str(&body)?;
    let version = document["openapi"].as_str().unwrap_or_default();
    ensure!(version.starts_with("3.1."), "OpenAPI {version:?}");
    let file = api.scratch.join("openapi.json");
    fs::write(&file, &body)?;
    let output = run_command(Command::new(validator()?).arg(&file), Duration::from_secs(60))?;
    ensure!(output.success(), "{}{}", output.text, output.errors);
    Ok(())
}

/// Somebody else's validator, from the Python package index, installed once per build directory.
fn validator() -> Result<std::path::PathBuf> {
    let venv = cache_dir()?.join("openapi-validator");
    let program = venv.join("bin/openapi-spec-validator");
    if !program.exists() {
        for command in [
            Command::new("/usr/bin/python3").args(["-m", "venv"]).arg(&venv),
            Command::new(venv.join("bin/pip")).args(["install", "--quiet", "openapi-spec-validator==0.7.1"]),
        ] {
            let output = run_command(command, Duration::from_secs(90))?;
            ensure!(output.success(), "{command:?}: {}{}", output.text, output.errors);
        }
    }
    Ok(program)
}

fn unknown_field(api: &mut Api) -> Result<()> {
    let output = refused(api, &format!("{BLUE}  colour: red\n"))?;
    says(&output, &["bad.yaml:5", "colour"])
}

fn wrong_value(api: &mut Api) -> Result<()> {
    let output = refused(api, &BLUE.replace("10.0.1.0/24", "10.0.1.0/33"))?;
    says(&output, &["bad.yaml:4", "spec.subnets[0]", "10.0.1.0/33"])
}

fn broken_yaml(api: &mut Api) -> Result<()> {
    let output = refused(api, &BLUE.replace("24]", "24"))?;
    says(&output, &["bad.yaml:"])
}

fn wrong_reference(api: &mut Api) -> Result<()> {
    let output = refused(api, &format!("{BLUE}---\n{}", workload("w", "green", "10.0.1.11")))?;
    says(&output, &["bad.yaml:", "spec.ports[0].network", "green"])
}

fn duplicate_address(api: &mut Api) -> Result<()> {
    let yaml = format!(
        "{BLUE}---\n{}---\n{}",
        workload("v", "blue", "10.0.1.11"),
        workload("w", "blue", "10.0.1.11")
    );
    says(&refused(api, &yaml)?, &["bad.yaml:", "10.0.1.11", "spec.ports[0].addresses[0]"])
}

fn overlapping_subnets(api: &mut Api) -> Result<()> {
    let network = |name: &str, subnet: &str| {
        format!("kind: Network\nname: {name}\nspec: {{ subnets: [{subnet}], router: shop }}\n")
    };
    let yaml = format!("{}---\n{}", network("one", "10.5.0.0/16"), network("two", "10.5.7.0/24"));
    says(&refused(api, &yaml)?, &["bad.yaml:", "10.5.7.0/24", "10.5.0.0/16"])
}

fn long_name(api: &mut Api) -> Result<()> {
    let name = "n".repeat(64);
    says(&refused(api, &BLUE.replace("blue", &name))?, &["bad.yaml:2", "name", "63"])
}

fn all_or_nothing(api: &mut Api) -> Result<()> {
    let before = revision(api)?;
    let yaml = format!("{BLUE}---\n{}", workload("w", "green", "10.0.1.11"));
    refused(api, &yaml)?;
    let networks = api.palisade.cli(&["get", "networks", "-o", "json"])?;
    ensure!(!networks.contains("\"blue\""), "half of it was applied: {networks}");
    ensure!(revision(api)? == before, "a revision was made");
    Ok(())
}

fn idempotent(api: &mut Api) -> Result<()> {
    let yaml = BLUE.replace("blue", "teal").replace("10.0.1.0", "10.6.0.0");
    api.palisade.apply(&yaml)?;
    let before = revision(api)?;
    api.palisade.apply(&yaml)?;
    ensure!(revision(api)? == before, "applying the same again made a revision");
    Ok(())
}

fn survives_kill(api: &mut Api) -> Result<()> {
    api.palisade.apply(&BLUE.replace("blue", "kept").replace("10.0.1.0", "10.7.0.0"))?;
    api.palisade.kill9();
    api.palisade.start_again()?;
    api.palisade.wait_ready()?;
    let networks = api.palisade.cli(&["get", "networks", "-o", "json"])?;
    ensure!(networks.contains("\"kept\""), "{networks}");
    Ok(())
}

/// The newest revision: the author's view of what happened.
fn revision(api: &Api) -> Result<u64> {
    let all = api.palisade.json(&["get", "networks"])?;
    let items = all.as_array().or(all["items"].as_array()).context("no list")?;
    Ok(items.iter().filter_map(|item| item["revision"].as_u64()).max().unwrap_or(0))
}

/// Applies a file that has to be refused as a user's mistake, never as the manager's.
fn refused(api: &Api, yaml: &str) -> Result<Output> {
    let file = api.scratch.join("bad.yaml");
    fs::write(&file, yaml)?;
    let output = api.palisade.try_cli(&["apply", "-f", file.to_str().context("path")?], "")?;
    ensure!(!output.success(), "it was accepted:\n{}", output.text);
    ensure!(!output.errors.contains("panicked"), "{}", output.errors);
    Ok(output)
}

/// What a person needs to mend it stands in the error.
fn says(output: &Output, words: &[&str]) -> Result<()> {
    let missing: Vec<&&str> = words.iter().filter(|word| !output.errors.contains(**word)).collect();
    ensure!(missing.is_empty(), "the message lacks {missing:?}:\n{}", output.errors);
    Ok(())
}

fn workload(name: &str, network: &str, address: &str) -> String {
    format!(
        "kind: Workload\nname: {name}\nspec:\n  host: {HOST}\n  kind: vm\n  ports:\n    - name: eth0\n      \
         network: {network}\n      addresses: [{address}]\n"
    )
}
