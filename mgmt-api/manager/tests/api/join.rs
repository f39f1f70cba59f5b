//! How machines become hosts, what they are known by, and why they are refused.

use mgmt_client::{Client, Error, Membership};
use mgmt_types::agent::HostStatus;
use mgmt_types::{Kind, NewJoinToken, Resource};
use serde_json::{Value, json};

use crate::server::{BASE, PATIENCE, Server};

fn status_of(error: &Error) -> u16 {
    error.problem().unwrap_or_else(|| panic!("{error}")).status
}

fn status(host: &str) -> HostStatus {
    HostStatus { host: host.into(), version: "1".into(), ..HostStatus::default() }
}

async fn audit(server: &Server) -> Vec<Value> {
    server.get("/v1/audit?limit=1000").await.json()["items"].as_array().unwrap().clone()
}

async fn metric(server: &Server, line: &str) -> u64 {
    let text = server.get("/metrics").await.body;
    let found = text.lines().find_map(|have| have.strip_prefix(line)?.trim().parse().ok());
    found.unwrap_or_else(|| panic!("{line} is missing in\n{text}"))
}

#[tokio::test]
async fn a_machine_joins_and_is_a_host_with_the_labels_of_its_token() {
    let server = Server::start().await;
    server.apply("kind: Host\nname: known\nlabels: { rack: r1, zone: old }\n").await;
    let labels = [("zone".to_owned(), "z1".to_owned())].into();
    let wish = NewJoinToken { uses: Some(2), labels, ..NewJoinToken::default() };
    let token = server.join_token(&wish).await;
    for (host, labels) in
        [("fresh", json!({ "zone": "z1" })), ("known", json!({ "rack": "r1", "zone": "z1" }))]
    {
        let member = server.join_with(&token, host, None).await.unwrap();
        let client = Client::member(&member).unwrap();
        client.post_status(&status(host)).await.unwrap();
        let shown = server.get(&format!("/v1/hosts/{host}")).await.json();
        assert_eq!((&shown["labels"], &shown["status"]["connected"]), (&labels, &json!(true)));
    }
    let entries = audit(&server).await;
    let entry = entries.iter().rfind(|entry| entry["action"] == "POST /v1/join").unwrap();
    assert_eq!((&entry["author"], &entry["role"]), (&json!("fresh"), &json!("agent")));
    assert_eq!(metric(&server, "palisade_manager_joins_total").await, 2);
    let listed = server.client().join_tokens().await.unwrap();
    assert_eq!((listed[0].used, listed[0].state.as_str()), (2, "used-up"));
    assert!(!server.get("/v1/join-tokens").await.body.contains(token.split('.').next().unwrap()));
}

#[tokio::test]
async fn of_hosts_that_race_as_many_get_in_as_the_token_is_for() {
    let server = Server::start().await;
    for uses in [1, 3] {
        let token = server.join_token(&NewJoinToken { uses: Some(uses), ..NewJoinToken::default() }).await;
        let names: Vec<String> = (0..8).map(|n| format!("racer-{uses}-{n}")).collect();
        let joins = names.iter().map(|host| server.join_with(&token, host, None));
        let results = futures_util::future::join_all(joins).await;
        let (inside, outside): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
        assert_eq!(inside.len(), uses as usize);
        assert!(outside.iter().all(|refused| status_of(refused.as_ref().unwrap_err()) == 401));
        let hosts = server.client().list(Kind::Host, None).await.unwrap();
        let joined = hosts.iter().filter(|host| host.name().starts_with(&format!("racer-{uses}"))).count();
        assert_eq!(joined, uses as usize, "who was refused is no host");
    }
}

#[tokio::test]
async fn use_counts_identities_and_authorities_survive_a_restart() {
    let server = Server::start().await;
    let token = server.join_token(&NewJoinToken { uses: Some(2), ..NewJoinToken::default() }).await;
    let member = server.join_with(&token, "host-a", None).await.unwrap();
    let directory = server.stop().await;
    let server = Server::start_in(directory).await;
    let moved = Membership { managers: vec![server.running.url()], ..member };
    Client::member(&moved).unwrap().post_status(&status("host-a")).await.unwrap();
    server.join_with(&token, "host-b", None).await.unwrap();
    let refused = server.join_with(&token, "host-c", None).await.unwrap_err();
    assert!(refused.to_string().contains("used by 2 of 2"), "{refused}");
}

