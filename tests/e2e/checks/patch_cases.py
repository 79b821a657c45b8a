"""Patches again: what the worked examples leave out, case by case."""
import base64
import collections
import functools
import os
import struct

from checks import check
from harness.common import TOP, call, need, scratch
from checks.patch import judge, run_all

Case = collections.namedtuple('Case', 'name patches script host head args also')
MORE = []


def case(name, patches, script, host='', head='', args=(), also=None):
    """Patches, the same in plain tools, and a script that makes the host's files in h/ beside the manifest."""
    MORE.append(Case(name, patches, script, host, head, args, also))


def acl(*entries):
    """An ACL as an xattr: (tag, permissions, id) each."""
    return struct.pack('<I', 2) + b''.join(struct.pack('<HHI', tag, perm, who) for tag, perm, who in entries)


USER_OBJ, USER, GROUP_OBJ, MASK, OTHER, NOBODY = 1, 2, 4, 16, 32, 0xffffffff
# Read by the group, written by one user more: with it the group's bits of the mode are the mask's.
WIDE = acl((USER_OBJ, 6, NOBODY), (USER, 6, 1000), (GROUP_OBJ, 4, NOBODY), (MASK, 6, NOBODY), (OTHER, 0, NOBODY))


def based(value):
    return base64.b64encode(value).decode()


def upper_is_empty(paths, upper):
    need(not paths, 'nothing changed, and still the upper holds ' + ', '.join(paths))


def is_opaque(*names):
    def also(paths, upper):
        for name in names:
            need('trusted.overlay.opaque' in os.listxattr(os.path.join(upper, name)), name + ' is not opaque in the upper')
    return also


def is_sparse(*names):
    def also(paths, upper):
        for name in names:
            size = os.stat(os.path.join(upper, name)).st_blocks * 512
            need(size < 100_000, '%s has %d bytes on disk: its holes are gone' % (name, size))
    return also


# Paths and links.
case('through-links', r'''
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
''', r'''
chmod g-s data; ln -s /usr/lib abs; ln -s ../../../data srv; ln -s ../usr/share data/up; ln -s . data/self
in_root 'printf a >/abs/app/a; printf b >/srv/self/self/b; mkdir /srv/up/doc/new; printf c >/lib/../c; printf d >/../../etc//./d
    printf e >/srv/up/../../../../e; ln -s nowhere /lib/app/f; ln /srv/self/b /abs/g; mv /abs/app/hello /srv/up/h; mknod /abs/i p; printf j >/srv/up/j
    rm /abs/app/probe; mkdir -p /srv/up/k/l; printf m >/srv/up/k/l/m; printf a >>/lib/../lib/app/a'
''', host='printf j >j')
case('last-followed', r'''
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
''', r'''
echo new >usr/lib/app/hello; ln -s /var/made etc/dangling; printf made >var/made; chmod 600 var/made
ln -s etc/motd l-motd; printf x >>etc/motd; chmod 604 etc/motd; chown 5:6 etc/motd; setfattr -n user.a -v b etc/motd; edit etc/motd sed s/kernel/KERNEL/
ln etc/motd l-link; ln -s /var/cache l-dir; chmod 711 var/cache; echo F >var/cache/f; echo g >var/cache/g; mkdir var/cache/e; echo h >var/cache/e/h
chmod 644 var/cache/[fg] var/cache/e/h; rm usr/lib/app/hello; echo f >usr/lib/app/hello; chmod 755 usr/lib/app/hello
''', host='umask 022; echo f >f; mkdir -p d/e; echo g >d/g; echo h >d/e/h')
case('last-not-followed', r'''
- symlink: { path: /l-motd, target: etc/motd }
- symlink: { path: /l-data, target: data }
- rename: { from: /l-motd, path: /l-moved }
- rename: { from: /bin/hello, path: /l-data, force: true }
- symlink: { path: /lib, target: usr/share, force: true }
- remove: { path: /l-moved }
- symlink: { path: /dangling, target: nowhere }
- rename: { from: /dangling, path: /etc/dangling }
- link: { path: /l-data, target: /etc/motd, force: true }
''', r'''
rm bin/hello lib; ln -s usr/share lib; ln -s nowhere etc/dangling; ln etc/motd l-data
''')
case('odd-names', r'''
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
'''.replace('%s', 'y' * 255), r'''
mkdir n; cd n; printf 1 >"$(printf 'new\nline')"; printf 2 >'back\slash'; printf 3 >ü; printf 5 >%41; printf 6 >'[x]*?{a,b}'; chmod 600 '[x]*?{a,b}'
printf 7 >'#x'; printf 8 >$(printf 'y%.0s' $(seq 255)); printf 9 >.wh.x; mkdir t; : >t/"$(printf 'latin-\351')"; : >t/"$(printf 'new\nline')"; : >t/.wh.y
''', host=r'''umask 022; mkdir t; : >t/"$(printf 'latin-\351')"; : >t/"$(printf 'new\nline')"; : >t/.wh.y''')
case('root-itself', r'''
- chmod: { path: /, mode: "0711" }
- chown: { path: /.., owner: "1:2" }
- xattr: { path: /usr/.., set: { user.root: "yes" } }
- write: { path: /top, content: t }
''', 'chmod 711 .; chown 1:2 .; setfattr -n user.root -v yes .; printf t >top')
case('symlink-lengths', '- mkdir: { path: /s }\n' + ''.join('- symlink: { path: /s/%d, target: %s }\n' % (n, 'z' * n) for n in (1, 58, 59, 60, 61, 255, 1000, 4094, 4095)),
     'mkdir s; for n in 1 58 59 60 61 255 1000 4094 4095; do ln -s $(printf "z%.0s" $(seq $n)) s/$n; done')

