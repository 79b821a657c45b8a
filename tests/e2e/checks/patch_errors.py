"""Patches that must fail: each has an error of its own that says where it is in the manifest, and nothing is made."""

import os
import re
import shutil

from checks import check
from harness.common import TOP, Failed, build, call, need, need_no_leftovers, scratch
from harness.plain_tools import DIR

# What lies beside the manifest.
HOST = r"""
umask 022; mkdir -p h/tree/sub h/clash/motd h/clash2 h/sockets h/loop
echo f >h/file; echo x >h/tree/sub/x; : >h/clash/motd/x; : >h/clash2/cache
python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("h/sockets/s")'
head -c 700 /dev/urandom >h/noise; echo one >h/one; tar -cf h/good.tar -C h one; head -c 514 h/good.tar >h/cut.tar
ln h/one h/two; tar -cf h/links.tar -C h one two; tar --delete -f h/links.tar one; rm h/two
tar -cf h/up.tar -P --transform s,^h/one,../../one, h/one
printf -- '--- a/etc/motd\n+++ b/etc/motd\n@@ -1 +1 @@\n-not what is there\n+new\n' >h/stale.patch
printf -- '- include: cycle2.yaml\n' >h/cycle1.yaml; printf -- '- include: cycle1.yaml\n' >h/cycle2.yaml
printf -- '- include: self.yaml\n' >h/self.yaml
printf -- '# a comment\n- remove: { path: /included }\n' >h/fails.yaml
printf -- '- mkdir: { path: /d }\n- make: { path: /d }\n' >h/wrong.yaml; printf -- 'a: b\n' >h/no-list.yaml
printf -- '- mkdir: { path: "/${NOWHERE}" }\n' >h/undefined.yaml
truncate -s 3M h/large; head -c 40000000 /dev/zero | tr '\0' x >h/larger
"""
EITHER = (1, 2)
AT = ':%d: '  # where the error is: the line of the last patch
ERRORS = []


def error(patches, code, *words, at=AT, head='', args=()):
    ERRORS.append((patches.strip('\n'), code, words, at, head, args))


# Content.
error('- write: { path: /etc, content: x }', 1, 'write /etc', 'directory')
error('- write: { path: /dev/null, content: x }', 1, 'write /dev/null')
error('- write: { path: /var/queue, content: x }', 1, 'write /var/queue')
error('- write: { path: /etc/none/x, content: x }', 1, 'write /etc/none/x', '/etc/none', 'parents: true')
error('- write: { path: /lib/none/deep/x, content: x }', 1, '/lib/none', 'parents: true')
error('- write: { path: /etc/motd/x, content: x, parents: true }', 1, 'write /etc/motd/x', 'not a directory')
error('- write: { path: /etc/x, from: h/nosuch }', 1, 'h/nosuch', 'o such file')
error('- write: { path: /etc/x, from: h/tree }', 1, 'h/tree', 'regular file')
error('- write: { path: /etc/x }', 2, 'content', 'from', at=':4:')
error('- write: { path: /etc/x, content: x, from: h/file }', 2, 'content', 'from', at=':4:')
error('- write: { path: etc/x, content: x }', EITHER, 'etc/x', at=':4:')
error('- write: { path: "", content: x }', EITHER, 'write', at=':4:')
error('- write: { path: /%s, content: x }' % ('n' * 256), EITHER, 'nnn', at=':4:')
error('- append: { path: /etc/none, content: x }', 1, 'append /etc/none', 'there is no ')
error('- append: { path: /etc, content: x }', 1, 'append /etc', 'directory')
error('- append: { path: /dev/null, content: x }', 1, 'append /dev/null')
error('- append: { path: /etc/motd }', 2, 'content', 'from', at=':4:')
error(
    '- symlink: { path: /dangling, target: none }\n- append: { path: /dangling, content: x }',
    1,
    'append /dangling',
    'there is no ',
)
error('- replace: { path: /etc/motd, find: no such words, with: x }', 1, 'replace /etc/motd', 'no such words')
error('- replace: { path: /etc/motd, find: kernel, with: x, count: 2 }', 1, 'replace /etc/motd', '2', '1')
error('- replace: { path: /etc/none, find: x, with: x }', 1, 'replace /etc/none', 'there is no ')
error('- replace: { path: /etc, find: x, with: x }', 1, 'replace /etc', 'directory')
error('- replace: { path: /etc/motd, find: "(", with: x }', 2, 'replace /etc/motd', 'unclosed group', at=':4:')
error('- diff: { from: h/stale.patch }', 1, 'diff /', '/etc/motd', 'hunk')
error(
    '- diff: { content: "--- a/etc/none\\n+++ b/etc/none\\n@@ -1 +1 @@\\n-a\\n+b\\n" }',
    1,
    'diff',
    '/etc/none',
    'there is no ',
)
error('- diff: { content: "--- /dev/null\\n+++ b/etc/motd\\n@@ -0,0 +1 @@\\n+b\\n" }', 1, 'diff', '/etc/motd')
error(
    '- diff: { content: "--- a/etc/passwd\\n+++ /dev/null\\n@@ -1 +0,0 @@\\n-root:x:0:0:root:/root:/bin/sh\\n" }',
    1,
    'diff',
    '/etc/passwd',
)
error('- diff: { content: "--- a/etc/motd\\n+++ b/etc/motd\\n@@ -1,3 +1 @@\\n-a\\n" }', EITHER, 'diff', at=':4:')
error('- diff: { content: "no diff at all\\n" }', EITHER, 'diff', at=':4:')
error(
    '- diff: { strip: 5, content: "--- a/etc/motd\\n+++ b/etc/motd\\n@@ -1 +1 @@\\n-a\\n+b\\n" }',
    EITHER,
    'strip',
    at=':4:',
)
error('- diff: { from: h/stale.patch, path: /none }', 1, 'diff /none')
error('- diff: { from: h/nosuch.patch }', 1, 'h/nosuch.patch', 'o such file')

