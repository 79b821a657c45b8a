//! Which registries are spoken to without TLS.
//!
//! Those that the user names, and those on loopback that do not speak TLS: docker and podman
//! accept these, too, and what is sent there does not leave the machine. Whether a registry
//! on loopback speaks TLS is found out by a handshake that is begun and dropped. So a
//! certificate that is not trusted stays an error, and no login is sent before that is known.

use std::collections::HashSet;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use reqwest::Url;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

/// How a registry is connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Connection {
    pub scheme: &'static str,
    /// On loopback and without TLS, the only addresses to connect to, without a proxy.
    pub only: Option<Vec<SocketAddr>>,
}

const HTTPS: Connection = Connection { scheme: "https", only: None };
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the first byte of an answer to a handshake may take, on this very machine.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How to connect to the registry `host`, `HOST[:PORT]`. `insecure` are the registries that
/// the user wants to be spoken to without TLS.
///
/// # Errors
/// When several servers on loopback answer without TLS, and are not known to be one user's.
pub(super) fn connection(host: &str, insecure: &[String]) -> Result<Connection> {
    if insecure.iter().any(|insecure| insecure == host) {
        return Ok(Connection { scheme: "http", only: None });
    }
    match loopback(host) {
        Some((url, addresses)) => to(&url, addresses).with_context(|| host.to_owned()),
        None => Ok(HTTPS),
    }
}

/// How to connect to the registry `url`, whose `addresses` are all on loopback.
///
/// Any user of this machine may listen on an address that the registry leaves free. So each
/// address is asked, and if one answers by TLS, TLS is used.
fn to(url: &Url, addresses: Vec<SocketAddr>) -> Result<Connection> {
    let mut plain = Vec::new();
    for address in &addresses {
        match ask(url, address) {
            HelloAnswer::Tls => return Ok(HTTPS),
            HelloAnswer::Other => plain.push(*address),
            HelloAnswer::None => {}
        }
    }
    // The addresses that were asked have the port of HTTPS; plain HTTP has another one.
    if plain.is_empty() && url.port().is_none() {
        plain = addresses.into_iter().map(|a| SocketAddr::new(a.ip(), 80)).collect();
        plain.retain(|address| TcpStream::connect_timeout(address, CONNECT_TIMEOUT).is_ok());
    }
    if plain.is_empty() {
        return Ok(HTTPS);
    }
    of_one_user(&plain)?;
    Ok(Connection { scheme: "http", only: Some(plain) })
}

/// Refuses `servers` that are not known to be one user's.
fn of_one_user(servers: &[SocketAddr]) -> Result<()> {
    /// The most bytes of a table of connections.
    const MAX_TABLE: u64 = 64 << 20;
    let [_, _, ..] = servers else {
        return Ok(());
    };
    let mut table = String::new();
    for path in ["/proc/net/tcp", "/proc/net/tcp6"] {
        // If it cannot be read, no listener is known, and the servers are refused.
        let _ = File::open(path).and_then(|f| f.take(MAX_TABLE).read_to_string(&mut table));
    }
    let known: Vec<Vec<u32>> = servers.iter().map(|server| listeners(&table, *server)).collect();
    let user = known[0].first();
    let is_one = known
        .iter()
        .all(|users| !users.is_empty() && users.iter().all(|listening| Some(listening) == user));
    let shown: Vec<String> = servers.iter().map(SocketAddr::to_string).collect();
    ensure!(
        is_one,
        "servers without TLS listen on {} of this machine, and they are not known to be of one user: \
         name the registry by that address of these which is its own",
        shown.join(" and ")
    );
    Ok(())
}

/// The users who listen on `address`, by the kernel's `table` of connections
/// (`/proc/net/tcp`).
fn listeners(table: &str, address: SocketAddr) -> Vec<u32> {
    const LISTEN: &str = "0A";
    let user = |line: &str| -> Option<u32> {
        let mut fields = line.split_whitespace();
        let (ip, port) = fields.nth(1)?.split_once(':')?;
        let is_listening = fields.nth(1)? == LISTEN;
        let user = fields.nth(3)?.parse().ok()?;
        let ip = table_ip(ip)?;
        let is_there = match ip {
            _ if ip.to_canonical() == address.ip() => true,
            IpAddr::V4(ip) => ip.is_unspecified() && address.is_ipv4(),
            // A socket on `::` mostly gets connections over IPv4 as well.
            IpAddr::V6(ip) => ip.is_unspecified(),
        };
        let port = u16::from_str_radix(port, 16).ok()?;
        (is_listening && is_there && port == address.port()).then_some(user)
    };
    table.lines().filter_map(user).collect()
}

/// Parses an address as the kernel's tables have it: words in the machine's byte order, in hex.
fn table_ip(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| -> Option<[u8; 4]> {
        Some(u32::from_str_radix(hex.get(at..at + 8)?, 16).ok()?.to_ne_bytes())
    };
    match hex.len() {
        8 => Some(word(0)?.into()),
        32 => {
            let mut bytes = [0; 16];
            for (i, four) in bytes.chunks_exact_mut(4).enumerate() {
                four.copy_from_slice(&word(8 * i)?);
            }
            Some(bytes.into())
        }
        _ => None,
    }
}