case('forty-links', '- symlink: { path: /l1, target: etc }\n' + ''.join('- symlink: { path: /l%d, target: l%d }\n' % (i, i - 1) for i in range(2, 41))
     + '- append: { path: /l40/motd, content: x }\n', 'ln -s etc l1; for i in $(seq 2 40); do ln -s l$((i - 1)) l$i; done; in_root "printf x >>/l40/motd"')

# Content.
case('hard-links-content', r'''
- append: { path: /usr/share/doc/hello/README.en, content: "more\n" }
- write: { path: /lib/app/probe, content: "#!/bin/sh\n", mode: "0700" }       # its capability goes, as with every write
- chmod: { path: /bin/cat, mode: "0711" }
- rename: { from: /bin/ls, path: /usr/ls }
- remove: { path: /bin/cp }
- copy: { from: h/f, path: /bin/mv }
- write: { path: /bin/mv, content: "own\n", owner: "1:1" }
- link: { path: /bin/mv2, target: /bin/mv }
- append: { path: /bin/mv2, content: "own\n" }
''', r'''
echo more >>usr/share/doc/hello/README
echo '#!/bin/sh' >usr/lib/app/probe; chmod 700 usr/lib/app/probe
chmod 711 bin/cat; mv bin/ls usr/ls; rm bin/cp bin/mv; printf 'own\nown\n' >bin/mv; chmod 640 bin/mv; chown 1:1 bin/mv; ln bin/mv bin/mv2
''', host='echo f >f; chmod 640 f')
case('hard-links-removed', r'''
- remove: { path: /bin/cp }
- remove: { path: /lib/app/probe4 }
''', 'rm bin/cp usr/lib/app/probe4')
case('hard-links-renamed', r'''
- rename: { from: /lib/app/probe4, path: /lib/app/another }
- rename: { from: /usr/share/doc/hello/README, path: /usr/share/doc/hello/README.en, force: true }
''', 'mv usr/lib/app/probe4 usr/lib/app/another; rm usr/share/doc/hello/README')
case('hard-links-across', r'''
- rename: { from: /usr/share/doc/hello/README, path: /etc/r }         # the other name stays
- link: { path: /home/r, target: /etc/r }
- link: { path: /var/lib/notes, target: /home/hello/notes }
- rename: { from: /usr/share/doc, path: /usr/doc }
- chown: { path: /usr/doc, owner: "8:8", recursive: true }
- chmod: { path: /home, mode: "o-r", recursive: true }
- remove: { path: /home/hello, recursive: true }
- link: { path: /etc/sh, target: /bin/sh }
- remove: { path: "/bin/[a-z]*", recursive: true }
- symlink: { path: /etc/s, target: r }
- link: { path: /etc/s2, target: /etc/s }                             # to the file: a target is followed
- write: { path: /var/lib/notes, content: "theirs\n" }
''', r'''
mv usr/share/doc/hello/README etc/r; ln etc/r home/r; ln home/hello/notes var/lib/notes; mv usr/share/doc usr/doc; chown -R 8:8 usr/doc; chmod -R o-r home
rm -r home/hello; ln bin/sh etc/sh; rm -r bin/[a-z]*; ln -s r etc/s; ln etc/r etc/s2; echo theirs >var/lib/notes
''')
case('times', r'''
- chmod: { path: /lib/app/hello, mode: "0700" }           # its time has nanoseconds
- chown: { path: /var/queue, owner: "7:8" }
- xattr: { path: /etc/group, set: { user.x: y } }
- link: { path: /etc/notes, target: /home/hello/notes }
- rename: { from: /etc/motd, path: /etc/issue }
- rename: { from: /var/cache/app, path: /var/lib/app }
- write: { path: /etc/passwd, content: "root:x:0:0:root:/root:/bin/sh\nhello:x:1000:1000:hello:/home/hello:/bin/sh\n", mode: "0600" }     # no other content
- write: { path: /etc/shadow, content: "root:*:19000:0:99999:7:::\n", owner: "0:0" }
''', r'''
chmod 700 usr/lib/app/hello; chown 7:8 var/queue; setfattr -n user.x -v y etc/group; ln home/hello/notes etc/notes; mv etc/motd etc/issue
mv var/cache/app var/lib/app; chmod 600 etc/passwd; chown 0:0 etc/shadow
''')
case('large-and-sparse', r'''
- copy: { from: h/t, path: /t }
- append: { path: /t/large, content: "end\n" }
- append: { path: /usr/share/doc/hello/zeros, content: "end\n" }
- append: { path: /t/only-hole, content: "end\n" }
- append: { path: /bin/busybox, content: "end\n" }
- write: { path: /t/from-sparse, from: h/t/sparse }
''', r'''
cp -r --sparse=always "$H/t" t; cp --sparse=always t/sparse t/from-sparse; chmod 644 t/from-sparse
echo end >>t/large; echo end >>usr/share/doc/hello/zeros; echo end >>t/only-hole; echo end >>bin/busybox
''', host='umask 022; mkdir t; seq 400000 >t/large; truncate -s 40M t/only-hole; truncate -s 50M t/sparse; for i in 0 1000000 7000001 20000000 52000000; do '
          'printf x$i | dd of=t/sparse conv=notrunc oflag=seek_bytes seek=$i status=none; done; head -c 4096 t/large >t/block; head -c 4097 t/large >t/block+1; : >t/empty',
     also=is_sparse('t/only-hole', 't/sparse', 't/from-sparse'))
