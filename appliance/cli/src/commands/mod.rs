//! What can be done: one module for each command.

pub(crate) mod agent;
pub(crate) mod apply;
pub(crate) mod audit;
pub(crate) mod authority;
pub(crate) mod backup;
pub(crate) mod completions;
pub(crate) mod delete;
pub(crate) mod describe;
pub(crate) mod firewall;
pub(crate) mod flows;
pub(crate) mod get;
pub(crate) mod hosts;
pub(crate) mod join;
pub(crate) mod join_token;
pub(crate) mod manager;
pub(crate) mod managers;
pub(crate) mod mesh;
pub(crate) mod port;
pub(crate) mod token;
pub(crate) mod trace;
pub(crate) mod up;
pub(crate) mod user;
pub(crate) mod version;
pub(crate) mod watch;
pub(crate) mod why;

use std::future::Future;

use tokio::runtime::Builder;

use crate::args::Command;
use crate::failure::Failure;

/// Does what was typed.
pub(crate) fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Up(args) => in_service(up::run(args)),
        Command::Manager(args) => in_service(manager::run(args)),
        Command::Agent(args) => in_service(agent::run(args)),
        Command::Join(args) => in_service(join::run(args)),
        Command::Apply(args) => once(apply::run(args)),
        Command::Get(args) => once(get::run(args)),
        Command::Hosts(args) => once(hosts::run(args)),
        Command::Describe(args) => once(describe::run(args)),
        Command::Delete(args) => once(delete::run(args)),
        Command::Watch(args) => once(watch::run(args)),
        Command::Trace(args) => once(trace::run(args)),
        Command::Why(args) => once(why::run(args)),
        Command::Flows(args) => once(flows::run(args)),
        Command::Port(command) => once(port::run(command)),
        Command::User(command) => once(user::run(command)),
        Command::Managers(args) => once(managers::run(args)),
        Command::Token(command) => once(token::run(command)),
        Command::JoinToken(command) => once(join_token::run(command)),
        Command::Authority(command) => once(authority::run(command)),
        Command::Audit(args) => once(audit::run(args)),
        Command::Backup(args) => once(backup::backup(args)),
        Command::Restore(args) => once(backup::restore(args)),
        Command::Completions(args) => completions::run(&args),
        Command::Version(args) => version::run(&args),
    }
}

/// Runs a client command: one thread is enough.
fn once(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    block_on(&mut Builder::new_current_thread(), work)
}

/// Runs a manager: two threads, since the CPUs are the workers'.
fn in_service(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    block_on(Builder::new_multi_thread().worker_threads(2), work)
}

fn block_on(builder: &mut Builder, work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = builder.enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(format!("no threads can be started: {error}")))?;
    runtime.block_on(work)
}
