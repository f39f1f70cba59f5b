//! Who is let in: users, tokens, join tokens, authorities.

use http::Method;
use mgmt_types::{
    Authority, AuthorityList, JoinToken, JoinTokenList, JoinTokenSecret, NewJoinToken, NewToken, NewUser,
    Role, TokenInfo, TokenList, TokenSecret, User, UserChange, UserList,
};

use crate::Error;
use crate::client::{Client, encoded};

impl Client {
    /// All users.
    ///
    /// # Errors
    /// When the manager cannot be reached or refuses.
    pub async fn users(&self) -> Result<Vec<User>, Error> {
        let list: UserList = self.read("/v1/users").await?;
        Ok(list.items)
    }

    /// Makes a user, without tokens.
    ///
    /// # Errors
    /// When the manager cannot be reached or refuses, or there is one of that name.
    pub async fn create_user(&self, name: &str, role: Role) -> Result<User, Error> {
        self.write(Method::POST, "/v1/users", &NewUser { name: name.to_owned(), role }).await
    }

    /// Gives a user another role.
    ///
    /// # Errors
    /// When the manager cannot be reached or refuses, or there is none of that name.
    pub async fn change_user(&self, name: &str, role: Role) -> Result<User, Error> {
        self.write(Method::PUT, &format!("/v1/users/{}", encoded(name)), &UserChange { role }).await
    }

    /// Deletes a user with all its tokens.
    ///
    /// # Errors
    /// When the manager cannot be reached or refuses, or there is none of that name.
    pub async fn delete_user(&self, name: &str) -> Result<(), Error> {
        self.remove(&format!("/v1/users/{}", encoded(name))).await
    }

    /// All tokens, without their secrets.
    ///
    /// # Errors
    /// When the manager cannot be reached or refuses.
    pub async fn tokens(&self) -> Result<Vec<TokenInfo>, Error> {
        let list: TokenList = self.read("/v1/tokens").await?;
        Ok(list.items)
    }

    /// Makes a token for ever, and the user of its name; its secret is in the answer and nowhere else.
    ///
    /// # Errors
    /// When the manager cannot be reached or refuses, or there is one of that name.
    pub async fn create_token(&self, name: &str, role: Role) -> Result<TokenSecret, Error> {
        let wish = NewToken { name: name.to_owned(), role: Some(role), ..NewToken::default() };
        self.create_token_as(&wish).await
    }

    /// Makes a token; its secret is in the answer and nowhere else.
    ///
    /// # Errors
    /// When the manager cannot be reached or refuses, or there is one of that name.
    pub async fn create_token_as(&self, wish: &NewToken) -> Result<TokenSecret, Error> {
        self.write(Method::POST, "/v1/tokens", wish).await
    }

    /// Deletes a token: who holds it is no longer let in.
    ///
    /// # Errors
    /// When the manager cannot be reached or refuses, or there is none of that name.
    pub async fn delete_token(&self, name: &str) -> Result<(), Error> {
        self.remove(&format!("/v1/tokens/{}", encoded(name))).await
    }

    /// All join tokens, without their secrets.
    ///
    /// # Errors
    /// When the manager cannot be reached or refuses.
    pub async fn join_tokens(&self) -> Result<Vec<JoinToken>, Error> {
        let list: JoinTokenList = self.read("/v1/join-tokens").await?;
        Ok(list.items)
    }

    /// Makes a join token; its secret is in the answer and nowhere else.
    ///
    /// # Errors
    /// When the manager cannot be reached or refuses, or there is one of that name.
    pub async fn create_join_token(&self, wish: &NewJoinToken) -> Result<JoinTokenSecret, Error> {
        self.write(Method::POST, "/v1/join-tokens", wish).await
    }

    /// Revokes a join token: nobody joins with it any more.
    ///
    /// # Errors
    /// When the manager cannot be reached or refuses, or there is none of that name.
    pub async fn revoke_join_token(&self, name: &str) -> Result<(), Error> {
        self.remove(&format!("/v1/join-tokens/{}", encoded(name))).await
    }

    /// The authorities that are trusted, oldest first.
    ///
    /// # Errors
    /// When the manager cannot be reached or refuses.
    pub async fn authorities(&self) -> Result<Vec<Authority>, Error> {
        let list: AuthorityList = self.read("/v1/authorities").await?;
        Ok(list.items)
    }

    /// Makes a new authority beside those there are; all of them.
    ///
    /// # Errors
    /// When the manager cannot be reached or refuses.
    pub async fn rotate_authority(&self) -> Result<Vec<Authority>, Error> {
        let request = self.request(Method::POST, "/v1/authorities", None)?;
        let list: AuthorityList = self.json(request).await?;
        Ok(list.items)
    }

    /// Trusts an authority no more; with `force` also when hosts need it.
    ///
    /// # Errors
    /// When the manager cannot be reached or refuses, or there is none of that fingerprint.
    pub async fn retire_authority(&self, fingerprint: &str, force: bool) -> Result<(), Error> {
        self.remove(&format!("/v1/authorities/{}?force={force}", encoded(fingerprint))).await
    }

    async fn remove(&self, path: &str) -> Result<(), Error> {
        let request = self.request(Method::DELETE, path, None)?;
        self.bytes(request).await.map(drop)
    }
}