#[tokio::test]
async fn each_token_that_is_not_good_has_a_refusal_an_audit_entry_and_a_count_of_its_own() {
    let server = Server::start().await;
    let admin = server.client();
    let wish = |name: &str| NewJoinToken { name: Some(name.into()), ..NewJoinToken::default() };
    let used = server.join_token(&wish("used")).await;
    server.join_with(&used, "first", None).await.unwrap();
    let revoked = server.join_token(&wish("revoked")).await;
    admin.revoke_join_token("revoked").await.unwrap();
    let bound = server.join_token(&NewJoinToken { host: Some("other".into()), ..wish("bound") }).await;
    let expired = server.join_token(&NewJoinToken { expires_in: Some(1), ..wish("expired") }).await;
    let end = tokio::time::Instant::now() + PATIENCE;
    while admin.join_tokens().await.unwrap()[1].state.as_str() != "expired" {
        assert!(tokio::time::Instant::now() < end, "it does not expire");
    }
    let fingerprint = used.rsplit_once('.').unwrap().1;
    let unknown = format!("join_{}.{fingerprint}", "0".repeat(64));
    for (token, status, reason, text) in [
        (&unknown, 401, "unknown-token", "no such join token"),
        (&used, 401, "used-up-token", "join token used was used by 1 of 1 hosts"),
        (&revoked, 401, "revoked-token", "join token revoked was revoked"),
        (&expired, 401, "expired-token", "join token expired expired at"),
        (&bound, 403, "other-host", "join token bound is for host other"),
    ] {
        let refused = server.join_with(token, "late", None).await.unwrap_err();
        assert_eq!(status_of(&refused), status, "{refused}");
        assert!(refused.to_string().contains(text), "{refused}");
        let count = format!("palisade_manager_join_refusals_total{{reason=\"{reason}\"}}");
        assert_eq!(metric(&server, &count).await, 1);
        let entry = audit(&server).await[0].clone();
        assert_eq!((&entry["action"], &entry["status"]), (&json!("POST /v1/join"), &json!(status)));
        assert!(entry["detail"].as_str().unwrap().contains(text), "{entry}");
        let secret = token.split('.').next().unwrap();
        assert!(!entry.to_string().contains(secret), "the log holds a secret");
    }
    assert_eq!(server.get("/v1/hosts/late").await.status, 404);
    assert_eq!(admin.revoke_join_token("nobody").await.map_err(|error| status_of(&error)), Err(404));
}

#[tokio::test]
async fn a_manager_of_another_authority_is_told_nothing() {
    let (here, there) = (Server::start().await, Server::start().await);
    let token = here.join_token(&NewJoinToken::default()).await;
    let refused = there.join_with(&token, "host-a", None).await.unwrap_err();
    assert!(matches!(refused, Error::Tls { .. }), "{refused:?}");
    assert!(refused.to_string().contains("fingerprint"), "{refused}");
    assert!(audit(&there).await.iter().all(|entry| entry["action"] != "POST /v1/join"));
    here.join_with(&token, "host-a", None).await.unwrap();
}

#[tokio::test]
async fn a_name_that_is_taken_needs_the_old_certificate_or_an_administrators_word() {
    let server = Server::start().await;
    let wish = NewJoinToken { uses: Some(9), ..NewJoinToken::default() };
    let (token, replacing) =
        (server.join_token(&wish).await, server.join_token(&NewJoinToken { replace: true, ..wish }).await);
    let first = server.join_with(&token, "host-a", None).await.unwrap();
    let other = server.join_with(&token, "host-b", None).await.unwrap();
    for stranger in [None, Some(&other)] {
        let refused = server.join_with(&token, "host-a", stranger).await.unwrap_err();
        assert_eq!(status_of(&refused), 409, "{refused}");
        assert!(refused.to_string().contains("--replace"), "{refused}");
    }
    let taken = "palisade_manager_join_refusals_total{reason=\"taken-name\"}";
    assert_eq!(metric(&server, taken).await, 2);
    let again = server.join_with(&token, "host-a", Some(&first)).await.unwrap();
    let refused = Client::member(&first).unwrap().post_status(&status("host-a")).await.unwrap_err();
    assert!(status_of(&refused) == 401 && refused.to_string().contains("withdrawn"), "{refused}");
    Client::member(&again).unwrap().post_status(&status("host-a")).await.unwrap();
    server.join_with(&replacing, "host-a", None).await.unwrap();
    assert!(Client::member(&again).unwrap().post_status(&status("host-a")).await.is_err());
    // A user who is called like a host is not that host.
    let admin = format!("Bearer {}", server.token("host-b", mgmt_types::Role::Admin).await);
    let body =
        json!({ "token": token.split('.').next().unwrap(), "host": "host-b", "csr": "none" }).to_string();
    let headers = [("authorization", admin.as_str()), ("content-type", "application/json")];
    assert_eq!(server.ask("POST", "/v1/join", &headers, body.as_bytes()).await.status, 409);
}

