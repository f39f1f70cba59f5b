//! Hosts on the underlay, routers, and what of both is shown.

use mgmt_types::agent::{HostStatus, PeerStatus, Slice, Underlay};
use mgmt_types::{Host, HostKind, Kind, Resource};

use crate::server::{BASE, PATIENCE, Server};

/// What host `host` says when it is at `address`.
fn at(host: &str, address: &str) -> HostStatus {
    let underlay = Underlay { addresses: vec![address.parse().unwrap()], port: 6081, mtu: 9000 };
    HostStatus { host: host.into(), version: "1".into(), underlay: Some(underlay), ..HostStatus::default() }
}

async fn host(server: &Server, name: &str) -> Host {
    match server.client().get(Kind::Host, name).await.unwrap() {
        Resource::Host(host) => host,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn where_a_host_says_it_is_reaches_its_peers_once_and_a_declaration_wins() {
    let server = Server::start().await;
    server.apply(BASE).await;
    let agent = server.host("host-a").await;
    let mut slices = agent.agent_state_stream("host-a", 0).await.unwrap();
    let next = async |slices: &mut mgmt_client::Events<Slice>| {
        tokio::time::timeout(PATIENCE, slices.next()).await.unwrap().unwrap().unwrap()
    };
    assert!(next(&mut slices).await.hosts[0].underlay.is_empty());
    agent.post_status(&at("host-a", "192.0.2.1")).await.unwrap();
    let slice = next(&mut slices).await;
    assert_eq!((slice.hosts[0].underlay[0].to_string(), slice.hosts[0].mtu), ("192.0.2.1".into(), 9000));
    assert_eq!(slice.networks[0].mtu, 8850, "9000 less what tunnels take");
    // The same again is nothing new.
    let revision = server.get("/v1/hosts").await.json()["revision"].clone();
    agent.post_status(&at("host-a", "192.0.2.1")).await.unwrap();
    assert_eq!(server.get("/v1/hosts").await.json()["revision"], revision);
    let audit = server.get("/v1/audit?limit=1").await.json();
    let entry = &audit["items"][0];
    assert_eq!((entry["author"].as_str(), &entry["revision"]), (Some("host-a"), &revision));
    assert!(entry["detail"].as_str().unwrap().contains("host host-a is reached at 192.0.2.1"), "{entry}");

    server.apply("kind: Host\nname: host-a\nspec: { underlay: [192.0.2.7], underlayMtu: 1500 }\n").await;
    let slice = next(&mut slices).await;
    assert_eq!((slice.hosts[0].underlay[0].to_string(), slice.networks[0].mtu), ("192.0.2.7".into(), 1350));
    let report = host(&server, "host-a").await.status.unwrap();
    assert_eq!((report.underlay[0].to_string(), report.underlay_mtu), ("192.0.2.7".into(), 1500));
    let network = server.get("/v1/networks/blue").await.json();
    assert_eq!(network["status"]["mtu"], 1350);
}

#[tokio::test]
async fn an_address_that_another_host_has_is_not_taken_and_shown() {
    let server = Server::start().await;
    server.host("host-a").await.post_status(&at("host-a", "192.0.2.1")).await.unwrap();
    let agent = server.host("host-b").await;
    agent.post_status(&at("host-b", "192.0.2.1")).await.unwrap();
    let report = host(&server, "host-b").await.status.unwrap();
    assert!(report.underlay.is_empty() && report.connected);
    assert_eq!(report.warnings, ["it says that it is at 192.0.2.1, which belongs to Host/host-a"]);
    assert!(host(&server, "host-a").await.status.unwrap().warnings.is_empty());
    agent.post_status(&at("host-b", "192.0.2.2")).await.unwrap();
    let report = host(&server, "host-b").await.status.unwrap();
    assert_eq!((report.underlay.len(), report.warnings.len()), (1, 0));
    // What no host can have is left out.
    server.host("host-c").await.post_status(&at("host-c", "0.0.0.0")).await.unwrap();
    assert!(host(&server, "host-c").await.status.unwrap().underlay.is_empty());
}

#[tokio::test]
async fn nobody_speaks_for_an_external_host_and_workloads_may_be_on_it() {
    let server = Server::start().await;
    server.apply(BASE).await;
    let more = "kind: Host\nname: ext\nspec: { kind: external, underlay: [192.0.2.9] }\n---\nkind: Workload\nname: far\nspec: { host: ext, kind: vm, ports: [{ name: eth0, network: blue, addresses: [10.0.1.50] }] }\n";
    let revision = server.apply(more).await;
    let realised = server.get(&format!("/v1/revisions/{revision}/realized")).await.json();
    let told: Vec<&str> =
        realised["hosts"].as_array().unwrap().iter().map(|host| host["host"].as_str().unwrap()).collect();
    assert_eq!(told, ["host-a"], "there is nobody on ext to wait for");
    let token = server.join_token(&mgmt_types::NewJoinToken::default()).await;
    let refused = server.join_with(&token, "ext", None).await.unwrap_err().to_string();
    assert!(refused.contains("the host is declared as external"), "{refused}");
    let known = host(&server, "ext").await;
    let report = known.status.unwrap();
    assert_eq!((report.kind, report.connected, report.ports), (HostKind::External, false, 1));
    let far = server.get("/v1/workloads/far").await.json();
    assert_eq!(far["status"]["enforced"], "no", "nothing of ours stands before it");
    let host_a = host(&server, "host-a").await.status.unwrap();
    assert!(host_a.warnings[0].contains("no underlay address is known"), "{:?}", host_a.warnings);
}

#[tokio::test]
async fn a_host_shows_how_it_fares_with_each_peer() {
    let server = Server::start().await;
    server.apply("kind: Host\nname: host-b\n---\nkind: Host\nname: ext\nspec: { kind: external, underlay: [192.0.2.9] }\n").await;
    let agent = server.host("host-a").await;
    let peer =
        |host: &str, up| PeerStatus { host: host.into(), up, path_mtu: Some(1500), ..PeerStatus::default() };
    let peers = vec![peer("ext", None), peer("host-b", Some(false)), peer("stranger", Some(true))];
    agent.post_status(&HostStatus { peers, ..at("host-a", "192.0.2.1") }).await.unwrap();
    let report = host(&server, "host-a").await.status.unwrap();
    assert_eq!((report.peers, report.peers_up), (1, 0), "an external host is not probed");
    let paths: Vec<&str> = report.paths.iter().map(|path| path.host.as_str()).collect();
    assert_eq!(paths, ["ext", "host-b"]);
    let list = server.get("/v1/hosts").await.json();
    let first = &list["items"][1]["status"];
    assert_eq!((&first["peers"], first.get("paths")), (&1.into(), None), "a list has numbers only");
}

#[tokio::test]
async fn a_router_shows_its_networks_hosts_and_routes_to_nobody() {
    let server = Server::start().await;
    server.apply(BASE).await;
    server.apply("kind: Router\nname: shop\nspec: { routes: [{ to: 0.0.0.0/0, via: 10.0.1.11 }, { to: 192.0.2.0/24, via: 10.0.1.99 }] }\n").await;
    let router = server.get("/v1/routers/shop").await.json();
    assert_eq!(router["status"]["networks"][0], "blue");
    assert_eq!(router["status"]["hosts"][0], "host-a");
    let warnings = router["status"]["warnings"].as_array().unwrap();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert_eq!(warnings[0], "the route to 192.0.2.0/24 leads nowhere: no port has 10.0.1.99");
    server.apply("kind: Router\nname: alone\n").await;
    let alone = server.get("/v1/routers/alone").await.json();
    assert_eq!(alone["status"]["warnings"][0], "no network hangs on it");
    assert_eq!(server.send("DELETE", "/v1/routers/shop", &[], "").await.status, 200);
    assert_eq!(server.get("/v1/networks/blue").await.json()["spec"]["router"], "shop", "the name stays");
}
