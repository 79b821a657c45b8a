//! Numbers of the system calls, from the kernel's tables of the two architectures.

/// A row for each call: its name, its number on x86-64, its number on aarch64.
macro_rules! calls {
    ($($name:ident $x86_64:literal $aarch64:literal;)*) => {
        $(pub const $name: usize = if cfg!(target_arch = "x86_64") { $x86_64 } else { $aarch64 };)*

        #[cfg(test)]
        const ALL: &[(&str, usize, usize)] = &[$((stringify!($name), $x86_64, $aarch64)),*];
    };
}

calls! {
    CHDIR          80   49;
    CLOCK_GETTIME  228  113;
    CLONE          56   220;
    CLOSE          3    57;
    DUP3           292  24;
    EXECVE         59   221;
    EXIT_GROUP     231  94;
    FACCESSAT      269  48;
    FCHMOD         91   52;
    FCHMODAT       268  53;
    FCHOWN         93   55;
    FCHOWNAT       260  54;
    FCNTL          72   25;
    GETDENTS64     217  61;
    IOCTL          16   29;
    KILL           62   129;
    MADVISE        28   233;
    MKDIRAT        258  34;
    MMAP           9    222;
    MOUNT          165  40;
    MOVE_MOUNT     429  429;
    OPENAT         257  56;
    OPEN_TREE      428  428;
    PIPE2          293  59;
    PIVOT_ROOT     155  41;
    PPOLL          271  73;
    PREAD64        17   67;
    PRLIMIT64      302  261;
    READ           0    63;
    READAHEAD      187  213;
    READLINKAT     267  78;
    REBOOT         169  142;
    RT_SIGPROCMASK 14   135;
    SETGID         106  144;
    SETGROUPS      116  159;
    SETHOSTNAME    170  161;
    SETSID         112  157;
    SETUID         105  146;
    SIGNALFD4      289  74;
    SOCKET         41   198;
    STATX          332  291;
    SYMLINKAT      266  36;
    SYNC           162  81;
    UMOUNT2        166  39;
    UNSHARE        272  97;
    WAIT4          61   260;
    WRITE          1    64;
}

#[cfg(test)]
mod tests {
    use syscalls::{aarch64, x86_64};

    use super::*;

    #[test]
    fn numbers_are_those_of_the_kernels_tables() {
        for (name, on_x86_64, on_aarch64) in ALL {
            let name = name.to_lowercase();
            let known = x86_64::Sysno::new(*on_x86_64).map(|call| call.name());
            assert_eq!(known, Some(&name[..]), "{on_x86_64} on x86-64");
            let known = aarch64::Sysno::new(*on_aarch64).map(|call| call.name());
            assert_eq!(known, Some(&name[..]), "{on_aarch64} on aarch64");
        }
    }
}