# From the host.
error('- copy: { from: h/nosuch, path: /x }', 1, 'h/nosuch', 'o such file')
error('- copy: { from: h/file, path: /etc }', 1, 'copy /etc', 'directory')
error('- copy: { from: h/file, path: /etc/motd/ }', 1, 'copy /etc/motd', 'not a directory')
error('- copy: { from: h/tree, path: /etc/motd }', 1, 'copy /etc/motd', 'directory')
error('- copy: { from: h/file, path: /none/x }', 1, 'copy /none/x', '/none', 'parents: true')
error('- copy: { from: h/clash, path: /etc }', 1, 'copy /etc', '/etc/motd')
error('- copy: { from: h/clash2, path: /var }', 1, 'copy /var', '/var/cache')
error('- copy: { from: h/sockets, path: /s }', 1, 'copy /s', 'h/sockets/s', 'socket')
error('- copy: { from: h/tree, path: /x, exclude: ["[a"] }', EITHER, '[a', at=':4:')
error('- extract: { from: h/nosuch.tar }', 1, 'h/nosuch.tar', 'o such file')
error('- extract: { from: h/noise }', 1, 'extract /', 'h/noise')
error('- extract: { from: h/cut.tar }', 1, 'extract /', 'h/cut.tar')
error('- extract: { from: h/links.tar }', 1, 'extract /', 'two', 'one')
error('- extract: { from: h/up.tar }', 1, 'extract /', '..')
error('- extract: { from: h/good.tar, path: /etc/motd }', 1, 'extract /etc/motd', 'not a directory')

