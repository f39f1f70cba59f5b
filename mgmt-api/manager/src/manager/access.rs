//! Users and their tokens.

use std::time::SystemTime;

use mgmt_types::{Mistake, NewToken, NewUser, Problem, ProblemKind, Role, TokenSecret, User, name};

use super::{Manager, Request, internal};
use crate::records::Records;
use crate::store::StoreError;
use crate::time::{self, DAY};
use crate::token::{self, StoredToken, StoredUser};

/// Most users, and most tokens: bounds what a leaked admin token can fill.
const MOST: usize = 1000;
/// Longest life of a token that has an end, in seconds.
const LONGEST: u64 = 3650 * DAY;

impl Manager {
    /// Makes a user without tokens.
    pub(crate) fn add_user(&self, request: &Request, wish: &NewUser) -> Result<User, Problem> {
        self.change(request, 201, |records, audit| {
            let user = new_user(records, &wish.name, wish.role, &audit.time)?;
            audit.detail = Some(format!("user {} with role {}", user.name, user.role));
            let change = records.users.change(&user.name, Some(&user)).map_err(|error| internal(&error))?;
            Ok((vec![change], token::described(records, &user)))
        })
    }

    /// Gives a user another role.
    pub(crate) fn change_user(&self, request: &Request, name: &str, role: Role) -> Result<User, Problem> {
        check_role(role)?;
        self.change(request, 200, |records, audit| {
            let before = known_user(records, name)?;
            let user = StoredUser { role, ..(*before).clone() };
            if role != Role::Admin {
                let stays =
                    |token: &StoredToken, owner: &StoredUser| owner.name != name && token.user != name;
                check_admins(records, stays)?;
            }
            audit.detail = Some(format!("user {name} with role {role}, before {}", before.role));
            let change = records.users.change(name, Some(&user)).map_err(|error| internal(&error))?;
            Ok((vec![change], token::described(records, &user)))
        })
    }

    /// Withdraws a user with all tokens, at once.
    pub(crate) fn remove_user(&self, request: &Request, name: &str) -> Result<(), Problem> {
        self.change(request, 200, |records, audit| {
            let user = known_user(records, name)?;
            check_admins(records, |token, _| token.user != name)?;
            audit.detail = Some(format!("user {name} with role {}", user.role));
            let mut changes = vec![records.users.change(name, None)];
            for (key, token) in records.tokens.all() {
                if token.user == name {
                    changes.push(records.tokens.change(&key, None));
                }
            }
            let changes: Result<_, StoreError> = changes.into_iter().collect();
            Ok((changes.map_err(|error| internal(&error))?, ()))
        })
    }

    /// Makes a token; its secret is known only to the caller from here on.
    pub(crate) fn add_token(
        &self,
        request: &Request,
        wish: &NewToken,
        secret: &str,
        now: SystemTime,
    ) -> Result<TokenSecret, Problem> {
        check_name(&wish.name)?;
        let now = time::seconds(now);
        if let Some(life) = wish.expires_in.filter(|life| !(1..=LONGEST).contains(life)) {
            let expected = format!("1 to {LONGEST} seconds, or none for ever");
            return Err(invalid(
                "expiresIn",
                &life.to_string(),
                &expected,
                "a token lives at most ten years",
            ));
        }
        let expires = wish.expires_in.map(|life| now.saturating_add(life));
        self.change(request, 201, |records, audit| {
            if records.tokens.get(&wish.name).is_some() {
                let expected = "a name no token has; delete that one first";
                return Err(invalid("name", &wish.name, expected, "there is a token of this name"));
            }
            check_room(records.tokens.count(|_| true), "tokens")?;
            let (user, fresh) = owner(records, wish, &audit.time)?;
            let stored = StoredToken {
                name: wish.name.clone(),
                user: user.name.clone(),
                role: None,
                created: audit.time.clone(),
                expires,
                hash: token::hash(secret),
            };
            audit.detail = Some(format!("token {} of user {} with role {}", wish.name, user.name, user.role));
            let mut changes =
                vec![records.tokens.change(&wish.name, Some(&stored)).map_err(|error| internal(&error))?];
            if fresh {
                changes
                    .push(records.users.change(&user.name, Some(&user)).map_err(|error| internal(&error))?);
            }
            let secret = TokenSecret {
                name: wish.name.clone(),
                user: user.name,
                role: user.role,
                expires: expires.map(time::rfc3339),
                secret: secret.to_owned(),
            };
            Ok((changes, secret))
        })
    }