/// The URL and the addresses of `host`, if all of these are on loopback.
fn loopback(host: &str) -> Option<(Url, Vec<SocketAddr>)> {
    let url: Url = format!("https://{host}/").parse().ok()?;
    let name = url.host_str()?;
    let port = url.port_or_known_default()?;
    let addresses: Vec<SocketAddr> = match ip(&url) {
        Some(ip) => vec![SocketAddr::new(ip, port)],
        None if name == "localhost" || name.ends_with(".localhost") => {
            let mut known = HashSet::new();
            (name, port).to_socket_addrs().ok()?.filter(|address| known.insert(*address)).collect()
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
enum HelloAnswer {
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

fn ask(url: &Url, address: &SocketAddr) -> HelloAnswer {
    let Ok(mut stream) = TcpStream::connect_timeout(address, CONNECT_TIMEOUT) else {
        return HelloAnswer::None;
    };
    let mut first = [0];
    let answered = hello(url).and_then(|hello| {
        stream.set_read_timeout(Some(ANSWER_TIMEOUT)).ok()?;
        // A server may close the connection before all is sent, having answered or not.
        let _ = stream.write_all(&hello);
        Some(stream.read(&mut first))
    });
    match answered {
        None => HelloAnswer::Tls,
        Some(Ok(0)) => HelloAnswer::Other,
        Some(Ok(_)) if matches!(first[0], ALERT | HANDSHAKE) => HelloAnswer::Tls,
        Some(Ok(_)) => HelloAnswer::Other,
        Some(Err(error)) => match error.kind() {
            std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => HelloAnswer::Tls,
            _ => HelloAnswer::Other,
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

/// Whether a login may be sent to the token server `realm` without TLS, for a `registry` that
/// is itself spoken to without: on this machine, or where the user allowed that.
pub(super) fn may_have_login(realm: &Url, registry: &Url, insecure: &[String]) -> bool {
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
            assert_eq!(connection(&host, &[]).unwrap().scheme, scheme, "{}", answer.escape_ascii());
            assert_eq!(server.join().unwrap(), HANDSHAKE);
        }
        let named = ["127.0.0.1:1".to_owned()];
        assert_eq!(connection("127.0.0.1:1", &[]).unwrap(), HTTPS);
        assert_eq!(connection("127.0.0.1:1", &named).unwrap().scheme, "http");
    }

    /// A server on `ip` that answers one client by `answer`.
    fn server(ip: &str, port: u16, answer: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind((ip, port)).unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(answer);
            }
        });
        address
    }

    #[test]
    fn every_address_of_a_name_is_asked() {
        crate::tls::choose_tls();
        let url: Url = "https://localhost:1/".parse().unwrap();
        let other = b"HTTP/1.0 400 Bad Request\r\n\r\n";
        let tls = b"\x15\x03\x01\0\x02\x02\x28";
        let plain = server("127.0.0.2", 0, other);
        let beside = |ip: &str| SocketAddr::new(ip.parse().unwrap(), plain.port());
        // Who answers first, or at all, is not the one who is meant.
        let secure = server("127.0.0.3", plain.port(), tls);
        assert_eq!(to(&url, vec![plain, secure]).unwrap(), HTTPS);
        assert_eq!(to(&url, vec![secure, plain]).unwrap(), HTTPS);
        // Nobody else gets what is for the one that was asked.
        let silent = beside("127.0.0.4");
        let only = to(&url, vec![silent, plain]).unwrap().only;
        assert_eq!(only, Some(vec![plain]));
        assert_eq!(to(&url, vec![silent]).unwrap(), HTTPS);
        // Two servers of one user are one.
        let second = server("127.0.0.5", plain.port(), other);
        assert_eq!(to(&url, vec![plain, second]).unwrap().only, Some(vec![plain, second]));
    }

    #[test]
    fn a_listener_has_a_user() {
        let text = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n\
               0: 0100007F:1388 00000000:0000 0A 00000000:00000000 00:00000000 00000000     7        0 5\n\
               1: 0100007F:1388 0100007F:9999 01 00000000:00000000 00:00000000 00000000     8        0 6\n\
               2: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 7\n\
               3: 00000000000000000000000001000000:1388 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000  1000 0 8\n\
               4: 00000000000000000000000000000000:0051 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000  5 0 9\n\
               5: odd\n";
        for (address, users) in [
            ("127.0.0.1:5000", vec![7]),
            ("[::1]:5000", vec![1000]),
            ("127.0.0.2:5000", vec![]),
            // Whoever listens on all addresses listens on this one.
            ("127.0.0.1:80", vec![0]),
            ("127.0.0.1:81", vec![5]),
            ("[::1]:80", vec![]),
        ] {
            assert_eq!(listeners(text, address.parse().unwrap()), users, "{address}");
        }
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
