//! The one choice of who does TLS.

/// Says once which code does TLS: whoever makes a client needs that, even if it
/// will speak to a socket.
pub(crate) fn choose_tls() {
    // A second call finds the first one's choice, which is the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
