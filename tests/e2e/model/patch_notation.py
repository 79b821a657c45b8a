"""How patches write modes, capabilities, globs and paths, and what that means.

Wrong is raised for what must be an error of the build, Unclear for what the rules leave open (so that no case tests
it).
"""

import re
import struct

NS = 1_000_000_000
CAPS = (
    'chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap linux_immutable net_bind_service '
    'net_broadcast net_admin net_raw ipc_lock ipc_owner sys_module sys_rawio sys_chroot sys_ptrace sys_pacct '
    'sys_admin sys_boot sys_nice sys_resource sys_time sys_tty_config mknod lease audit_write audit_control setfcap '
    'mac_override mac_admin syslog wake_alarm block_suspend audit_read perfmon bpf checkpoint_restore'
).split()
XATTRS = re.compile(r'(user|trusted|security)\..+|system\.posix_acl_(access|default)')
MAGIC = re.compile(rb'[*?\[{]')


class Wrong(Exception):
    """The build must fail at this patch."""


class Unclear(Exception):
    """Nothing is written about what this does."""


def parts(path):
    return [c for c in path.split(b'/') if c not in (b'', b'.')]


def raw(text):
    return text if isinstance(text, bytes) else text.encode()


WHO = {'u': 0o4700, 'g': 0o2070, 'o': 0o1007, 'a': 0o7777}
BITS = {'r': 0o444, 'w': 0o222, 'x': 0o111, 's': 0o6000, 't': 0o1000}


def mode_of(text, old, is_dir):
    """As GNU chmod: on a directory, setuid and setgid stay unless a clause names them;
    octal is exact (there GNU differs)."""
    text = str(text)
    if re.fullmatch('[0-7]{1,4}', text):
        return int(text, 8)
    new = old
    for clause in text.split(','):
        m = re.fullmatch('([ugoa]*)((?:[-+=](?:[rwxXst]*|[ugo]))+)', clause)
        if not m:
            raise Wrong('the mode ' + text)
        affected = 0
        for c in m[1]:
            affected |= WHO[c]
        for op, what in re.findall('([-+=])([ugo]|[rwxXst]*)', m[2]):
            if what in ('u', 'g', 'o'):
                same = new & WHO[what] & 0o777
                value = sum(b for b in (0o444, 0o222, 0o111) if same & b)
                mentioned = WHO[what] & 0o777
            else:
                value = 0
                for c in what.replace('X', ''):
                    value |= BITS[c]
                mentioned = value
                if 'X' in what and (is_dir or new & 0o111):
                    value |= 0o111
            mentioned = affected & mentioned if affected else mentioned
            omit = 0o6000 & ~mentioned if is_dir else 0
            value &= (affected or 0o7777) & ~omit
            if op == '=':
                new = new & ((0o7777 & ~affected if affected else 0) | omit) | value
            else:
                new = new | value if op == '+' else new & ~value
    return new


def caps_of(text):
    """cap_from_text(3), as an xattr of revision 2."""
    sets = {'e': 0, 'i': 0, 'p': 0}
    every = (1 << len(CAPS)) - 1
    for clause in text.split():
        m = re.fullmatch(r'([a-z_,]*)((?:[-+=][eip]*)+)', clause)
        if not m or (not m[1] and m[2][0] != '='):
            raise Wrong('the capabilities ' + text)
        mask = 0
        for name in m[1].split(',') if m[1] else ['all']:
            if name != 'all' and name.removeprefix('cap_') not in CAPS:
                raise Wrong('the capability ' + name)
            mask |= every if name == 'all' else 1 << CAPS.index(name.removeprefix('cap_'))
        for op, flags in re.findall('([-+=])([eip]*)', m[2]):
            for flag in sets:
                if op == '=' or (op == '-' and flag in flags):
                    sets[flag] &= ~mask
                if op != '-' and flag in flags:
                    sets[flag] |= mask
    p, i, e = sets['p'], sets['i'], sets['e']
    if e and e != p | i:
        raise Unclear('a file has one bit for all effective capabilities')
    return struct.pack('<5I', 0x02000000 | bool(e), p & 0xFFFFFFFF, i & 0xFFFFFFFF, p >> 32, i >> 32)


def braces(glob):
    m = re.search(r'\{([^{}/]*)\}', glob)
    return [g for one in m[1].split(',') for g in braces(glob[: m.start()] + one + glob[m.end() :])] if m else [glob]


def fits(glob, name):
    """One component. What counts as one character of a name that is not ASCII is left open."""
    expr = ''
    for piece in re.findall(r'\[!?\]?[^\]]*\]|.', glob, re.S):
        special = {'*': '.*', '?': '.'}.get(piece)
        expr += special or (
            '[' + ('^' + piece[2:] if piece[1] == '!' else piece[1:])
            if piece[0] == '[' and len(piece) > 2
            else re.escape(piece)
        )
    as_bytes = bool(re.fullmatch(expr.encode().decode('latin-1'), name.decode('latin-1'), re.S))
    if (
        any(c > 127 for c in name)
        and re.search(r'[?\[]', glob)
        and as_bytes != bool(re.fullmatch(expr, name.decode('utf-8', 'surrogateescape'), re.S))
    ):
        raise Unclear('a character that is several bytes')
    return as_bytes


def excluded(globs, path):
    """`path` lies below what is copied: a glob without a slash is for the name, one with a slash for the path."""
    for glob in (g for one in globs for g in braces(one)):
        if '/' not in glob:
            if fits(glob, path[-1]):
                return True
            continue
        todo = [(glob.split('/'), list(path))]
        while todo:
            g, p = todo.pop()
            if not g and not p:
                return True
            if g and g[0] == '**':
                todo.append((g[1:], p))
                if p:
                    todo.append((g, p[1:]))
            elif g and p and fits(g[0], p[0]):
                todo.append((g[1:], p[1:]))
    return False
