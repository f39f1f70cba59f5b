//! The API about itself.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use mgmt_types::{Kind, ManagerRole};
use serde_json::{Value, json};
use utoipa::OpenApi;

use super::caller::{Anyone, Reader};
use super::reply;
use super::{
    Context, agents, apply, backup, join, log, managers, questions, resources, tokens, users, watch,
};
use crate::join_token::JoinRefusal;
use crate::manager::CertificateRefusal;
use crate::time;

/// True as long as the manager answers. Needs no token.
#[utoipa::path(
    get, path = "/healthz", tag = "meta", operation_id = "health", security(()),
    responses((status = 200, description = "It answers", body = String, content_type = "text/plain")),
)]
pub(super) async fn health() -> &'static str {
    "ok\n"
}

/// This description.
#[utoipa::path(
    get, path = "/v1/openapi.json", tag = "meta", operation_id = "openapi",
    responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value)),
)]
pub(super) async fn openapi_json(_anyone: Anyone) -> Response {
    reply::json(StatusCode::OK, &openapi())
}

/// Counters in the Prometheus text format.
#[utoipa::path(
    get, path = "/metrics", tag = "meta", operation_id = "metrics",
    responses((status = 200, description = "Counters", body = String, content_type = "text/plain")),
)]
pub(super) async fn metrics(_reader: Reader, State(context): State<Context>) -> Response {
    let text = prometheus(&context, SystemTime::now());
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

fn prometheus(context: &Context, now: SystemTime) -> String {
    let manager = &context.manager;
    let state = manager.state();
    let numbers = &manager.numbers;
    let mut text = String::new();
    let mut family = |name: &str, kind: &str, help: &str, samples: &[(String, u64)]| {
        // Writing into a String does not fail.
        let _ =
            writeln!(text, "# HELP palisade_manager_{name} {help}\n# TYPE palisade_manager_{name} {kind}");
        for (labels, value) in samples {
            let _ = writeln!(text, "palisade_manager_{name}{labels} {value}");
        }
    };
    let one = |value: u64| vec![(String::new(), value)];
    let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let count = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
    family("revision", "gauge", "Newest revision of the desired state.", &one(state.revision));
    let kinds: Vec<_> =
        Kind::ALL.map(|kind| (format!("{{kind=\"{kind}\"}}"), count(state.count(kind)))).into();
    family("resources", "gauge", "Declared resources.", &kinds);
    let connected = count(manager.board.connected(now));
    family("hosts_connected", "gauge", "Hosts that spoke within the last 15 seconds.", &one(connected));
    let managers = manager.managers();
    let store = u64::from(managers.disconnected_since.is_none());
    family("store_connected", "gauge", "1 while the store answers.", &one(store));
    let leads = u64::from(matches!(managers.role, ManagerRole::Alone | ManagerRole::Leader));
    family("leader", "gauge", "1 when this manager does what one alone must do.", &one(leads));
    let answers: Vec<_> = ["2xx", "3xx", "4xx", "5xx"]
        .iter()
        .zip(&numbers.answers)
        .map(|(class, counter)| (format!("{{class=\"{class}\"}}"), load(counter)))
        .collect();
    family("answers_total", "counter", "Answers by class of status.", &answers);
    family("connections", "gauge", "Open connections.", &one(load(&numbers.connections)));
    let refused = load(&numbers.connections_refused);
    family(
        "connections_refused_total",
        "counter",
        "Connections closed because there were too many.",
        &one(refused),
    );
    let failed = load(&numbers.handshakes_failed);
    family("tls_handshakes_failed_total", "counter", "TLS handshakes that failed.", &one(failed));
    let refusals = load(&numbers.refusals);
    family("refusals_total", "counter", "Requests refused for want of a token or a right.", &one(refusals));
    family("joins_total", "counter", "Machines that became hosts.", &one(load(&numbers.joins)));
    let reasons: Vec<_> = (JoinRefusal::ALL.iter().zip(&numbers.join_refusals))
        .map(|(why, counter)| (format!("{{reason=\"{}\"}}", why.as_str()), load(counter)))
        .collect();
    family("join_refusals_total", "counter", "Machines that did not become hosts.", &reasons);
    let issued = load(&numbers.certificates);
    family("host_certificates_total", "counter", "Certificates that hosts got.", &one(issued));
    let reasons: Vec<_> = (CertificateRefusal::ALL.iter().zip(&numbers.certificate_refusals))
        .map(|(why, counter)| (format!("{{reason=\"{}\"}}", why.as_str()), load(counter)))
        .collect();
    family(
        "certificate_refusals_total",
        "counter",
        "Requests with a certificate that is not good.",
        &reasons,
    );
    family(
        "join_tokens",
        "gauge",
        "Join tokens that are valid.",
        &one(count(manager.valid_join_tokens(now))),
    );
    let left = |end: u64| end.saturating_sub(time::seconds(now));
    let authorities: Vec<_> = (manager.records.authorities.all().into_iter())
        .map(|(_, kept)| (format!("{{fingerprint=\"{}\"}}", kept.fingerprint), left(kept.not_after)))
        .collect();
    family("authority_seconds_left", "gauge", "Life that an authority has left.", &authorities);
    let hosts: Vec<_> = (manager.records.enrolments.all().into_iter())
        .map(|(host, kept)| (format!("{{host=\"{host}\"}}"), left(kept.not_after)))
        .collect();
    family("host_certificate_seconds_left", "gauge", "Life that a host's certificate has left.", &hosts);
    let unwritten = load(&numbers.refusals_unwritten);
    family("refusals_unwritten_total", "counter", "Refusals left out of the audit log.", &one(unwritten));
    text
}

#[derive(OpenApi)]
#[openapi(
    info(title = "Palisade", description = "Declares networks, workloads and firewall policies, and says how they fare."),
    paths(
        resources::list, resources::read, resources::replace, resources::patch, resources::remove,
        apply::apply, apply::delete, watch::watch,
        log::audit, log::revision, log::realised,
        users::list, users::create, users::change, users::remove,
        managers::list, backup::backup, backup::restore,
        tokens::list, tokens::create, tokens::remove,
        join::join, join::tokens, join::create, join::revoke, join::authorities, join::rotate, join::retire,
        questions::trace, questions::verdicts, questions::flows,
        agents::state, agents::status, questions::answer, join::renew,
        health, openapi_json, metrics,
    ),
    components(schemas(
        mgmt_types::Mistake,
        mgmt_types::agent::SliceState,
        mgmt_types::agent::SliceDelta,
        mgmt_types::agent::SliceVersion,
    )),
    tags(
        (name = "resources", description = "What is declared"),
        (name = "history", description = "What changed, and who did it"),
        (name = "questions", description = "What hosts can be asked"),
        (name = "users", description = "Who may do what"),
        (name = "tokens", description = "What users are let in with"),
        (name = "joining", description = "How machines become hosts"),
        (name = "agents", description = "What hosts get and say"),
        (name = "meta", description = "The API about itself"),
    ),
)]
struct Described;

