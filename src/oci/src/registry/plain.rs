//! Which registries are spoken to without TLS.
//!
//! Those that the user names, and those on loopback that do not speak TLS: docker
//! and podman take these, too, and nobody but this machine hears what is said
//! there. Whether a registry on loopback speaks TLS is found out by a handshake
//! that is begun and dropped. So a certificate that is not trusted stays an error,
//! and no login is sent before it is clear how.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

/// How a registry is connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    pub scheme: &'static str,
    /// On loopback and without TLS: the only addresses to connect to, and no proxy.
    pub only: Option<Vec<SocketAddr>>,
}

const HTTPS: Connection = Connection { scheme: "https", only: None };
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// For the first byte of an answer to a handshake, on this very machine.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How to connect to the registry `host`, `HOST[:PORT]`; `insecure` are those that
/// the user named.
pub fn connection(host: &str, insecure: &[String]) -> Connection {
    if insecure.iter().any(|insecure| insecure == host) {
        return Connection { scheme: "http", only: None };
    }
    let Some((url, addresses)) = loopback(host) else {
        return HTTPS;
    };
    match (ask(&url, &addresses), url.port()) {
        (Answer::Other, _) => Connection { scheme: "http", only: Some(addresses) },
        // Without a port, each scheme has one of its own.
        (Answer::None, None) => {
            let plain = addresses.into_iter().map(|a| SocketAddr::new(a.ip(), 80)).collect();
            Connection { scheme: "http", only: Some(plain) }
        }
        _ => HTTPS,
    }
}

/// The addresses of `host`, if it is on loopback with all of them.
fn loopback(host: &str) -> Option<(Url, Vec<SocketAddr>)> {
    let url: Url = format!("https://{host}/").parse().ok()?;
    let name = url.host_str()?;
    let port = url.port_or_known_default()?;
    let addresses: Vec<SocketAddr> = match ip(&url) {
        Some(ip) => vec![SocketAddr::new(ip, port)],
        None if name == "localhost" || name.ends_with(".localhost") => {
            (name, port).to_socket_addrs().ok()?.collect()
        }
        None => return None,
    };
    let all = !addresses.is_empty() && addresses.iter().all(|address| address.ip().is_loopback());
    all.then_some((url, addresses))
}

fn ip(url: &Url) -> Option<IpAddr> {
    url.host_str()?.trim_matches(['[', ']']).parse().ok()
}

/// How a server answers the beginning of a handshake.
enum Answer {
    /// By TLS, or not in time.
    Tls,
    /// By something else, or by closing the connection.
    Other,
    /// Nobody is there.
    None,
}

/// Types of records by which TLS answers (RFC 8446, 5.1).
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;

fn ask(url: &Url, addresses: &[SocketAddr]) -> Answer {
    let connected =
        addresses.iter().find_map(|a| TcpStream::connect_timeout(a, CONNECT_TIMEOUT).ok());
    let Some(mut stream) = connected else {
        return Answer::None;
    };
    let mut first = [0];
    let answered = hello(url).and_then(|hello| {
        stream.set_read_timeout(Some(ANSWER_TIMEOUT)).ok()?;
        // Whoever closes at once may do so before all is sent.
        let _ = stream.write_all(&hello);
        Some(stream.read(&mut first))
    });
    match answered {
        None => Answer::Tls,
        Some(Ok(0)) => Answer::Other,
        Some(Ok(_)) if matches!(first[0], ALERT | HANDSHAKE) => Answer::Tls,
        Some(Ok(_)) => Answer::Other,
        Some(Err(error)) => match error.kind() {
            std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => Answer::Tls,
            _ => Answer::Other,
        },
    }
}