#[tokio::test]
async fn a_request_to_sign_that_is_none_is_refused_and_costs_no_use() {
    let server = Server::start().await;
    let token = server.join_token(&NewJoinToken::default()).await;
    let secret = token.split('.').next().unwrap();
    let json_body = [("content-type", "application/json")];
    let ask = async |body: String| server.ask("POST", "/v1/join", &json_body, body.as_bytes()).await;
    for csr in ["", "nonsense"] {
        let answer = ask(json!({ "token": secret, "host": "host-a", "csr": csr }).to_string()).await;
        assert_eq!((answer.status, &answer.json()["field"]), (422, &json!("csr")), "{answer:?}");
    }
    for (body, field) in [
        (json!({ "token": secret, "host": "Host", "csr": "" }), "host"),
        (json!({ "token": secret, "host": "host-a", "csr": "", "role": "admin" }), "role"),
    ] {
        let answer = ask(body.to_string()).await;
        assert_eq!((answer.status, &answer.json()["field"]), (422, &json!(field)), "{answer:?}");
    }
    assert_eq!(ask("x".repeat(17 << 10)).await.status, 413);
    server.join_with(&token, "host-a", None).await.unwrap();
}

#[tokio::test]
async fn a_host_speaks_for_itself_alone() {
    let server = Server::start().await;
    server.apply(BASE).await;
    let other = server.host("host-b").await;
    for refused in [
        other.agent_state_stream("host-a", 0).await.map(drop).unwrap_err(),
        other.post_status(&status("host-a")).await.unwrap_err(),
    ] {
        assert_eq!(status_of(&refused), 403, "{refused}");
        assert!(refused.to_string().contains("host-b is not good for host host-a"), "{refused}");
    }
    let count = "palisade_manager_certificate_refusals_total{reason=\"other-host\"}";
    assert_eq!(metric(&server, count).await, 2);
    let entry = audit(&server).await[0].clone();
    assert_eq!((&entry["author"], &entry["status"]), (&json!("host-b"), &json!(403)));
    let Resource::Host(host) = server.client().get(Kind::Host, "host-a").await.unwrap() else { panic!() };
    assert!(!host.status.unwrap().connected);
}

