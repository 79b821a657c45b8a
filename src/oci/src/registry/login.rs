//! Logins: answers a registry's challenge, by a password or by a token of a token server.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http_auth::{ChallengeRef, parse_challenges};
use reqwest::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Client, Url};
use serde::Deserialize;

use super::failure::{Answer, Failure};

/// The most bytes of a token server's answer.
const MAX_ANSWER: usize = 1 << 20;

/// Who the user is to a registry.
#[derive(PartialEq, Eq)]
pub(super) enum Login {
    Anonymous,
    Password {
        name: String,
        password: String,
    },
    /// What a token server gave earlier, in place of name and password.
    IdentityToken(String),
}

/// What a registry asks for with the status 401.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer { realm: Url, service: Option<String> },
}

impl Challenge {
    /// The challenge in `headers`; `None` if there is none of a known scheme.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let values = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|v| v.to_str().ok());
        let mut basic = None;
        for value in values {
            for challenge in parse_challenges(value).unwrap_or_default() {
                if challenge.scheme.eq_ignore_ascii_case("bearer") {
                    let realm = param(&challenge, "realm").and_then(|realm| realm.parse().ok());
                    if let Some(realm) = realm {
                        return Some(Self::Bearer { realm, service: param(&challenge, "service") });
                    }
                } else if challenge.scheme.eq_ignore_ascii_case("basic") {
                    basic = Some(Self::Basic);
                }
            }
        }
        basic
    }
}

fn param(challenge: &ChallengeRef<'_>, name: &str) -> Option<String> {
    let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name))?;
    Some(found.1.to_unescaped())
}

/// Why a challenge was not answered.
pub(super) enum Refusal {
    /// The login was refused, or is not of the kind that the registry asks for.
    Denied,
    Failed(Failure),
}

impl Login {
    /// The value of the header Authorization that answers `challenge`. A token server is
    /// asked for a token with the actions of `scope`. `who` is the registry in errors.
    ///
    /// Unless the user is anonymous, `http` must not follow redirects: the body of a POST,
    /// which holds the identity token, would be sent again to wherever the server's answer
    /// leads.
    pub(super) async fn answer(
        &self,
        challenge: &Challenge,
        scope: &str,
        who: &str,
        http: &Client,
    ) -> Result<HeaderValue, Refusal> {
        let text = match (challenge, self) {
            (Challenge::Basic, Self::Password { name, password }) => basic(name, password),
            (Challenge::Basic, _) => return Err(Refusal::Denied),
            (Challenge::Bearer { realm, service }, _) => {
                let token = self.token(realm, service.as_deref(), scope, who, http).await?;
                format!("Bearer {token}")
            }
        };
        header(&text).ok_or_else(|| failed(who, "its token is not a valid header value"))
    }

    async fn token(
        &self,
        realm: &Url,
        service: Option<&str>,
        scope: &str,
        who: &str,
        http: &Client,
    ) -> Result<String, Refusal> {
        #[derive(Deserialize)]
        struct Given {
            token: Option<String>,
            access_token: Option<String>,
        }

        let fields = [("service", service), ("scope", Some(scope))];
        let fields = fields.into_iter().filter_map(|(key, value)| Some((key, value?)));
        let request = match self {
            Self::Anonymous | Self::Password { .. } => {
                let mut url = realm.clone();
                url.query_pairs_mut().extend_pairs(fields);
                let request = http.get(url);
                match self {
                    Self::Password { name, password } => request.basic_auth(name, Some(password)),
                    _ => request,
                }
            }
            Self::IdentityToken(token) => {
                let known = [
                    ("grant_type", "refresh_token"),
                    ("client_id", env!("CARGO_PKG_NAME")),
                    ("refresh_token", token),
                ];
                http.post(realm.clone()).form(&known.into_iter().chain(fields).collect::<Vec<_>>())
            }
        };
        let who = format!("{who}: its token server");
        let silent = |error: reqwest::Error| Refusal::Failed(Failure::silence(&who, &error));
        let mut response = request.send().await.map_err(silent)?;
        match response.status().as_u16() {
            200..=299 => {}
            300..=399 => {
                return Err(failed(&who, "it redirects to elsewhere, where no login is sent"));
            }
            401 | 403 => return Err(Refusal::Denied),
            _ => {
                let answer = Answer::read(response).await;
                return Err(Refusal::Failed(Failure::answer(&who, &answer).quoting(&answer)));
            }
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(silent)? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > MAX_ANSWER {
                let what = format!("its answer has more than {MAX_ANSWER} bytes");
                return Err(failed(&who, &what));
            }
        }
        let given = crate::foreign_json::from_slice::<Given>(&bytes).ok();
        let tokens = given.into_iter().flat_map(|given| [given.token, given.access_token]);
        let mut tokens = tokens.flatten().filter(|token| !token.is_empty());
        tokens.next().ok_or_else(|| failed(&who, "it gives no token"))
    }

    /// The token server to which answering `challenge` would send the login without TLS.
    pub(super) fn exposed_by<'c>(&self, challenge: &'c Challenge) -> Option<&'c Url> {
        match challenge {
            Challenge::Bearer { realm, .. } if *self != Self::Anonymous => {
                (realm.scheme() != "https").then_some(realm)
            }
            _ => None,
        }
    }
}

fn failed(who: &str, what: &str) -> Refusal {
    Refusal::Failed(Failure::fatal(anyhow::anyhow!("{who}: {what}")))
}

fn basic(name: &str, password: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{name}:{password}")))
}

fn header(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for text in values {
            headers.append(WWW_AUTHENTICATE, text.parse().unwrap());
        }
        Challenge::of(&headers)
    }

    fn bearer(realm: &str, service: Option<&str>) -> Option<Challenge> {
        let service = service.map(str::to_owned);
        Some(Challenge::Bearer { realm: realm.parse().unwrap(), service })
    }

    #[test]
    fn a_token_is_asked_for_where_the_registry_says() {
        let realm = "https://auth.example/token";
        assert_eq!(
            of(&[r#"Bearer realm="https://auth.example/token",service="a \"b\"",scope="x""#]),
            bearer(realm, Some(r#"a "b""#))
        );
        assert_eq!(of(&[r#"bEaReR Realm="https://auth.example/token""#]), bearer(realm, None));
    }

    #[test]
    fn a_token_is_better_than_a_password() {
        let realm = "https://auth.example/token";
        let text = r#"Bearer realm="https://auth.example/token""#;
        assert_eq!(of(&[r#"Basic realm="x""#, text]), bearer(realm, None));
        assert_eq!(of(&[&format!(r#"Basic realm="x", {text}"#)]), bearer(realm, None));
        assert_eq!(of(&[r#"Basic realm="x""#]), Some(Challenge::Basic));
    }

    #[test]
    fn what_is_not_known_is_no_challenge() {
        for text in
            ["", "Negotiate", "Bearer", r#"Bearer realm="no url""#, "Bearer realm=\"", "=,="]
        {
            assert_eq!(of(&[text]), None, "{text}");
        }
        assert_eq!(of(&[]), None);
    }
}
