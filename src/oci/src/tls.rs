//! The choice of the code that does the cryptography of TLS, one for the whole process.

/// Installs the crypto provider of rustls. Building an HTTP client needs one, even a client
/// for a Unix socket.
pub(crate) fn choose_tls() {
    // A second call fails because the first one's provider, the same, is installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
