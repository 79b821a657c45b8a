"""Patches of permissions, owners, ACLs, xattrs and device nodes."""

import base64
import struct

from checks.patch_cases import case


def acl(*entries):
    """An ACL as an xattr: (tag, permissions, id) each."""
    return struct.pack('<I', 2) + b''.join(struct.pack('<HHI', tag, perm, who) for tag, perm, who in entries)


USER_OBJ, USER, GROUP_OBJ, MASK, OTHER, NOBODY = 1, 2, 4, 16, 32, 0xFFFFFFFF
# Read by the group, written by one user more: with it the group's bits of the mode are the mask's.
WIDE = acl((USER_OBJ, 6, NOBODY), (USER, 6, 1000), (GROUP_OBJ, 4, NOBODY), (MASK, 6, NOBODY), (OTHER, 0, NOBODY))


def based(value):
    return base64.b64encode(value).decode()


# Permissions and owners.
MODES = (
    'u=rwX,go=rX u-s +t a+x g=u o= ug+s a-w u+w,g-x = +x u+X go-rwx g+s a=rX u=g,o=u -t u=s g=rx o+t,u=rwxs,g-w +w '
    'ug=o,o-rwx 0 7 70 4000 2755 0640 1777'
).split()
BEFORE = ['0640', '4711', '2755', '0000', '1777', '6777']
CHANGES = [(before, i, mode) for before in BEFORE for i, mode in enumerate(MODES, 10)]


case(
    'modes',
    ''.join(
        '- write: { path: /m%s/f%d, content: "", parents: true, mode: "%s" }\n- mkdir: { path: /m%s/d%d, mode: "%s" }\n'
        '- chmod: { path: "/m%s/*%d", mode: "%s" }\n' % (b, i, b, b, i, b, b, i, m)
        for b, i, m in CHANGES
    ),
    # chmod(1) takes digits for a directory as they are only if they are five; else setgid would stay.
    'umask 0\n'
    + ''.join(
        'mkdir -p -m 755 m%s; : >m%s/f%d; mkdir m%s/d%d; chmod 0%s m%s/?%d; chmod -- %s m%s/?%d\n'
        % (b, b, i, b, i, b, b, i, m.zfill(5) if m.isdigit() else m, b, i)
        for b, i, m in CHANGES
    ),
)


case(
    'mode-of-new',
    r"""
- write: { path: /data/f, content: "", mode: "g+w" }          # in a directory that is setgid
- mkdir: { path: /data/d, mode: "o-x,+t" }
- mkdir: { path: /data/e, mode: "2710", owner: ":hello" }
- write: { path: /data/x/y/z, content: "", parents: true, mode: "a+x", owner: "hello:" }
- copy: { from: h/t, path: /data/t, mode: "u=rwX,go=", owner: "9" }
- mknod: { path: /data/p, kind: fifo, mode: "a=rw" }
- symlink: { path: /data/l, target: f, owner: "hello:9" }
""",
    r"""
chmod g-s data; : >data/f; chmod 664 data/f; mkdir data/d; chmod 1754 data/d; mkdir data/e; chown :1000 data/e
chmod 2710 data/e; mkdir -p data/x/y; : >data/x/y/z
chmod 755 data/x/y/z; chown 1000:1000 data/x/y/z; mkdir data/t; : >data/t/x; : >data/t/n; chmod 700 data/t/x
chmod 600 data/t/n; chown -R 9 data/t; chown -R :0 data
chown :1000 data data/e data/x/y/z; mkfifo data/p; chmod 666 data/p; ln -s f data/l
chown -h :0 data/p; chown -h 1000:9 data/l; chmod 2710 data/e; chmod 2700 data/t; chmod g+s data
""",
    host='mkdir t; : >t/x; : >t/n; chmod 2775 t; chmod 755 t/x; chmod 664 t/n',
)


case(
    'recursive',
    r"""
- symlink: { path: /usr/out, target: /etc }
- symlink: { path: /usr/share/dangling, target: nowhere }
- chmod: { path: /usr, mode: "u+w,go-rX", recursive: true }
- chown: { path: /usr/share, owner: "hello:hello", recursive: true }
- chown: { path: "/{var,home}", owner: ":9", recursive: true }
- chmod: { path: /data, mode: "0700", recursive: true }
""",
    r"""
ln -s /etc usr/out; ln -s nowhere usr/share/dangling; chmod -R u+w,go-rX usr; chown -hR 1000:1000 usr/share
chgrp -hR 9 var home; chmod 00700 data
""",
)


case(
    'chown-clears',
    r"""
- copy: { from: h/t, path: /t }
- xattr: { path: /t/cap, set: { security.capability: cap_net_raw+ep, user.x: y } }
- chown: { path: "/t/[a-f]*", owner: "5" }
- chown: { path: /t/g, owner: ":5" }
- chown: { path: /t/h, owner: "root:" }       # already
- chown: { path: /lib/app/probe4, owner: ":5" }
""",
    r"""
cp -r --preserve=mode "$H/t" t; setfattr -n user.x -v y t/cap; setcap cap_net_raw+ep t/cap; chown 5 t/[a-f]*
chown :5 t/g; chown :5 usr/lib/app/probe4
""",
    host='mkdir -m 755 t; cd t; for m in 4755 2755 2745 6755 6644 0755; do\n'
    ': >a$m; chmod $m a$m; mkfifo b$m; chmod $m b$m; mkdir c$m; chmod 0$m c$m; done; : >cap; : >g; : >h; '
    'chmod 6755 g h',
)