case('many-files', '- copy: { from: h/many, path: /many, owner: "3:4" }\n- remove: { path: "/many/x*7" }\n- copy: { from: h/deep, path: /deep }',
     'cp -r "$H/many" many; chown -R 3:4 many; rm many/x*7; cp -r "$H/deep" deep',
     host='umask 022; mkdir many; seq -w 3000 | (cd many; split -l 1 -d -a 4 - x)\n'
          'mkdir -p deep/$(printf "d/%.0s" $(seq 100)); for i in $(seq 300); do mkdir deep/$i; done')
case('variables', r'''
- write: { path: "/etc/${FILE}", content: "${GIVEN} ${TWICE} $$ $${NAME} $x $ ${EMPTY}.\n", mode: "${MODE}", owner: "${OWNER}" }
- symlink: { path: /v, target: "${NAME}" }
- user: { name: "${USER}", uid: "${UID}" }
''', r'''
printf 'given one-one $ ${NAME} $x $ .\n' >etc/v.conf; chmod 640 etc/v.conf; chown 0:1000 etc/v.conf; ln -s one v; add_user -u 1777 -U -d /home/v -s /bin/sh v
''', head='vars: { NAME: one, TWICE: "${NAME}-${NAME}", FILE: v.conf, MODE: "640", OWNER: ":hello", EMPTY: "", GIVEN: default, USER: v }\n',
     args=['--set', 'GIVEN=given', '--set', 'UID=1777'])