    /// Withdraws a token, at once. A user that has none left stays.
    pub(crate) fn remove_token(&self, request: &Request, name: &str) -> Result<(), Problem> {
        self.change(request, 200, |records, audit| {
            let Some(token) = records.tokens.get(name) else {
                return Err(Problem::new(ProblemKind::NotFound, format!("there is no token {name:?}")));
            };
            check_admins(records, |token, _| token.name != name)?;
            audit.detail = Some(format!("token {name} of user {}", token.user));
            let change = records.tokens.change(name, None).map_err(|error| internal(&error))?;
            Ok((vec![change], ()))
        })
    }

    /// Makes users of what a version before users left: tokens with a role. Those of agents go: hosts have certificates.
    pub(super) fn fold_tokens(&self) -> Result<(), StoreError> {
        let old = |token: &StoredToken| token.user.is_empty();
        if self.records.tokens.find(old).is_none() {
            return Ok(());
        }
        let request =
            Request { caller: None, peer: None, action: "make users of tokens with a role".to_owned() };
        let audit = self.entry(&request, 200);
        let mut changes = Vec::new();
        for (key, token) in self.records.tokens.all() {
            match token.role.filter(|_| old(&token)) {
                Some(Role::Agent) => changes.push(self.records.tokens.change(&key, None)?),
                Some(role) => {
                    let user = StoredUser { name: token.name.clone(), role, created: token.created.clone() };
                    changes.push(self.records.users.change(&user.name, Some(&user))?);
                    let token = StoredToken { user: user.name, role: None, ..(*token).clone() };
                    changes.push(self.records.tokens.change(&key, Some(&token))?);
                }
                None => {}
            }
        }
        self.store.change_records(&changes, &audit)?;
        self.take(&changes)
    }
}

/// Whose the token will be, and whether that user is made with it.
fn owner(records: &Records, wish: &NewToken, time: &str) -> Result<(StoredUser, bool), Problem> {
    match (&wish.user, wish.role) {
        (Some(user), None) => Ok(((*known_user(records, user)?).clone(), false)),
        (None, Some(role)) => match records.users.get(&wish.name) {
            Some(user) if user.role == role => Ok(((*user).clone(), false)),
            Some(user) => {
                let expected = format!("{}, the role of user {}", user.role, user.name);
                Err(invalid("role", role.as_str(), &expected, "there is a user of this name"))
            }
            None => Ok((new_user(records, &wish.name, role, time)?, true)),
        },
        (user, role) => {
            let got = format!(
                "user {}, role {}",
                user.as_deref().unwrap_or("none"),
                role.map_or("none", Role::as_str)
            );
            Err(invalid("user", &got, "either of both", "a token is of a user, or makes one of its name"))
        }
    }
}

fn new_user(records: &Records, name: &str, role: Role, time: &str) -> Result<StoredUser, Problem> {
    check_name(name)?;
    check_role(role)?;
    if records.users.get(name).is_some() {
        return Err(invalid("name", name, "a name no user has", "there is a user of this name"));
    }
    check_room(records.users.count(|_| true), "users")?;
    Ok(StoredUser { name: name.to_owned(), role, created: time.to_owned() })
}

fn known_user(records: &Records, name: &str) -> Result<std::sync::Arc<StoredUser>, Problem> {
    let unknown = || Problem::new(ProblemKind::NotFound, format!("there is no user {name:?}"));
    records.users.get(name).ok_or_else(unknown)
}

/// Somebody has to be able to do everything, for ever: an admin with a token that has no end.
fn check_admins(records: &Records, stays: impl Fn(&StoredToken, &StoredUser) -> bool) -> Result<(), Problem> {
    let rules = |token: &StoredToken| {
        let user = records.users.get(&token.user)?;
        (token.expires.is_none() && user.role == Role::Admin).then_some(user)
    };
    let before = records.tokens.count(|token| rules(token).is_some());
    let after = records.tokens.count(|token| rules(token).is_some_and(|user| stays(token, &user)));
    if before > 0 && after == 0 {
        let detail = "it is the last token of role admin without an end; make another first";
        return Err(Problem::new(ProblemKind::InUse, detail));
    }
    Ok(())
}

fn check_room(count: usize, what: &str) -> Result<(), Problem> {
    if count < MOST {
        return Ok(());
    }
    Err(Problem::new(ProblemKind::Invalid, format!("there are {MOST} {what}; delete some first")))
}

fn check_name(name: &str) -> Result<(), Problem> {
    name::check(name)
        .map_err(|error| invalid("name", name, "letters a-z, digits and '-'", &format!("the name {error}")))
}

fn check_role(role: Role) -> Result<(), Problem> {
    if role != Role::Agent {
        return Ok(());
    }
    let reason = "hosts are known by their certificates: see `palisade join`";
    Err(invalid("role", role.as_str(), "admin, operator or viewer", reason))
}

fn invalid(field: &str, got: &str, expected: &str, reason: &str) -> Problem {
    Problem::of(ProblemKind::Invalid, vec![Mistake::new(field, got, expected).detail(reason)])
}
