//! The errors of values of `boot:`.

/// Why a value of `boot:`, or of the same option of `rootfs-boot`, is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadValue {
    /// Not a directory for a tmpfs: not an absolute path other than `/`, or a size that
    /// is not one above 0.
    #[error("{0:?} is not a tmpfs; write /PATH, /PATH:SIZE, or none")]
    Tmpfs(String),
    /// Not a port, or a pair of ports, from 1 to 65535.
    #[error("{0:?} publishes no port; write HOST:GUEST or PORT, each 1 to 65535")]
    Publish(String),
    /// A port of another protocol than TCP, or of one address of the host only.
    #[error("{0:?} cannot be published: only TCP ports of all addresses can; write HOST:GUEST")]
    PublishKind(String),
    /// Not 1 to 64 letters, digits, hyphens, dots and underscores.
    #[error("{0:?} is not a host name: 1 to 64 letters, digits, hyphens, dots and underscores")]
    Hostname(String),
    /// Not a line of /etc/hosts: a name and an IP address.
    #[error("{0:?} is not a host and its address; write NAME:IP")]
    HostEntry(String),
    /// docker's special address `host-gateway`, which a machine does not have.
    #[error("host-gateway is not known here: no gateway leads from a machine to its host")]
    HostGateway,
    /// A name server that is not an IP address.
    #[error("{0:?} is not an IP address")]
    Dns(String),
    /// Not a user: more than two parts, a number above 4294967294, or a control
    /// character.
    #[error("{0:?} is not a user; write USER[:GROUP], names or numbers up to 4294967294")]
    User(String),
    /// A path of the guest that does not begin with `/`, or holds a NUL.
    #[error("the path {0:?} is not absolute")]
    Relative(String),
    /// The name of an environment variable that is empty, or holds `=` or a NUL.
    #[error("{0:?} is not the name of a variable: a name is not empty and has no =")]
    Variable(String),
    /// An argument or the value of a variable that holds a NUL.
    #[error("a NUL byte in {0:?}")]
    Nul(String),
    /// An entrypoint whose first word, the program, is empty.
    #[error("the entrypoint begins with an empty name")]
    EmptyProgram,
    /// Neither the name nor the number of a signal from 1 to 64.
    #[error("{0:?} is not a signal; write SIGTERM, TERM, RTMIN+3 or 15")]
    Signal(String),
    /// More processors than [`MAX_CPUS`].
    #[error("{0} processors; a machine has {MAX_CPUS} at most")]
    Cpus(u8),
    /// Not a duration above zero.
    #[error("{0:?} is not a duration above 0; write seconds, or 10s, 1m30s, 500ms")]
    Duration(String),
    /// Memory, in bytes, that is too little for the guest's kernel.
    #[error(
        "{0} bytes of memory; a machine needs at least 80 MiB, most of it for the guest's kernel"
    )]
    LittleMemory(u64),
    /// Memory, in bytes, whose MiB do not fit into 32 bits.
    #[error("{0} bytes of memory are more than a machine can have")]
    MuchMemory(u64),
}

/// The most processors of a machine. The table of processors of an x86 machine without ACPI
/// has one byte for the ID of each, and 255 means all of them.
pub const MAX_CPUS: u8 = 254;