# What takes the place of what.
case('copy-over', r'''
- mkdir: { path: /t, mode: "0700", owner: "5:5" }
- mkdir: { path: /t/sub, mode: "0711", owner: "5:5" }
- write: { path: /t/keep, content: keep }
- write: { path: /t/sub/s, content: old, owner: "7:7", mode: "0600" }
- link: { path: /t/other, target: /t/sub/s }
- symlink: { path: /t/f, target: sub/s }
- write: { path: /t/link, content: file }
- mknod: { path: /t/dev, kind: fifo }
- mknod: { path: /t/fifo, kind: block, major: 7, minor: 7 }
- symlink: { path: /t/new, target: /var/lib }
- copy: { from: h/tree, path: /t }
- copy: { from: h/doc, path: /usr/share/doc, owner: ":1000", mode: "g=u" }
- copy: { from: h/tree/f, path: /usr/share/doc/hello/zeros }
- copy: { from: h/tree/f, path: /home/hello/notes, owner: hello }
''', r'''
mkdir -m 700 t; mkdir -m 711 t/sub; chown 5:5 t t/sub; printf keep >t/keep; printf old >t/other; chmod 600 t/other; chown 7:7 t/other
echo s >t/sub/s; echo f >t/f; chmod 4755 t/f; ln -s f t/link; mknod -m 640 t/dev c 1 5; mkfifo -m 622 t/fifo; chmod 604 t/sub/s; ln -s /var/lib t/new
mkdir var/lib/deep; chmod 1777 var/lib/deep; echo d >var/lib/deep/d; chmod 0 var/lib/deep/d
rm usr/share/doc/hello/README usr/share/doc/hello/readme usr/share/doc/hello/zeros; echo doc >usr/share/doc/hello/README; chmod 664 usr/share/doc/hello/README
ln -s README usr/share/doc/hello/readme; chgrp -h 1000 usr/share/doc/hello/README usr/share/doc/hello/readme; mkdir usr/share/doc/more; chgrp 1000 usr/share/doc/more
chmod 775 usr/share/doc/more; echo f >usr/share/doc/hello/zeros; chmod 4755 usr/share/doc/hello/zeros
rm home/hello/notes; echo f >home/hello/notes; chown 1000 home/hello/notes; chmod 4755 home/hello/notes
''', host=r'''umask 022; mkdir -p tree/sub tree/new/deep doc/hello doc/more; echo f >tree/f; chmod 4755 tree/f; echo s >tree/sub/s; chmod 604 tree/sub/s; ln -s f tree/link
mkfifo tree/fifo; chmod 622 tree/fifo; mknod -m 640 tree/dev c 1 5; chmod 1777 tree/new/deep; echo d >tree/new/deep/d; chmod 0 tree/new/deep/d
echo doc >doc/hello/README; ln -s README doc/hello/readme; chown -R 42:42 tree/sub; setfattr -n user.not -v taken tree/sub/s; touch -d 2001-01-01 tree/sub/s''')
case('copy-links', '- copy: { from: h/t, path: /t, exclude: [gone], mode: "go-w" }\n- append: { path: /t/a, content: more }', r'''
mkdir -p t/sub; printf abcmore >t/a; ln t/a t/b; ln t/a t/sub/c; ln -s nowhere t/s; ln t/s t/s2; mkfifo -m 640 t/p; ln t/p t/sub/p
''', host='umask 022; mkdir -p t/sub; printf abc >t/a; ln t/a t/b; ln t/a t/sub/c; ln t/a t/gone; ln -s nowhere t/s; ln t/s t/s2; mkfifo -m 660 t/p; ln t/p t/sub/p')
case('copy-exclude', r'''
- copy: { from: h/t, path: /t, exclude: ["*.pyc", __pycache__, "docs/*.txt", sub/skip, "**/only", "{x,y}?"] }
- copy: { from: h/t/docs, path: /docs, exclude: ["deep/*"] }
''', r'''
cp -r "$H/t" t; cp -r t/docs docs; rm -r docs/deep/a.txt
cd t; rm -r a.pyc sub/b.pyc sub/__pycache__ docs/a.txt sub/skip sub/deeper/only x1 sub/y2
''', host='umask 022; mkdir -p t/sub/__pycache__ t/docs/deep t/skip t/sub/skip t/sub/deeper/only/z; cd t\n'
          'for f in a.pyc sub/b.pyc sub/__pycache__/x docs/a.txt docs/keep.md '
          'docs/deep/a.txt skip/f sub/skip/f sub/deeper/only/z/f x1 sub/y2 xx1 x.pyc.not; do echo $f >$f; done')
case('other-types', r'''
- remove: { path: /etc/motd }
- mkdir: { path: /etc/motd }
- write: { path: /etc/motd/x, content: x }
- remove: { path: /var/cache/app, recursive: true }
- write: { path: /var/cache/app, content: file }
- remove: { path: /usr/share/doc, recursive: true }
- symlink: { path: /usr/share/doc, target: ../lib }
- remove: { path: /dev/null }
- write: { path: /dev/null, content: "" }
- remove: { path: /lib }
- mkdir: { path: /lib }
- remove: { path: /var/lib }
- mknod: { path: /var/lib, kind: fifo }
''', r'''
rm etc/motd; mkdir etc/motd; printf x >etc/motd/x; rm -r var/cache/app; printf file >var/cache/app; rm -r usr/share/doc; ln -s ../lib usr/share/doc
rm dev/null; : >dev/null; rm lib; mkdir lib; rmdir var/lib; mkfifo -m 644 var/lib
''')
case('opaque', r'''
- remove: { path: /var/cache/app, recursive: true }
- mkdir: { path: /var/cache/app, mode: "0755" }
- remove: { path: /usr/share/doc/hello, recursive: true }
- write: { path: /usr/share/doc/hello/new, content: "n", parents: true }
- remove: { path: /home, recursive: true }
- mkdir: { path: /home }
- remove: { path: /home }
''', 'rm -r var/cache/app; mkdir var/cache/app; rm -r usr/share/doc/hello; mkdir usr/share/doc/hello; printf n >usr/share/doc/hello/new; rm -r home',
     also=is_opaque('var/cache/app', 'usr/share/doc/hello'))