# Names.
error('- mkdir: { path: /etc }', 1, 'mkdir /etc', 'is there')
error('- mkdir: { path: / }', 1, 'mkdir /', 'is there')
error('- mkdir: { path: /etc/motd, parents: true }', 1, 'mkdir /etc/motd')
error('- mkdir: { path: /etc/motd/x/y, parents: true }', 1, 'mkdir /etc/motd/x/y', 'not a directory')
error('- mkdir: { path: /a/b/c }', 1, 'mkdir /a/b/c', 'parents: true')
error('- symlink: { path: /etc/motd, target: x }', 1, 'symlink /etc/motd', 'is there')
error('- symlink: { path: /etc, target: x, force: true }', 1, 'symlink /etc', 'directory')
error('- symlink: { path: /none/x, target: x }', 1, 'symlink /none/x', 'parents: true')
error('- symlink: { path: /x, target: "" }', EITHER, 'symlink', at=':4:')
error('- symlink: { path: /x, target: %s }' % ('n' * 4096), EITHER, 'symlink', at=':4:')
error('- link: { path: /etc/x, target: /etc/none }', 1, 'link /etc/x', '/etc/none', 'there is no ')
error('- link: { path: /etc/x, target: /var }', 1, 'link /etc/x', 'directory')
error('- link: { path: /etc/motd, target: /etc/group }', 1, 'link /etc/motd', 'is there')
error('- link: { path: /var, target: /etc/group, force: true }', 1, 'link /var', 'directory')
error('- remove: { path: /none }', 1, 'remove /none', 'missing: ok')
error('- remove: { path: /none/below }', 1, 'remove /none/below')
error('- remove: { path: /etc/motd/below }', 1, 'remove /etc/motd/below')
error('- remove: { path: /var/cache }', 1, 'remove /var/cache', 'recursive: true')
error('- remove: { path: /, recursive: true }', 1, 'remove /')
error('- remove: { path: /usr/../.., recursive: true }', 1, 'remove /usr/../..')
error('- remove: { path: "/etc/*.conf" }', 1, 'remove /etc/*.conf', 'nothing fits it')
error('- remove: { path: "/none/**/x" }', 1, 'remove /none/**/x', 'nothing fits it')
error('- remove: { path: "/etc/[a" }', EITHER, '/etc/[a', at=':4:')
error('- remove: { path: "/*" }', 1, 'remove /*', 'recursive: true')
error('- remove: { path: /etc/motd }\n- append: { path: /etc/motd, content: x }', 1, 'append /etc/motd', 'there is no ')
error('- rename: { from: /etc/none, path: /etc/x }', 1, 'rename /etc/none', 'there is no ')
error('- rename: { from: /etc/motd, path: /none/x }', 1, 'rename /etc/motd', '/none')
error('- rename: { from: /etc/motd, path: /etc/group }', 1, 'rename /etc/motd', '/etc/group', 'is there')
error('- rename: { from: /usr, path: /usr/share/usr }', 1, 'rename /usr', 'itself')
error('- rename: { from: /usr, path: /lib/usr }', 1, 'rename /usr', 'itself')
error('- rename: { from: /home, path: /var, force: true }', 1, 'rename /home', '/var', 'not empty')
error('- rename: { from: /etc/motd, path: /sys, force: true }', 1, 'rename /etc/motd', '/sys', 'directory')
error('- rename: { from: /sys, path: /etc/motd, force: true }', 1, 'rename /sys', '/etc/motd', 'directory')
error('- rename: { from: /, path: /x }', 1, 'rename /')
error(
    '- symlink: { path: /a, target: b }\n- symlink: { path: /b, target: a }\n- write: { path: /a/x, content: x }',
    1,
    'write /a/x',
    'symbolic links lead in a circle',
)
error(
    '- symlink: { path: /a, target: /a }\n- append: { path: /a, content: x }',
    1,
    'append /a',
    'symbolic links lead in a circle',
)
error(
    '- symlink: { path: /l1, target: etc }\n'
    + ''.join('- symlink: { path: /l%d, target: l%d }\n' % (i, i - 1) for i in range(2, 42))
    + '- append: { path: /l41/motd, content: x }',
    1,
    'append /l41/motd',
    'symbolic links',
)
error(
    '- symlink: { path: /self, target: self/x }\n- chmod: { path: /self, mode: "0644" }',
    1,
    'chmod /self',
    'symbolic links lead in a circle',
)
error('- mknod: { path: /etc/motd, kind: fifo }', 1, 'mknod /etc/motd', 'is there')
error('- mknod: { path: /c, kind: char, minor: 1 }', EITHER, 'major', at=':4:')
error('- mknod: { path: /b, kind: block, major: 1 }', EITHER, 'minor', at=':4:')
error('- mknod: { path: /x, kind: fifo, major: 1, minor: 1 }', EITHER, 'fifo', at=':4:')
error('- mknod: { path: /x, kind: char, major: 0, minor: 0 }', EITHER, 'whiteout', at=':4:')
error('- mknod: { path: /c, kind: char, major: 4096, minor: 0 }', EITHER, '4095', at=':4:')
error('- mknod: { path: /b, kind: block, major: 1, minor: 1048576 }', EITHER, '1048575', at=':4:')
error('- mknod: { path: /x, kind: socket }', 2, 'socket', at=':4:')
error('- mknod: { path: /none/x, kind: fifo }', 1, 'mknod /none/x', 'parents: true')