#[tokio::test]
async fn a_certificate_of_a_foreign_authority_is_refused_by_name() {
    let (here, there) = (Server::start().await, Server::start().await);
    let foreign = there.join("host-a").await;
    here.join("host-a").await;
    let answer = here.ask_as(Some(&foreign), "GET", "/v1/agent/state?host=host-a", &[], b"").await;
    assert_eq!(answer.status, 401, "{answer:?}");
    assert!(answer.body.contains("no authority of this installation"), "{answer:?}");
    let count = "palisade_manager_certificate_refusals_total{reason=\"foreign\"}";
    assert_eq!(metric(&here, count).await, 1);
    let entry = audit(&here).await[0].clone();
    assert!(entry["detail"].as_str().unwrap().contains("no authority"), "{entry}");
    // It is no hindrance to who has a token.
    let admin = format!("Bearer {}", here.admin);
    let answer = here.ask_as(Some(&foreign), "GET", "/v1/hosts", &[("authorization", &admin)], b"").await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn a_deleted_host_is_cut_off_at_once_and_may_join_again() {
    let server = Server::start().await;
    let member = server.join("host-a").await;
    let client = Client::member(&member).unwrap();
    let mut slices = client.agent_state_stream("host-a", 0).await.unwrap();
    let next =
        async |slices: &mut mgmt_client::Events<_>| -> Option<Result<mgmt_types::agent::Slice, Error>> {
            tokio::time::timeout(PATIENCE, slices.next()).await.expect("no end")
        };
    assert!(next(&mut slices).await.unwrap().is_ok());
    server.client().delete(Kind::Host, "host-a", None).await.unwrap();
    while let Some(Ok(_)) = next(&mut slices).await {}
    let refused = client.post_status(&status("host-a")).await.unwrap_err();
    assert!(status_of(&refused) == 401 && refused.to_string().contains("withdrawn"), "{refused}");
    // Being declared again does not bring the certificate back.
    server.apply("kind: Host\nname: host-a\n").await;
    assert!(client.post_status(&status("host-a")).await.is_err());
    let token = server.join_token(&NewJoinToken::default()).await;
    let again = server.join_with(&token, "host-a", Some(&member)).await.unwrap();
    Client::member(&again).unwrap().post_status(&status("host-a")).await.unwrap();
}

#[tokio::test]
async fn an_authority_is_replaced_while_hosts_and_clients_go_on() {
    let server = Server::start().await;
    let admin = server.client();
    let member = server.join("host-a").await;
    let client = Client::member(&member).unwrap();
    client.post_status(&status("host-a")).await.unwrap();
    assert!(!member.is_due(&client, member.credentials.not_before));
    assert!(member.is_due(&client, member.credentials.renew_at()));

    let both = admin.rotate_authority().await.unwrap();
    let signs: Vec<_> = both.iter().map(|one| (one.signs_managers, one.signs_hosts, one.hosts)).collect();
    assert_eq!(signs, [(true, false, 1), (false, true, 0)]);
    let (old, new) = (both[0].fingerprint.as_str(), both[1].fingerprint.as_str());
    for (fingerprint, text) in [(old, "host-a among them"), (new, "newest")] {
        let refused = admin.retire_authority(fingerprint, false).await.unwrap_err();
        assert!(status_of(&refused) == 409 && refused.to_string().contains(text), "{refused}");
    }
    // The host learns of it with any answer, and gets a certificate of the new authority and the bundle.
    client.post_status(&status("host-a")).await.unwrap();
    assert!(member.is_due(&client, member.credentials.not_before));
    let renewed = client.renew(&member).await.unwrap();
    assert_eq!((renewed.credentials.authority.as_str(), renewed.credentials.authorities.len()), (new, 2));
    assert_ne!(renewed.key, member.key);
    client.speak_as(&renewed).unwrap();
    client.post_status(&status("host-a")).await.unwrap();
    assert!(!renewed.is_due(&client, renewed.credentials.not_before));

    // Joining goes on with what tokens name: the authority that managers prove themselves by.
    let token = server.join_token(&NewJoinToken::default()).await;
    assert!(token.ends_with(old));
    server.join_with(&token, "host-b", None).await.unwrap();

    admin.retire_authority(old, false).await.unwrap();
    let end = tokio::time::Instant::now() + PATIENCE;
    while Client::member(&member).unwrap().post_status(&status("host-a")).await.is_ok() {
        assert!(tokio::time::Instant::now() < end, "what the old authority signed is still good");
    }
    // The manager proves itself by the new one within the moment it takes to make a certificate.
    let fresh = Client::member(&renewed).unwrap();
    fresh.post_status(&status("host-a")).await.unwrap();
    while server.client().users().await.is_err() {
        assert!(tokio::time::Instant::now() < end, "ca.pem is not the new authority's");
    }
    assert_eq!(server.client().authorities().await.unwrap().len(), 1);
    let directory = server.stop().await;
    let server = Server::start_in(directory).await;
    let moved = Membership { managers: vec![server.running.url()], ..renewed };
    Client::member(&moved).unwrap().post_status(&status("host-a")).await.unwrap();
}

#[tokio::test]
async fn a_host_asks_the_next_manager_when_one_is_gone() {
    let server = Server::start().await;
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let member = server.join("host-a").await;
    let managers = vec![format!("https://{gone}"), server.running.url()];
    let client = Client::member(&Membership { managers: managers.clone(), ..member }).unwrap();
    assert!(client.post_status(&status("host-a")).await.unwrap_err().is_unreachable());
    client.post_status(&status("host-a")).await.unwrap();
    assert_eq!(client.url(), managers[1]);
    // So does who joins.
    let token = server.join_token(&NewJoinToken::default()).await;
    let joined = mgmt_client::join(&managers, &token, "host-b", None).await.unwrap();
    assert_eq!(joined.managers, managers);
}

#[tokio::test]
async fn an_authority_of_an_older_version_stays_and_its_key_is_sealed() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    std::fs::create_dir(&state).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, "Palisade authority");
    let certificate = params.self_signed(&key).unwrap().pem();
    std::fs::write(state.join("ca.key"), key.serialize_pem()).unwrap();
    std::fs::write(state.join("ca.pem"), &certificate).unwrap();
    std::fs::write(state.join("agent.token"), "palisade_0").unwrap();
    let server = Server::start_in(directory).await;
    assert_eq!(server.client().authorities().await.unwrap()[0].certificate, certificate);
    assert!(!state.join("ca.key").exists() && !state.join("agent.token").exists());
    let secret = key.serialize_der();
    for file in std::fs::read_dir(&state).unwrap() {
        let kept = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!kept.windows(32).any(|window| secret.windows(32).any(|part| part == window)));
    }
    server.host("host-a").await.post_status(&status("host-a")).await.unwrap();
}