case('rename-directories', r'''
- rename: { from: /var/cache, path: /usr/cache }
- mkdir: { path: /var/cache }
- write: { path: /var/cache/new, content: n }
- rename: { from: /usr/share/doc, path: /usr/lib/doc }
- append: { path: /usr/lib/doc/hello/README, content: "more\n" }
- mkdir: { path: /empty }
- rename: { from: /usr/lib/doc/hello, path: /empty, force: true }
- rename: { from: /home/hello, path: /home/there }
- rename: { from: /home/there, path: /home/hello }        # and back
- rename: { from: /data, path: /var/cache/data }
- rename: { from: /bin, path: /usr/bin }
- symlink: { path: /bin, target: usr/bin }
- rename: { from: /bin/sh, path: /bin/shell }
''', r'''
mv var/cache usr/cache; mkdir var/cache; printf n >var/cache/new; mv usr/share/doc usr/lib/doc; echo more >>usr/lib/doc/hello/README
mv usr/lib/doc/hello empty; mv data var/cache/data; mv bin usr/bin; ln -s usr/bin bin; mv usr/bin/sh usr/bin/shell
''')
case('made-and-gone', r'''
- write: { path: /etc/new, content: n }
- remove: { path: /etc/new }
- mkdir: { path: /a/b/c, parents: true }
- copy: { from: h/t, path: /a/b/t }
- rename: { from: /a, path: /z }
- remove: { path: /z, recursive: true }
- rename: { from: /etc/motd, path: /etc/m }
- rename: { from: /etc/m, path: /etc/motd }
''', '', host='mkdir t; echo >t/f', also=upper_is_empty)
case('no-change', r'''
- write: { path: /etc/motd, content: "a kernel reads this from EROFS\n" }
- write: { path: /etc/motd, from: h/motd, mode: "0644", owner: root }
- append: { path: /etc/motd, content: "" }
- replace: { path: /etc/motd, find: kernel, with: kernel }
- chmod: { path: /usr, mode: "u=rwX", recursive: true }
- chmod: { path: /etc/motd, mode: "0644" }
- chown: { path: /lib/app/probe, owner: "root:root" }
- chown: { path: /home/hello, owner: hello, recursive: true }
- symlink: { path: /lib, target: usr/lib, force: true }
- symlink: { path: /bin/hello, target: /lib/app/hello }
- link: { path: /lib/app/probe4, target: /lib/app/probe }
- rename: { from: /etc/motd, path: /etc/motd }
- mkdir: { path: /var/cache/app, parents: true, mode: "0750", owner: "hello:hello" }
- xattr: { path: /home/hello/notes, set: { user.comment: written by hand } }
- xattr: { path: /lib/app/probe, set: { security.capability: cap_net_raw+ep } }
- copy: { from: h/empty, path: /etc }
- remove: { path: /nothing, missing: ok }
- remove: { path: "/etc/**/nothing*", missing: ok }
''', '', host="mkdir empty; printf 'a kernel reads this from EROFS\\n' >motd", also=upper_is_empty)
case('remove-globs', r'''
- write: { path: "/g/[x]", content: "", parents: true }
- copy: { from: h/g, path: /g }
- symlink: { path: /g/link, target: ../etc }
- remove: { path: "/g/[x]" }                      # there is one of just this name
- remove: { path: "/g/?1" }
- remove: { path: "/g/*idden" }
- remove: { path: "/g/**/a3" }
- remove: { path: "/g/**/passwd", missing: ok }   # not through the link
- remove: { path: "/g/{one,two}/[a-c]*" }
- remove: { path: "/g/*/deep/", recursive: true }
- remove: { path: "/bin/[a-c]*" }
''', r'''
cp -r "$H/g" g; ln -s ../etc g/link; cd g; rm a1 b1 .hidden a3 sub/a3 sub/more/a3 one/a one/b2 two/c; rm -r one/deep sub/deep; rm ../bin/[a-c]*
''', host='umask 022; mkdir -p g/sub/more g/one/deep g/two g/sub/deep; cd g\n'
          'for f in x a1 b1 .hidden a3 sub/a3 sub/more/a3 sub/a1 one/a one/b2 one/d two/c two/x one/deep/f sub/deep/f; do echo $f >$f; done')

# Permissions and owners.
MODES = ('u=rwX,go=rX u-s +t a+x g=u o= ug+s a-w u+w,g-x = +x u+X go-rwx g+s a=rX u=g,o=u -t u=s g=rx o+t,u=rwxs,g-w +w ug=o,o-rwx 0 7 70 4000 2755 0640 1777').split()
BEFORE = '0640 4711 2755 0000 1777 6777'.split()
CHANGES = [(before, i, mode) for before in BEFORE for i, mode in enumerate(MODES, 10)]
case('modes', ''.join('- write: { path: /m%s/f%d, content: "", parents: true, mode: "%s" }\n- mkdir: { path: /m%s/d%d, mode: "%s" }\n'
                      '- chmod: { path: "/m%s/*%d", mode: "%s" }\n' % (b, i, b, b, i, b, b, i, m) for b, i, m in CHANGES),
     # chmod(1) takes digits for a directory as they are only if they are five; else setgid would stay.
     'umask 0\n' + ''.join('mkdir -p -m 755 m%s; : >m%s/f%d; mkdir m%s/d%d; chmod 0%s m%s/?%d; chmod -- %s m%s/?%d\n' % (
         b, b, i, b, i, b, b, i, m.zfill(5) if m.isdigit() else m, b, i) for b, i, m in CHANGES))