# Permissions, owners, xattrs.
error('- chmod: { path: /none, mode: "0644" }', 1, 'chmod /none', 'there is no /none')
error('- chmod: { path: "/etc/*.conf", mode: "0644" }', 1, 'chmod /etc/*.conf', 'nothing fits it')
error(
    '- symlink: { path: /dangling, target: none }\n- chmod: { path: /dangling, mode: "0644" }',
    1,
    'chmod /dangling',
    'there is no /none',
)
for mode in ('9', '07777', '0x1ff', 'rwxr-xr-x', 'u=q', 'u', '', '-1', 'u=rw x'):
    error('- chmod: { path: /etc, mode: "%s" }' % mode, 2, 'mode', at=':4:')
error('- chmod: { path: /etc, mode: 644 }', 2, 'quote', at=':4:')
error('- mkdir: { path: /x, mode: 0o755 }', 2, 'quote', at=':4:')
error('- chown: { path: /etc/motd, owner: nobody }', 1, 'chown /etc/motd', 'nobody', '/etc/passwd')
error('- chown: { path: /etc/motd, owner: "hello:wheel" }', 1, 'chown /etc/motd', 'wheel', '/etc/group')
error('- chown: { path: /etc/motd, owner: "12345:" }', 1, 'chown /etc/motd', '12345')
error('- chown: { path: /etc/motd, owner: "-1" }', 1, '"-1"', '/etc/passwd')
error('- copy: { from: /proc/version, path: /etc/x }', 1, '/proc/version', 'says that it is empty')
error('- chown: { path: /none, owner: root }', 1, 'chown /none', 'there is no /none')
error(
    '- remove: { path: /etc/passwd }\n- write: { path: /x, content: x, owner: hello }',
    1,
    'write /x',
    'hello',
    '/etc/passwd',
)
error('- copy: { from: h/tree, path: /t, owner: "app:app" }', 1, 'copy /t', 'app', '/etc/passwd')
for owner in ('a:b:c', '', ':', '4294967295', '99999999999', '0:4294967295'):
    error('- chown: { path: /etc/motd, owner: "%s" }' % owner, EITHER, 'owner', at=':4:')
error('- xattr: { path: /etc/motd, remove: [user.none] }', 1, 'xattr /etc/motd', 'user.none')
error('- xattr: { path: /none, set: { user.a: b } }', 1, 'xattr /none', 'there is no /none')
error('- xattr: { path: /dev/null, set: { user.a: b } }', 1, 'xattr /dev/null', 'user.a')
error('- xattr: { path: /var/queue, set: { user.a: b } }', 1, 'xattr /var/queue', 'user.a')
for name in (
    'trusted.overlay.opaque',
    'trusted.overlay.whiteout',
    'none.a',
    'user',
    'user.',
    'system.other',
    'u' * 300,
):
    error('- xattr: { path: /etc/motd, set: { %s: y } }' % name, EITHER, name[:40], at=':4:')
for caps in ('cap_none+ep', 'cap_net_raw', 'net raw', 'cap_net_raw+x', 'cap_net_raw=ep cap_kill=p'):
    error(
        '- xattr: { path: /lib/app/hello, set: { security.capability: "%s" } }' % caps,
        EITHER,
        caps.split('+')[0].split()[-1],
        at=':4:',
    )