/// The first message of a TLS client.
fn hello(url: &Url) -> Option<Vec<u8>> {
    let config = ClientConfig::builder()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = match ip(url) {
        Some(ip) => ServerName::from(ip),
        None => ServerName::try_from(url.host_str()?.to_owned()).ok()?,
    };
    let mut hello = Vec::new();
    let mut client = ClientConnection::new(Arc::new(config), name).ok()?;
    client.write_tls(&mut hello).ok()?;
    Some(hello)
}

/// Whether a login may be sent to `realm` without TLS, for a registry that is
/// itself spoken to without: on this machine, or where the user allowed that.
pub fn may_have_login(realm: &Url, registry: &Url, insecure: &[String]) -> bool {
    let Some(host) = realm.host_str() else {
        return false;
    };
    let own = ip(realm).map_or(host == "localhost", |ip| ip.is_loopback());
    let named = |url: &Url| {
        let host = url.host_str().unwrap_or_default();
        let with_port = url.port_or_known_default().map(|port| format!("{host}:{port}"));
        insecure.iter().any(|name| name == host || Some(name) == with_port.as_ref())
    };
    own || named(realm) || (registry.host_str() == Some(host) && named(registry))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn only_names_of_this_machine_are_on_loopback() {
        let is = |host: &str| loopback(host).is_some();
        for host in ["127.0.0.1:5000", "127.9.9.9", "[::1]:5000", "[::1]", "localhost:5000"] {
            assert!(is(host), "{host}");
        }
        for host in [
            "10.0.0.1:5000",
            "[fe80::1]:5000",
            "0.0.0.0:5000",
            "example.com",
            "localhost.example.com",
            "notlocalhost",
            "127.0.0.1.example.com",
        ] {
            assert!(!is(host), "{host}");
        }
    }

    #[test]
    fn a_server_that_answers_by_tls_is_not_spoken_to_without() {
        for (answer, scheme) in [
            // A handshake's first record; an alert; what HTTP servers say; silence.
            (&b"\x16\x03\x03\0\x7a"[..], "https"),
            (b"\x15\x03\x01\0\x02\x02\x28", "https"),
            (b"HTTP/1.0 400 Bad Request\r\n\r\n", "http"),
            (b"", "http"),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let host = listener.local_addr().unwrap().to_string();
            let server = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut hello = [0; 4096];
                assert!(stream.read(&mut hello).unwrap() > 5);
                stream.write_all(answer).unwrap();
                hello[0]
            });
            crate::tls::choose_tls();
            assert_eq!(connection(&host, &[]).scheme, scheme, "{}", answer.escape_ascii());
            assert_eq!(server.join().unwrap(), HANDSHAKE);
        }
        let named = ["127.0.0.1:1".to_owned()];
        assert_eq!(connection("127.0.0.1:1", &[]), HTTPS);
        assert_eq!(connection("127.0.0.1:1", &named).scheme, "http");
    }

    #[test]
    fn a_login_goes_without_tls_only_where_that_is_meant() {
        let may = |realm: &str, registry: &str, insecure: &[&str]| {
            let insecure: Vec<_> = insecure.iter().map(|host| (*host).to_owned()).collect();
            may_have_login(&realm.parse().unwrap(), &registry.parse().unwrap(), &insecure)
        };
        let local = "http://127.0.0.1:5000/v2/";
        assert!(may("http://127.0.0.1:5001/token", local, &[]));
        assert!(may("http://[::1]/token", local, &[]));
        assert!(may("http://localhost:1/token", local, &[]));
        assert!(!may("http://auth.example/token", local, &[]));
        assert!(!may("http://127.0.0.1.example/token", local, &[]));
        let lan = "http://registry.lan:5000/v2/";
        assert!(may("http://registry.lan:5001/token", lan, &["registry.lan:5000"]));
        assert!(may("http://auth.lan/token", lan, &["registry.lan:5000", "auth.lan"]));
        assert!(may("http://auth.lan/token", lan, &["registry.lan:5000", "auth.lan:80"]));
        assert!(!may("http://auth.lan/token", lan, &["registry.lan:5000"]));
    }
}