case('mode-of-new', r'''
- write: { path: /data/f, content: "", mode: "g+w" }          # in a directory that is setgid
- mkdir: { path: /data/d, mode: "o-x,+t" }
- mkdir: { path: /data/e, mode: "2710", owner: ":hello" }
- write: { path: /data/x/y/z, content: "", parents: true, mode: "a+x", owner: "hello:" }
- copy: { from: h/t, path: /data/t, mode: "u=rwX,go=", owner: "9" }
- mknod: { path: /data/p, kind: fifo, mode: "a=rw" }
- symlink: { path: /data/l, target: f, owner: "hello:9" }
''', r'''
chmod g-s data; : >data/f; chmod 664 data/f; mkdir data/d; chmod 1754 data/d; mkdir data/e; chown :1000 data/e; chmod 2710 data/e; mkdir -p data/x/y; : >data/x/y/z
chmod 755 data/x/y/z; chown 1000:1000 data/x/y/z; mkdir data/t; : >data/t/x; : >data/t/n; chmod 700 data/t/x; chmod 600 data/t/n; chown -R 9 data/t; chown -R :0 data
chown :1000 data data/e data/x/y/z; mkfifo data/p; chmod 666 data/p; ln -s f data/l
chown -h :0 data/p; chown -h 1000:9 data/l; chmod 2710 data/e; chmod 2700 data/t; chmod g+s data
''', host='mkdir t; : >t/x; : >t/n; chmod 2775 t; chmod 755 t/x; chmod 664 t/n')
case('recursive', r'''
- symlink: { path: /usr/out, target: /etc }
- symlink: { path: /usr/share/dangling, target: nowhere }
- chmod: { path: /usr, mode: "u+w,go-rX", recursive: true }
- chown: { path: /usr/share, owner: "hello:hello", recursive: true }
- chown: { path: "/{var,home}", owner: ":9", recursive: true }
- chmod: { path: /data, mode: "0700", recursive: true }
''', r'''
ln -s /etc usr/out; ln -s nowhere usr/share/dangling; chmod -R u+w,go-rX usr; chown -hR 1000:1000 usr/share; chgrp -hR 9 var home; chmod 00700 data
''')
case('chown-clears', r'''
- copy: { from: h/t, path: /t }
- xattr: { path: /t/cap, set: { security.capability: cap_net_raw+ep, user.x: y } }
- chown: { path: "/t/[a-f]*", owner: "5" }
- chown: { path: /t/g, owner: ":5" }
- chown: { path: /t/h, owner: "root:" }       # already
- chown: { path: /lib/app/probe4, owner: ":5" }
''', r'''
cp -r --preserve=mode "$H/t" t; setfattr -n user.x -v y t/cap; setcap cap_net_raw+ep t/cap; chown 5 t/[a-f]*; chown :5 t/g; chown :5 usr/lib/app/probe4
''', host='mkdir -m 755 t; cd t; for m in 4755 2755 2745 6755 6644 0755; do\n'
          ': >a$m; chmod $m a$m; mkfifo b$m; chmod $m b$m; mkdir c$m; chmod 0$m c$m; done; : >cap; : >g; : >h; chmod 6755 g h')
case('owners', r'''
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
'''.replace('owner: web:web', 'owner: "app:web"'), r'''
echo 'app:x:2000:50:no login group by name:/:/bin/sh' >>etc/passwd; echo web:x:33: >>etc/group; mkdir o; for i in 1 2 3 4 5 6 7; do : >o/$i; done
chown 2000 o/1; chown 2000:50 o/2; chown 2000:33 o/3; chown :33 o/4; chown 4294967294:4294967294 o/5
chown 33 o/6; chown 1000:33 o/7; chown 2000:33 home/hello/notes; chown 2000 home/hello
''')
case('acl', r'''
- xattr: { path: /home/hello/notes, set: { system.posix_acl_access: "base64:%s" } }
- xattr: { path: /data, set: { system.posix_acl_default: "base64:%s" } }
- write: { path: /data/none, content: "", owner: ":1000" }       # default ACLs are not inherited, as in layers
'''.replace('%s', based(WIDE)), r'''
setfattr -n system.posix_acl_access -v 0s%s home/hello/notes; : >data/none; setfattr -n system.posix_acl_default -v 0s%s data
'''.replace('%s', based(WIDE)))
case('acl-and-chmod', r'''
- xattr: { path: /home/hello/notes, set: { system.posix_acl_access: "base64:%s" } }
- chmod: { path: /home/hello/notes, mode: "0645" }
'''.replace('%s', based(WIDE)), r'''
setfattr -n system.posix_acl_access -v 0s%s home/hello/notes; chmod 645 home/hello/notes
'''.replace('%s', based(WIDE)))
case('xattrs', r'''
- mkdir: { path: /x }
- write: { path: /x/1, content: "" }
- xattr: { path: /x/1, set: { user.empty: "", user.long: %s, trusted.t: t, user.b: "base64:AAH/", user.colon: "base65:x", security.other: plain } }
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
'''.replace('%s', 'v' * 3000), r'''
mkdir x; : >x/1; : >x/2; setfattr -n user.empty x/1; setfattr -n user.long -v $(printf 'v%.0s' $(seq 3000)) x/1
setfattr -n trusted.t -v t x/1; setfattr -n user.b -v new x/1
setfattr -n security.other -v plain x/1; setfattr -n user.both -v b x/1; setfattr -n user.both -v b x/2; setfattr -n user.dir -v d x
setfattr -n user.followed -v f usr/lib/app/hello
setfattr -n trusted.fifo -v f var/queue; setfattr -n trusted.dev -v f dev/null; setfattr -x user.comment home/hello/notes; setcap cap_chown,cap_kill=eip x/2
setcap 'cap_setuid=p cap_setgid+pi' usr/lib/app/probe
''')
case('nodes', r'''
- mknod: { path: /dev/c, kind: char, major: 4095, minor: 1048575, mode: "0600" }
- mknod: { path: /dev/b, kind: block, major: 1, minor: 256 }
- mknod: { path: /dev/b0, kind: block, major: 0, minor: 0 }
- mknod: { path: /dev/c1, kind: char, major: 0, minor: 1 }
- mknod: { path: /dev/d/p, kind: fifo, parents: true, owner: ":hello", mode: "ug=rw,o=" }
- link: { path: /dev/e, target: /dev/c }
- chmod: { path: /dev/null, mode: "0600" }
- rename: { from: /dev/console, path: /dev/d/console }
''', r'''
mknod -m 600 dev/c c 4095 1048575; mknod -m 644 dev/b b 1 256; mknod -m 644 dev/b0 b 0 0; mknod -m 644 dev/c1 c 0 1; mkdir dev/d; mkfifo -m 660 dev/d/p; chgrp 1000 dev/d/p
ln dev/c dev/e; chmod 600 dev/null; mv dev/console dev/d/console
''')