/// The description of the API, OpenAPI 3.1, made from the types and handlers.
pub(crate) fn openapi() -> Value {
    let mut value = serde_json::to_value(Described::openapi()).unwrap_or(Value::Null);
    // A resource is told apart by its `kind`, which is no member of the Rust types: the enum around them has it.
    for kind in Kind::ALL {
        let schema = &mut value["components"]["schemas"][kind.as_str()];
        schema["properties"]["kind"] = json!({ "type": "string", "const": kind.as_str() });
        if let Some(required) = schema["required"].as_array_mut() {
            required.insert(0, json!("kind"));
        }
    }
    let refs: Vec<Value> =
        Kind::ALL.iter().map(|kind| json!({ "$ref": format!("#/components/schemas/{kind}") })).collect();
    value["components"]["schemas"]["Resource"] = json!({
        "description": "One resource of any kind, told apart by its member `kind`.",
        "oneOf": refs,
        "discriminator": { "propertyName": "kind" },
    });
    value["components"]["securitySchemes"] = json!({
        "token": { "type": "http", "scheme": "bearer" },
        "certificate": { "type": "mutualTLS", "description": "A host's, as joining gave it" },
    });
    value["security"] = json!([{ "token": [] }, { "certificate": [] }]);
    value["info"]["version"] = json!("v1");
    value
}