case(
    'owners',
    r"""
- append: { path: /etc/passwd, content: "app:x:2000:50:no login group by name:/:/bin/sh\n" }
- append: { path: /etc/group, content: "web:x:33:\n" }
- write: { path: /o/1, content: "", parents: true, owner: "app" }
- write: { path: /o/2, content: "", owner: "app:" }
- write: { path: /o/3, content: "", owner: "app:web" }
- write: { path: /o/4, content: "", owner: ":web" }
- write: { path: /o/5, content: "", owner: "4294967294:4294967294" }
- write: { path: /o/6, content: "", owner: 33 }
- write: { path: /o/7, content: "", owner: "hello:33" }
- chown: { path: /home/hello/notes, owner: web:web }
- chown: { path: /home/hello, owner: app }
""".replace('owner: web:web', 'owner: "app:web"'),
    r"""
echo 'app:x:2000:50:no login group by name:/:/bin/sh' >>etc/passwd; echo web:x:33: >>etc/group; mkdir o
for i in 1 2 3 4 5 6 7; do : >o/$i; done
chown 2000 o/1; chown 2000:50 o/2; chown 2000:33 o/3; chown :33 o/4; chown 4294967294:4294967294 o/5
chown 33 o/6; chown 1000:33 o/7; chown 2000:33 home/hello/notes; chown 2000 home/hello
""",
)


case(
    'acl',
    r"""
- xattr: { path: /home/hello/notes, set: { system.posix_acl_access: "base64:%s" } }
- xattr: { path: /data, set: { system.posix_acl_default: "base64:%s" } }
- write: { path: /data/none, content: "", owner: ":1000" }       # default ACLs are not inherited, as in layers
""".replace('%s', based(WIDE)),
    r"""
setfattr -n system.posix_acl_access -v 0s%s home/hello/notes; : >data/none
setfattr -n system.posix_acl_default -v 0s%s data
""".replace('%s', based(WIDE)),
)


case(
    'acl-and-chmod',
    r"""
- xattr: { path: /home/hello/notes, set: { system.posix_acl_access: "base64:%s" } }
- chmod: { path: /home/hello/notes, mode: "0645" }
""".replace('%s', based(WIDE)),
    r"""
setfattr -n system.posix_acl_access -v 0s%s home/hello/notes; chmod 645 home/hello/notes
""".replace('%s', based(WIDE)),
)


case(
    'xattrs',
    r"""
- mkdir: { path: /x }
- write: { path: /x/1, content: "" }
- xattr:
    path: /x/1
    set: { user.empty: "", user.long: %s, trusted.t: t, user.b: "base64:AAH/", user.colon: "base65:x",
           security.other: plain }
- write: { path: /x/2, content: "" }
- xattr: { path: "/x/?", set: { user.both: b } }
- xattr: { path: /x/1, set: { user.b: new }, remove: [user.colon] }
- xattr: { path: /x, set: { user.dir: d } }
- xattr: { path: /bin/hello, set: { user.followed: f } }
- xattr: { path: /var/queue, set: { trusted.fifo: f } }
- xattr: { path: /dev/null, set: { trusted.dev: f } }
- xattr: { path: /home/hello/notes, remove: [user.comment] }
- xattr: { path: /x/2, set: { security.capability: "cap_chown,cap_kill=eip" } }
- xattr: { path: /lib/app/probe, set: { security.capability: "cap_setuid=p cap_setgid+pi" } }
""".replace('%s', 'v' * 3000),
    r"""
mkdir x; : >x/1; : >x/2; setfattr -n user.empty x/1; setfattr -n user.long -v $(printf 'v%.0s' $(seq 3000)) x/1
setfattr -n trusted.t -v t x/1; setfattr -n user.b -v new x/1
setfattr -n security.other -v plain x/1; setfattr -n user.both -v b x/1; setfattr -n user.both -v b x/2
setfattr -n user.dir -v d x
setfattr -n user.followed -v f usr/lib/app/hello
setfattr -n trusted.fifo -v f var/queue; setfattr -n trusted.dev -v f dev/null
setfattr -x user.comment home/hello/notes; setcap cap_chown,cap_kill=eip x/2
setcap 'cap_setuid=p cap_setgid+pi' usr/lib/app/probe
""",
)


case(
    'nodes',
    r"""
- mknod: { path: /dev/c, kind: char, major: 4095, minor: 1048575, mode: "0600" }
- mknod: { path: /dev/b, kind: block, major: 1, minor: 256 }
- mknod: { path: /dev/b0, kind: block, major: 0, minor: 0 }
- mknod: { path: /dev/c1, kind: char, major: 0, minor: 1 }
- mknod: { path: /dev/d/p, kind: fifo, parents: true, owner: ":hello", mode: "ug=rw,o=" }
- link: { path: /dev/e, target: /dev/c }
- chmod: { path: /dev/null, mode: "0600" }
- rename: { from: /dev/console, path: /dev/d/console }
""",
    r"""
mknod -m 600 dev/c c 4095 1048575; mknod -m 644 dev/b b 1 256; mknod -m 644 dev/b0 b 0 0; mknod -m 644 dev/c1 c 0 1
mkdir dev/d; mkfifo -m 660 dev/d/p; chgrp 1000 dev/d/p
ln dev/c dev/e; chmod 600 dev/null; mv dev/console dev/d/console
""",
)