# Files of other formats.
case('users', r'''
- write: { path: /etc/gshadow, content: "root:*::\nhello:!::\naudio:*::hello\n", mode: "0640", owner: "0:42" }
- append: { path: /etc/group, content: "audio:x:29:hello\nvideo:x:44:" }       # without a newline at the end
- user: { name: one, groups: [audio, hello] }
- user: { name: two, uid: 1500, gid: 1600, groups: [video, audio], create-home: true, home: /srv/homes/two }
- user: { name: three, uid: 1700, group: "29", home: /nowhere, shell: /bin/false, comment: "Three, of three" }
- user: { name: four, uid: 1800, group: video }
- write: { path: /srv/homes/two/f, content: "", owner: "two:two" }
''', r'''
printf 'root:*::\nhello:!::\naudio:*::hello\n' >etc/gshadow; chmod 640 etc/gshadow; chown 0:42 etc/gshadow; printf 'audio:x:29:hello\nvideo:x:44:' >>etc/group
add_user -U -d /home/one -s /bin/sh -G audio,hello one; add_group -g 1600 two; add_user -u 1500 -g two -G video,audio -m -d /srv/homes/two -s /bin/sh two
add_user -u 1700 -g 29 -d /nowhere -s /bin/false -c 'Three, of three' three; add_user -u 1800 -g video -d /home/four -s /bin/sh four
: >srv/homes/two/f; chown 1500:1600 srv/homes/two/f
''')
case('user-without-files', r'''
- remove: { path: "/etc/{passwd,group,shadow}" }
- user: { name: first, create-home: true, home: /first }
''', r'''
rm etc/passwd etc/group etc/shadow; echo first:x:1000:1000::/first:/bin/sh >etc/passwd; echo first:x:1000: >etc/group; mkdir -m 700 first; chown 1000:1000 first
''')
case('layers', r'''
- extract: { from: h/e.tar.gz }
- extract: { from: h/through.tar }
- extract: { from: h/link.tar }
- extract: { from: h/usr.tar.zst, path: /usr }
- extract: { from: h/usr.tar.zst, path: /lib }        # through a link
- append: { path: /etc/extra, content: "more\n" }
- remove: { path: /var/cache/app/n }
''', r'''
rm -r etc/motd var/cache/app/* usr/share/doc/hello
tar --xattrs --xattrs-include='*' -xpf "$H/e.tar.gz" --exclude='.wh.*'
echo through >usr/lib/app/through; chown 12:13 usr/lib/app/through; touch -d @1600000000.25 usr/lib/app/through; ln usr/lib/app/hello usr/lib/app/hl
zstd -dcq "$H/usr.tar.zst" | tar -xp --exclude='.wh.*' -C usr; zstd -dcq "$H/usr.tar.zst" | tar -xp -C usr/lib; echo more >>etc/extra
rm var/cache/app/n; touch -d @1600000000.25 var/cache/app
''', host=r'''
umask 022; mkdir -p t/etc t/var/cache/app t/usr/share/doc u/share u/lib l/usr/lib/app m/lib/app
echo e >t/etc/extra; setfattr -n user.x -v y t/etc/extra; ln t/etc/extra t/etc/extra2
echo c >t/etc/capable; setcap cap_net_raw+ep t/etc/capable; ln -s extra t/etc/s; mkfifo t/etc/p; chmod 1770 t/etc
: >t/etc/.wh.motd; : >t/var/cache/app/.wh..wh..opq; echo n >t/var/cache/app/n; : >t/usr/share/doc/.wh.hello
own='--sort=name --owner=12 --group=13 --numeric-owner --mtime=@1600000000.25 --format=pax --pax-option=delete=atime,delete=ctime'
tar $own --xattrs --xattrs-include='*' -czf e.tar.gz -C t .
echo through >m/lib/app/through; tar $own -cf through.tar -C m lib/app/through
echo >l/usr/lib/app/hello; ln l/usr/lib/app/hello l/usr/lib/app/hl; tar $own -cf link.tar -C l usr/lib/app/hello usr/lib/app/hl; tar --delete -f link.tar usr/lib/app/hello
echo u >u/share/u; ln u/share/u u/lib/u; truncate -s 1M u/share/sparse; echo end >>u/share/sparse; tar $own -S -cf - -C u . | zstd -q -o usr.tar.zst''')
case('diffs', r'''
- write: { path: /srv/d/numbers, from: h/moved, parents: true, mode: "0755", owner: "3:4" }
- write: { path: /srv/d/gone, content: "gone\n" }
- write: { path: /srv/d/no-newline, content: "a\nb" }
- xattr: { path: /srv/d/numbers, set: { user.kept: k } }
- diff: { from: h/d.patch, path: /srv/d }
- diff: { strip: 2, content: "--- x/y/etc/motd\n+++ x/y/etc/motd\n@@ -1 +1,2 @@\n a kernel reads this from EROFS\n+and more\n" }
''', r'''
mkdir -p srv/d; cp "$H/moved" srv/d/numbers; chmod 755 srv/d/numbers; chown 3:4 srv/d/numbers; echo gone >srv/d/gone; printf 'a\nb' >srv/d/no-newline
patch -s -p1 -d srv/d --no-backup-if-mismatch <"$H/d.patch"; setfattr -n user.kept -v k srv/d/numbers; echo 'and more' >>etc/motd
''', host=r'''
mkdir -p a b/new/deep; seq 300 >a/numbers; (echo one more; echo and more; seq 300) >moved; seq 300 | sed 's/^10$/ten/; 100d; 150a\
150 and a half
s/^200$/two hundred/; 201,220d; 300a\
end' >b/numbers; echo gone >a/gone; echo new >b/new/deep/file; printf 'a\nb' >a/no-newline; printf 'a\nc\nd' >b/no-newline
diff -ruN a b | sed -E 's,^(---|\+\+\+) .*\t1970-01-01 .*,\1 /dev/null,' >d.patch
grep -q 'No newline' d.patch; grep -q '^--- /dev/null' d.patch; grep -q '^+++ /dev/null' d.patch''')
# As `diff -N` writes it: not by /dev/null but by its time, the beginning of 1970, a file is one that is not there.
case('diff-of-trees', r'''
- diff: { from: h/d.patch }
''', 'patch -s -p1 <"$H/d.patch"',
     host='mkdir -p a/usr/share/doc/hello b/etc/new/deep b/usr/share/doc/hello; echo new >b/etc/new/deep/file; echo differs only by case >a/usr/share/doc/hello/readme\n'
          'diff -ruN a b >d.patch || [ $? = 1 ]')
