"""Patches and paths: through links, odd names, the root itself."""

from checks.patch_cases import case

# Paths and links.
case(
    'through-links',
    r"""
- symlink: { path: /abs, target: /usr/lib }
- chmod: { path: /data, mode: g-s }
- symlink: { path: /srv, target: ../../../data }
- symlink: { path: /data/up, target: ../usr/share }
- symlink: { path: /data/self, target: . }
- write: { path: /abs/app/a, content: a }
- write: { path: /srv/self/self/b, content: b }
- mkdir: { path: /srv/up/doc/new }
- write: { path: /lib/../c, content: c }              # .. goes up from where the link led
- write: { path: "/../../etc//./d", content: d }
- write: { path: /srv/up/../../../../e, content: e }
- symlink: { path: /lib/app/f, target: nowhere }
- link: { path: /abs/g, target: /srv/self/b }
- rename: { from: /abs/app/hello, path: /srv/up/h }
- mknod: { path: /abs/i, kind: fifo }
- copy: { from: h/j, path: /srv/up/j }
- remove: { path: /abs/app/probe }
- write: { path: /srv/up/k/l/m, content: m, parents: true }
- append: { path: /lib/../lib/app/a, content: a }
""",
    r"""
chmod g-s data; ln -s /usr/lib abs; ln -s ../../../data srv; ln -s ../usr/share data/up; ln -s . data/self
in_root 'printf a >/abs/app/a; printf b >/srv/self/self/b; mkdir /srv/up/doc/new; printf c >/lib/../c
    printf d >/../../etc//./d; printf e >/srv/up/../../../../e; ln -s nowhere /lib/app/f; ln /srv/self/b /abs/g
    mv /abs/app/hello /srv/up/h; mknod /abs/i p; printf j >/srv/up/j
    rm /abs/app/probe; mkdir -p /srv/up/k/l; printf m >/srv/up/k/l/m; printf a >>/lib/../lib/app/a'
""",
    host='printf j >j',
)


case(
    'last-followed',
    r"""
- write: { path: /bin/hello, content: "new\n" }
- symlink: { path: /etc/dangling, target: /var/made }
- write: { path: /etc/dangling, content: made, mode: "0600" }
- symlink: { path: /l-motd, target: etc/motd }
- append: { path: /l-motd, content: x }
- chmod: { path: /l-motd, mode: "0604" }
- chown: { path: /l-motd, owner: "5:6" }
- xattr: { path: /l-motd, set: { user.a: b } }
- replace: { path: /l-motd, find: kernel, with: KERNEL }
- link: { path: /l-link, target: /l-motd }
- symlink: { path: /l-dir, target: /var/cache }
- mkdir: { path: /l-dir, mode: "0711", parents: true }
- copy: { from: h/f, path: /l-dir/ }
- copy: { from: h/d, path: /l-dir }
- diff: { path: /l-dir, strip: 0, content: "--- f\n+++ f\n@@ -1 +1 @@\n-f\n+F\n" }
- copy: { from: h/f, path: /bin/hello, mode: "0755" }
""",
    r"""
echo new >usr/lib/app/hello; ln -s /var/made etc/dangling; printf made >var/made; chmod 600 var/made
ln -s etc/motd l-motd; printf x >>etc/motd; chmod 604 etc/motd; chown 5:6 etc/motd; setfattr -n user.a -v b etc/motd
edit etc/motd sed s/kernel/KERNEL/
ln etc/motd l-link; ln -s /var/cache l-dir; chmod 711 var/cache; echo F >var/cache/f; echo g >var/cache/g
mkdir var/cache/e; echo h >var/cache/e/h
chmod 644 var/cache/[fg] var/cache/e/h; rm usr/lib/app/hello; echo f >usr/lib/app/hello; chmod 755 usr/lib/app/hello
""",
    host='umask 022; echo f >f; mkdir -p d/e; echo g >d/g; echo h >d/e/h',
)


case(
    'last-not-followed',
    r"""
- symlink: { path: /l-motd, target: etc/motd }
- symlink: { path: /l-data, target: data }
- rename: { from: /l-motd, path: /l-moved }
- rename: { from: /bin/hello, path: /l-data, force: true }
- symlink: { path: /lib, target: usr/share, force: true }
- remove: { path: /l-moved }
- symlink: { path: /dangling, target: nowhere }
- rename: { from: /dangling, path: /etc/dangling }
- link: { path: /l-data, target: /etc/motd, force: true }
""",
    r"""
rm bin/hello lib; ln -s usr/share lib; ln -s nowhere etc/dangling; ln etc/motd l-data
""",
)


case(
    'odd-names',
    r"""
- mkdir: { path: "/n" }
- write: { path: "/n/new\nline", content: "1" }
- write: { path: '/n/back\slash', content: "2" }
- write: { path: "/n/ü", content: "3" }
- write: { path: "/n/ sp ace ", content: "4" }
- write: { path: "/n/%41", content: "5" }
- write: { path: "/n/[x]*?{a,b}", content: "6" }
- write: { path: "/n/#x", content: "7" }
- write: { path: /n/%s, content: "8" }
- write: { path: "/n/.wh.x", content: "9" }
- copy: { from: h/t, path: /n/t }
- chmod: { path: "/n/[x]*?{a,b}", mode: "0600" }
- remove: { path: "/n/ sp ace " }
""".replace('%s', 'y' * 255),
    r"""
mkdir n; cd n; printf 1 >"$(printf 'new\nline')"; printf 2 >'back\slash'; printf 3 >ü; printf 5 >%41
printf 6 >'[x]*?{a,b}'; chmod 600 '[x]*?{a,b}'
printf 7 >'#x'; printf 8 >$(printf 'y%.0s' $(seq 255)); printf 9 >.wh.x; mkdir t; : >t/"$(printf 'latin-\351')"
: >t/"$(printf 'new\nline')"; : >t/.wh.y
""",
    host=r"""umask 022; mkdir t; : >t/"$(printf 'latin-\351')"; : >t/"$(printf 'new\nline')"; : >t/.wh.y""",
)


case(
    'root-itself',
    r"""
- chmod: { path: /, mode: "0711" }
- chown: { path: /.., owner: "1:2" }
- xattr: { path: /usr/.., set: { user.root: "yes" } }
- write: { path: /top, content: t }
""",
    'chmod 711 .; chown 1:2 .; setfattr -n user.root -v yes .; printf t >top',
)


case(
    'symlink-lengths',
    '- mkdir: { path: /s }\n'
    + ''.join(
        '- symlink: { path: /s/%d, target: %s }\n' % (n, 'z' * n) for n in (1, 58, 59, 60, 61, 255, 1000, 4094, 4095)
    ),
    'mkdir s; for n in 1 58 59 60 61 255 1000 4094 4095; do ln -s $(printf "z%.0s" $(seq $n)) s/$n; done',
)


case(
    'forty-links',
    '- symlink: { path: /l1, target: etc }\n'
    + ''.join('- symlink: { path: /l%d, target: l%d }\n' % (i, i - 1) for i in range(2, 41))
    + '- append: { path: /l40/motd, content: x }\n',
    'ln -s etc l1; for i in $(seq 2 40); do ln -s l$((i - 1)) l$i; done; in_root "printf x >>/l40/motd"',
)