error('- xattr: { path: /etc/motd, set: { user.a: "base64:?" } }', EITHER, 'base64', at=':4:')
error(
    '- xattr: { path: /etc/motd, set: { system.posix_acl_access: "base64:AAAA" } }',
    EITHER,
    'posix_acl_access',
    at=':4:',
)
error('- xattr: { path: /etc/motd }', EITHER, 'xattr', at=':4:')

# Accounts.
error('- user: { name: hello, uid: 2000 }', 1, 'user hello', 'hello', '/etc/passwd')
error('- user: { name: other, uid: 1000 }', 1, 'user other', '1000', 'hello')
error('- user: { name: other, group: wheel }', 1, 'user other', 'wheel', '/etc/group')
error('- user: { name: other, groups: [root, staff] }', 1, 'user other', 'staff', '/etc/group')
error('- user: { name: other, gid: 1000 }', 1, 'user other', '1000')
error('- user: { name: other, group: hello, gid: 5 }', EITHER, 'gid', at=':4:')
for name in ('a:b', '', 'a b', '-x', 'a\\nb'):
    error('- user: { name: "%s" }' % name, EITHER, 'user', at=':4:')
error('- user: { name: other, comment: "a:b" }', EITHER, 'a:b', at=':4:')
error('- user: { name: other, shell: "/bin/sh:x" }', EITHER, '/bin/sh:x', at=':4:')
error('- user: { name: other, home: relative }', EITHER, 'not absolute', at=':4:')
error('- user: { name: other, uid: 4294967295 }', EITHER, '4294967294', at=':4:')
error(
    '- append: { path: /etc/group, content: "other:x:7:\\n" }\n- user: { name: other }', 1, 'user other', '/etc/group'
)

# The manifest as text. What no patch has done is found before anything is opened.
error('- remove: { path: /etc/motd, recursively: true }', 2, 'recursively', at=r':4:\d+: ')
error('- erase: { path: /etc/motd }', 2, 'erase', at=r':4:\d+: ')
error('- remove: { recursive: true }', 2, 'path', at=r':4:\d+: ')
error('- remove: /etc/motd', 2, at=r':4:\d+: ')
error('- remove: { path: /a }\n  mkdir: { path: /b }', 2, at=r':[45]:\d+: ')
error('- mkdir: { path: /a }\n- {}', 2, at=r':5:\d+: ')
error('- remove: { path: /a, missing: maybe }', 2, 'maybe', at=r':4:\d+: ')
error('- mkdir: { path: /a, parents: perhaps }', 2, 'perhaps', at=r':4:\d+: ')
error('- replace: { path: /etc/motd, find: x, with: y, count: many }', 2, 'many', at=r':4:\d+: ')
error('- mkdir: { path: /a }\n- mkdir: { path: [/b }', 2, at=r':[56]:\d+: ')
error('- mkdir: { path: /a }\n- mkdir: { path: "/${NONE}" }', 2, 'NONE', at=':5:')
error('- mkdir: { path: "/${" }', 2, '${', at=':4:')
error('- mkdir: { path: "/${}" }', 2, 'variable', at=':4:')
error('- mkdir: { path: "/${A}" }', 2, 'variable', at='', head='vars: { A: "${B}", B: "${A}" }\n')
error('- mkdir: { path: "/a${A}" }', 2, 'UNUSED', at='', head='vars: { A: a }\n', args=['--set', 'UNUSED=x'])
error('- mkdir: { path: /a }', 2, 'NAME=VALUE', at='', args=['--set', 'NOVALUE'])
error('- include: h/self.yaml', 2, 'self.yaml', 'include each other', at='')
error('- include: h/cycle1.yaml', 2, 'cycle1.yaml', 'cycle2.yaml', 'include each other', at='')
error('- include: h/nosuch.yaml', EITHER, 'h/nosuch.yaml', 'o such file', at='')
error('- include: h/fails.yaml', 1, 'remove /included', at='fails.yaml:2: ')
error('- include: h/wrong.yaml', 2, 'make', at=r'wrong.yaml:2:\d+: ')
error('- include: h/no-list.yaml', 2, at=r'no-list.yaml:1:\d+: ')
error('- include: h/undefined.yaml', 2, 'NOWHERE', at='undefined.yaml:1:')