case('replacements', r'''
- copy: { from: h/r, path: /r, mode: "0600", owner: "1:2" }
- replace: { path: /r, find: "^#.*\n", with: "" }
- replace: { path: /r, find: '^(\w+)\s*=\s*(.*)$', with: "$2 <- $1", count: 2 }
- replace: { path: /r, find: "BEGIN(?s:.*)END", with: "$0$0" }
- replace: { path: /r, find: '(?i)(H)ELLO', with: "$${1}ullo" }
- replace: { path: /r, find: '(?-u:\xef)', with: "ï" }
- replace: { path: /r, find: "last$", with: "$$$$1" }
- replace: { path: /r, find: '\z', with: "end\n" }
''', r'''
printf '1 <- a\ntwo words <- b\nc = 3\nBEGIN\nmiddle\nENDBEGIN\nmiddle\nEND\nHullo hullo\nna\303\257ve\n$1\nend\n' >r; chmod 600 r; chown 1:2 r
''', host=r'''printf '# comment\na = 1\n#\nb=two words\nc = 3\nBEGIN\nmiddle\nEND\nHello hello\nna\357ve\nlast\n' >r''')


def run_case(c):
    with scratch() as tmp:
        os.mkdir(os.path.join(tmp, 'h'))
        if c.host:
            call('sh', '-euc', c.host, cwd=os.path.join(tmp, 'h'))
        m = os.path.join(tmp, 'm.yaml')
        with open(m, 'w') as file:
            file.write('image: oci:%s/testimages/hello:latest\nplatform: linux/amd64\n%spatches:\n%s\n' % (TOP, c.head, c.patches.strip()))
        judge(m, c.script, tmp, args=c.args, also=c.also)


@check('patch-more')
def more():
    return '%d cases' % run_all([(c.name, functools.partial(run_case, c)) for c in MORE])
