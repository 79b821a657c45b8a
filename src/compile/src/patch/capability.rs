//! File capabilities from the text that setcap takes.
//!
//! The grammar is cap_from_text(3)'s; the bytes are `struct vfs_cap_data`
//! revision 2 of `linux/capability.h`: le32 revision and effective bit, then
//! permitted and inheritable sets, low halves first.

use anyhow::{Result, anyhow, ensure};

const NAMES: [&str; 41] = [
    "cap_chown",
    "cap_dac_override",
    "cap_dac_read_search",
    "cap_fowner",
    "cap_fsetid",
    "cap_kill",
    "cap_setgid",
    "cap_setuid",
    "cap_setpcap",
    "cap_linux_immutable",
    "cap_net_bind_service",
    "cap_net_broadcast",
    "cap_net_admin",
    "cap_net_raw",
    "cap_ipc_lock",
    "cap_ipc_owner",
    "cap_sys_module",
    "cap_sys_rawio",
    "cap_sys_chroot",
    "cap_sys_ptrace",
    "cap_sys_pacct",
    "cap_sys_admin",
    "cap_sys_boot",
    "cap_sys_nice",
    "cap_sys_resource",
    "cap_sys_time",
    "cap_sys_tty_config",
    "cap_mknod",
    "cap_lease",
    "cap_audit_write",
    "cap_audit_control",
    "cap_setfcap",
    "cap_mac_override",
    "cap_mac_admin",
    "cap_syslog",
    "cap_wake_alarm",
    "cap_block_suspend",
    "cap_audit_read",
    "cap_perfmon",
    "cap_bpf",
    "cap_checkpoint_restore",
];

const ALL: u64 = (1 << NAMES.len()) - 1;

/// `VFS_CAP_REVISION_2`
const REVISION: u32 = 0x0200_0000;

#[derive(Default)]
struct Sets {
    effective: u64,
    inheritable: u64,
    permitted: u64,
}

/// The xattr value of capabilities such as `cap_net_raw,cap_net_admin+ep`.
pub(super) fn parse(text: &str) -> Result<Vec<u8>> {
    let mut sets = Sets::default();
    let mut clauses = 0;
    for part in text.split_ascii_whitespace() {
        clause(part, &mut sets).ok_or_else(|| {
            anyhow!("{part:?} are not capabilities; write them as setcap does: cap_net_raw+ep")
        })?;
        clauses += 1;
    }
    ensure!(clauses > 0, "no capabilities; to take them away, remove the xattr");
    let held = sets.permitted | sets.inheritable;
    let all_or_none = sets.effective == 0 || held & !sets.effective == 0;
    ensure!(all_or_none, "{text:?}: a file's capabilities are effective all together or not");
    let mut value = (REVISION | u32::from(sets.effective != 0)).to_le_bytes().to_vec();
    for shift in [0, 32] {
        for set in [sets.permitted, sets.inheritable] {
            value.extend_from_slice(&((set >> shift) as u32).to_le_bytes());
        }
    }
    Ok(value)
}

fn clause(text: &str, sets: &mut Sets) -> Option<()> {
    let operators = ['=', '+', '-'];
    let at = text.find(operators)?;
    let (list, mut rest) = text.split_at(at);
    let which = match list {
        "" if rest.starts_with('=') => ALL,
        "" => return None,
        _ => list.split(',').try_fold(0, |all, name| Some(all | bits(name)?))?,
    };
    while let Some(operator) = rest.chars().next() {
        let flags = &rest[1..];
        let end = flags.find(operators).unwrap_or(flags.len());
        let (flags, behind) = flags.split_at(end);
        rest = behind;
        if flags.is_empty() && operator != '=' {
            return None;
        }
        if operator == '=' {
            for set in [&mut sets.effective, &mut sets.inheritable, &mut sets.permitted] {
                *set &= !which;
            }
        }
        for flag in flags.chars() {
            let set = match flag {
                'e' => &mut sets.effective,
                'i' => &mut sets.inheritable,
                'p' => &mut sets.permitted,
                _ => return None,
            };
            *set = if operator == '-' { *set & !which } else { *set | which };
        }
    }
    Some(())
}

fn bits(name: &str) -> Option<u64> {
    let name = name.to_ascii_lowercase();
    if name == "all" {
        return Some(ALL);
    }
    NAMES.iter().position(|known| *known == name).map(|bit| 1 << bit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> String {
        parse(text).unwrap().iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn the_bytes_are_setcaps() {
        // What getfattr -e hex shows after setcap of libcap 2.66 with the same text.
        for (text, expected) in [
            ("cap_net_raw+ep", "0100000200200000000000000000000000000000"),
            ("cap_net_raw,cap_net_bind_service=p", "0000000200240000000000000000000000000000"),
            ("CAP_CHOWN,cap_bpf=eip", "0100000201000000010000008000000080000000"),
            ("cap_setuid+ei cap_kill+ei", "0100000200000000a00000000000000000000000"),
            ("all=ep cap_sys_admin-ep", "01000002ffffdfff00000000ff01000000000000"),
            ("=ep", "01000002ffffffff00000000ff01000000000000"),
        ] {
            assert_eq!(hex(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_capability_is_an_error() {
        for bad in
            ["", "cap_net_raw", "net_raw+ep", "cap_net_raw+x", "cap_net_raw+", "+ep", "cap_a,+p"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(parse("cap_chown+ep cap_kill+p").unwrap_err().to_string().contains("all together"));
    }
}