@check('patch-errors')
def errors():
    failed, seen = [], {}
    with scratch() as tmp:
        call('sh', '-euc', HOST, cwd=tmp)
        os.mkdir(os.path.join(tmp, 'tmp'))
        m, parent = os.path.join(tmp, 'm.yaml'), os.path.join(tmp, 'published')
        os.mkdir(parent)
        for patches, code, words, at, head, args in ERRORS:
            with open(m, 'w') as file:
                # What precedes the patches is three lines, whatever it is.
                file.write(
                    'image: oci:%s/testimages/hello:latest\n%splatform: linux/amd64\n%s\n'
                    % (TOP, head, 'patches:\n' + patches)
                )
            line = 4 + patches.count('\n- ') + head.count('\n')
            try:
                p = build(
                    m,
                    os.path.join(parent, 'bundle'),
                    *args,
                    cache=os.path.join(DIR, 'cache'),
                    ok=range(-64, 256),
                    env={**os.environ, 'TMPDIR': os.path.join(tmp, 'tmp')},
                )
                need(
                    p.returncode in (code if isinstance(code, tuple) else (code,)),
                    'exit %d instead of %s: %s' % (p.returncode, code, p.stderr.strip()[-600:]),
                )
                said = p.stderr[p.stderr.find('error: ') :].strip()  # what precedes it is the progress of the layers
                need(said.startswith('error: ') and 'panicked' not in said, 'not an error as it should be: ' + p.stderr)
                where = at % line if at == AT else at
                need(re.search(where, said), 'it does not say %s: %s' % (where, said))
                silent = [w for w in words if w.lower() not in said.lower()]
                need(not silent, 'it does not say %s: %s' % (' or '.join(map(repr, silent)), said))
                need(seen.setdefault(said, patches) == patches, 'the same error as of %s: %s' % (seen[said], said))
                need_no_leftovers(parent)
                need_no_leftovers(os.path.join(tmp, 'tmp'))
            except Failed as e:
                shutil.rmtree(os.path.join(parent, 'bundle'), ignore_errors=True)
                failed.append('%s: %s' % (patches[-120:].replace('\n', ' '), str(e).replace(tmp + '/', '')))
    need(not failed, '%d of %d fail:\n%s' % (len(failed), len(ERRORS), '\n'.join(failed)))
    return '%d errors' % len(ERRORS)


@check('patch-upper-size')
def upper_size():
    """An upper that is too small says how large it must be, and that is enough."""
    with scratch() as tmp:
        call('sh', '-euc', HOST, cwd=tmp)
        m, parent = os.path.join(tmp, 'm.yaml'), os.path.join(tmp, 'published')
        os.mkdir(parent)

        def attempt(size, copied, ok):
            with open(m, 'w') as file:
                file.write(
                    'image: oci:%s/testimages/hello:latest\nplatform: linux/amd64\nupper: { size: %s }\npatches:\n'
                    '- copy: { from: h/%s, path: /x }\n' % (TOP, size, copied)
                )
            return build(m, os.path.join(parent, 'bundle'), cache=os.path.join(DIR, 'cache'), ok=ok)

        p = attempt('16MiB', 'larger', (1,))
        said = re.search(r'(\d+) ?(KiB|MiB|GiB|bytes)[^\d]*$', p.stderr.strip()) or re.search(
            r'(\d+) ?(KiB|MiB|GiB|bytes)', p.stderr
        )
        need(
            said and ('16777216' in p.stderr or '16 MiB' in p.stderr),
            'the error does not say how large the upper is and must be: ' + p.stderr,
        )
        need_no_leftovers(parent)
        size = said[1] + (said[2] if said[2] != 'bytes' else '')
        attempt(size, 'larger', (0,))
        # Holes take no room.
        call('rm', '-r', os.path.join(parent, 'bundle'))
        call('truncate', '-s', '1G', os.path.join(tmp, 'h/large'))
        attempt('16MiB', 'large', (0,))
        return 'the error asks for ' + size
