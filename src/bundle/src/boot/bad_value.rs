//! Why a value of `boot:` is refused.

/// A text that does not mean what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadValue {
    #[error("{0:?} is not a tmpfs; write /PATH, /PATH:SIZE, or none")]
    Tmpfs(String),
    #[error("{0:?} publishes no port; write HOST:GUEST or PORT, each 1 to 65535")]
    Publish(String),
    #[error("{0:?} cannot be published: only TCP ports of all addresses can; write HOST:GUEST")]
    PublishKind(String),
    #[error("{0:?} is not a host name: 1 to 64 letters, digits, hyphens and dots")]
    Hostname(String),
    #[error("{0:?} is not a host and its address; write NAME:IP")]
    HostEntry(String),
    #[error("host-gateway is not known here: no gateway leads from a machine to its host")]
    HostGateway,
    #[error("{0:?} is not an IP address")]
    Dns(String),
    #[error("{0:?} is not a user; write USER[:GROUP], names or numbers up to 4294967294")]
    User(String),
    #[error("the path {0:?} is not absolute")]
    Relative(String),
    #[error("{0:?} is not the name of a variable: it is not empty and holds no =")]
    Variable(String),
    #[error("a NUL byte in {0:?}")]
    Nul(String),
    #[error("the entrypoint begins with an empty name")]
    EmptyProgram,
    #[error("{0:?} is not a signal; write SIGTERM, TERM, RTMIN+3 or 15")]
    Signal(String),
    #[error("{0} processors; a machine has {MAX_CPUS} at most")]
    Cpus(u8),
    #[error("{0:?} is not a duration above 0; write seconds, or 10s, 1m30s, 500ms")]
    Duration(String),
    #[error(
        "{0} bytes of memory; a machine needs at least 80 MiB, most of it for the guest's kernel"
    )]
    LittleMemory(u64),
    #[error("{0} bytes of memory are more than a machine can have")]
    MuchMemory(u64),
}

/// Processors that the table of an x86 machine without ACPI has room for, whose IDs are
/// a byte of which 255 means all.
pub const MAX_CPUS: u8 = 254;
