//! Requests that did not succeed: the message for people, and whether another try may help.

use std::error::Error as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::anyhow;
use reqwest::Response;
use reqwest::header::{HeaderMap, RETRY_AFTER};

/// The wait before the second try. It doubles with each further one.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// A server that wants to be left alone for longer is not asked again.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Tries after the first.
pub(super) const RETRIES: u32 = 5;

/// Tries after the first where no connection could be made: a server that is not there is
/// unlikely to appear.
const CONNECT_RETRIES: u32 = 2;

/// The most bytes that are read of an answer without success, for the message in it.
const MAX_TEXT: usize = 64 << 10;
/// How long reading them may take.
const TEXT_TIME: Duration = Duration::from_secs(10);

/// A request that did not succeed.
#[derive(Debug)]
pub(super) struct Failure {
    pub error: anyhow::Error,
    /// How often it is worth another try.
    pub retries: u32,
    /// How long the server wants to be left alone.
    after: Option<Duration>,
}

impl Failure {
    pub(super) fn new(error: anyhow::Error, retries: u32) -> Self {
        Self { error, retries, after: None }
    }

    /// A failure for which no further try helps.
    pub(super) fn fatal(error: anyhow::Error) -> Self {
        Self::new(error, 0)
    }

    /// The failure of a request that got no answer from `who`.
    pub(super) fn silence(who: &str, error: &reqwest::Error) -> Self {
        // The last cause says most; the first would show a URL, which may have
        // secrets in it.
        let mut last = error.source();
        while let Some(next) = last.and_then(|error| error.source()) {
            last = Some(next);
        }
        let cause = match last {
            Some(cause) => format!(": {cause}"),
            None if error.is_timeout() => ": it takes too long".to_owned(),
            None => String::new(),
        };
        let hint = if cause.contains("ertificate") || cause.contains("UnknownIssuer") {
            " (--ca-cert FILE trusts a private authority)"
        } else if cause.contains("corrupt message") || cause.contains("InvalidContentType") {
            " (if it speaks plain HTTP, --insecure-registry allows that)"
        } else {
            ""
        };
        let retries = match error.is_connect() {
            _ if error.is_redirect() || error.is_builder() => 0,
            true if !hint.is_empty() => 0,
            true => CONNECT_RETRIES,
            false => RETRIES,
        };
        Self::new(anyhow!("{who}: there is no answer{cause}{hint}"), retries)
    }

    /// The failure of a request to `who`, by nothing but the status of the answer.
    pub(super) fn answer(who: &str, answer: &Answer) -> Self {
        let code = answer.code;
        let error = anyhow!("{who}: it answers {code}");
        match answer.after {
            Some(after) if after > LONGEST_WAIT => {
                let seconds = after.as_secs();
                Self::fatal(anyhow!("{error}, and wants to be left alone for {seconds} s"))
            }
            after => {
                let retries = if matches!(code, 408 | 429 | 500..=599) { RETRIES } else { 0 };
                Self { after, ..Self::new(error, retries) }
            }
        }
    }

    /// Adds what the server itself said.
    pub(super) fn quoting(mut self, answer: &Answer) -> Self {
        if let Some(message) = &answer.message {
            self.error = anyhow!("{} ({})", self.error, message.escape_debug());
        }
        self
    }

    /// Waits before the next try, when `tries` were made after the first.
    pub(super) fn wait(&self, tries: u32) {
        let usual = FIRST_WAIT * 2u32.saturating_pow(tries.min(RETRIES));
        std::thread::sleep(self.after.unwrap_or_default().max(usual));
    }
}

/// Repeats `ask` until it succeeds, or fails in a way that no further try helps.
pub(super) fn tried<T>(ask: impl Fn() -> Result<T, Failure>) -> anyhow::Result<T> {
    let mut tries = 0;
    loop {
        match ask() {
            Ok(done) => return Ok(done),
            Err(failure) if tries >= failure.retries => return Err(failure.error),
            Err(failure) => failure.wait(tries),
        }
        tries += 1;
    }
}

/// An answer without success.
pub(super) struct Answer {
    pub code: u16,
    /// The registry's own message.
    message: Option<String>,
    after: Option<Duration>,
    /// The beginning of its body.
    pub text: Vec<u8>,
}

impl Answer {
    pub(super) async fn read(mut response: Response) -> Self {
        let (code, after) = (response.status().as_u16(), retry_after(response.headers()));
        let mut text = Vec::new();
        let read = async {
            while text.len() < MAX_TEXT
                && let Ok(Some(chunk)) = response.chunk().await
            {
                text.extend_from_slice(&chunk);
            }
        };
        // What came before the timeout is enough for a message.
        let _ = tokio::time::timeout(TEXT_TIME, read).await;
        let value = crate::foreign_json::from_slice::<serde_json::Value>(&text).unwrap_or_default();
        let message = value["errors"][0]["message"].as_str().filter(|text| !text.is_empty());
        Self { code, message: message.map(str::to_owned), after, text }
    }
}

/// How long the server wants to be left alone, by its header Retry-After: a number of
/// seconds, or a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let text = format!("{}+0000", text.strip_suffix("GMT")?);
    let at = jiff::Timestamp::strptime("%a, %d %b %Y %H:%M:%S %z", text).ok()?.as_second();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
    Some(Duration::from_secs(u64::try_from(at).ok()?.saturating_sub(now)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_say_in_two_ways_how_long_to_wait() {
        let of =
            |text: &str| retry_after(&HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]));
        assert_eq!(of("7"), Some(Duration::from_secs(7)));
        assert_eq!(of("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        assert!(of("Tue, 31 Dec 2199 23:59:59 GMT") > Some(Duration::from_secs(1 << 30)));
        assert_eq!((of("soon"), of("-1")), (None, None));
    }
}
