"""Patches that copy, rename and remove: hard links, holes, times, whiteouts and opaque directories."""

import os

from checks.patch_cases import case
from harness.common import need


def upper_is_empty(paths, upper):
    need(not paths, 'nothing changed, and still the upper holds ' + ', '.join(paths))


def is_opaque(*names):
    def also(paths, upper):
        for name in names:
            need(
                'trusted.overlay.opaque' in os.listxattr(os.path.join(upper, name)),
                name + ' is not opaque in the upper',
            )

    return also


def is_sparse(*names):
    def also(paths, upper):
        for name in names:
            size = os.stat(os.path.join(upper, name)).st_blocks * 512
            need(size < 100_000, '%s has %d bytes on disk: its holes are gone' % (name, size))

    return also


# Content.
case(
    'hard-links-content',
    r"""
- append: { path: /usr/share/doc/hello/README.en, content: "more\n" }
- write: { path: /lib/app/probe, content: "#!/bin/sh\n", mode: "0700" }       # its capability goes, as with every write
- chmod: { path: /bin/cat, mode: "0711" }
- rename: { from: /bin/ls, path: /usr/ls }
- remove: { path: /bin/cp }
- copy: { from: h/f, path: /bin/mv }
- write: { path: /bin/mv, content: "own\n", owner: "1:1" }
- link: { path: /bin/mv2, target: /bin/mv }
- append: { path: /bin/mv2, content: "own\n" }
""",
    r"""
echo more >>usr/share/doc/hello/README
echo '#!/bin/sh' >usr/lib/app/probe; chmod 700 usr/lib/app/probe
chmod 711 bin/cat; mv bin/ls usr/ls; rm bin/cp bin/mv; printf 'own\nown\n' >bin/mv; chmod 640 bin/mv; chown 1:1 bin/mv
ln bin/mv bin/mv2
""",
    host='echo f >f; chmod 640 f',
)


case(
    'hard-links-removed',
    r"""
- remove: { path: /bin/cp }
- remove: { path: /lib/app/probe4 }
""",
    'rm bin/cp usr/lib/app/probe4',
)


case(
    'hard-links-renamed',
    r"""
- rename: { from: /lib/app/probe4, path: /lib/app/another }
- rename: { from: /usr/share/doc/hello/README, path: /usr/share/doc/hello/README.en, force: true }
""",
    'mv usr/lib/app/probe4 usr/lib/app/another; rm usr/share/doc/hello/README',
)


case(
    'hard-links-across',
    r"""
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
""",
    r"""
mv usr/share/doc/hello/README etc/r; ln etc/r home/r; ln home/hello/notes var/lib/notes; mv usr/share/doc usr/doc
chown -R 8:8 usr/doc; chmod -R o-r home
rm -r home/hello; ln bin/sh etc/sh; rm -r bin/[a-z]*; ln -s r etc/s; ln etc/r etc/s2; echo theirs >var/lib/notes
""",
)


case(
    'times',
    r"""
- chmod: { path: /lib/app/hello, mode: "0700" }           # its time has nanoseconds
- chown: { path: /var/queue, owner: "7:8" }
- xattr: { path: /etc/group, set: { user.x: y } }
- link: { path: /etc/notes, target: /home/hello/notes }
- rename: { from: /etc/motd, path: /etc/issue }
- rename: { from: /var/cache/app, path: /var/lib/app }
- write:        # no other content
    path: /etc/passwd
    content: "root:x:0:0:root:/root:/bin/sh\nhello:x:1000:1000:hello:/home/hello:/bin/sh\n"
    mode: "0600"
- write: { path: /etc/shadow, content: "root:*:19000:0:99999:7:::\n", owner: "0:0" }
""",
    r"""
chmod 700 usr/lib/app/hello; chown 7:8 var/queue; setfattr -n user.x -v y etc/group; ln home/hello/notes etc/notes
mv etc/motd etc/issue
mv var/cache/app var/lib/app; chmod 600 etc/passwd; chown 0:0 etc/shadow
""",
)


case(
    'large-and-sparse',
    r"""
- copy: { from: h/t, path: /t }
- append: { path: /t/large, content: "end\n" }
- append: { path: /usr/share/doc/hello/zeros, content: "end\n" }
- append: { path: /t/only-hole, content: "end\n" }
- append: { path: /bin/busybox, content: "end\n" }
- write: { path: /t/from-sparse, from: h/t/sparse }
""",
    r"""
cp -r --sparse=always "$H/t" t; cp --sparse=always t/sparse t/from-sparse; chmod 644 t/from-sparse
echo end >>t/large; echo end >>usr/share/doc/hello/zeros; echo end >>t/only-hole; echo end >>bin/busybox
""",
    host='umask 022; mkdir t; seq 400000 >t/large; truncate -s 40M t/only-hole; truncate -s 50M t/sparse; '
    'for i in 0 1000000 7000001 20000000 52000000; do '
    'printf x$i | dd of=t/sparse conv=notrunc oflag=seek_bytes seek=$i status=none; done; '
    'head -c 4096 t/large >t/block; head -c 4097 t/large >t/block+1; : >t/empty',
    also=is_sparse('t/only-hole', 't/sparse', 't/from-sparse'),
)


case(
    'many-files',
    '- copy: { from: h/many, path: /many, owner: "3:4" }\n- remove: { path: "/many/x*7" }\n'
    '- copy: { from: h/deep, path: /deep }',
    'cp -r "$H/many" many; chown -R 3:4 many; rm many/x*7; cp -r "$H/deep" deep',
    host='umask 022; mkdir many; seq -w 3000 | (cd many; split -l 1 -d -a 4 - x)\n'
    'mkdir -p deep/$(printf "d/%.0s" $(seq 100)); for i in $(seq 300); do mkdir deep/$i; done',
)


case(
    'variables',
    r"""
- write:
    path: "/etc/${FILE}"
    content: "${GIVEN} ${TWICE} $$ $${NAME} $x $ ${EMPTY}.\n"
    mode: "${MODE}"
    owner: "${OWNER}"
- symlink: { path: /v, target: "${NAME}" }
- user: { name: "${USER}", uid: "${UID}" }
""",
    r"""
printf 'given one-one $ ${NAME} $x $ .\n' >etc/v.conf; chmod 640 etc/v.conf; chown 0:1000 etc/v.conf; ln -s one v
add_user -u 1777 -U -d /home/v -s /bin/sh v
""",
    head='vars: { NAME: one, TWICE: "${NAME}-${NAME}", FILE: v.conf, MODE: "640", OWNER: ":hello", EMPTY: "", GIVEN: '
    'default, USER: v }\n',
    args=['--set', 'GIVEN=given', '--set', 'UID=1777'],
)


# What takes the place of what.
case(
    'copy-over',
    r"""
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
""",
    r"""
mkdir -m 700 t; mkdir -m 711 t/sub; chown 5:5 t t/sub; printf keep >t/keep; printf old >t/other; chmod 600 t/other
chown 7:7 t/other
echo s >t/sub/s; echo f >t/f; chmod 4755 t/f; ln -s f t/link; mknod -m 640 t/dev c 1 5; mkfifo -m 622 t/fifo
chmod 604 t/sub/s; ln -s /var/lib t/new
mkdir var/lib/deep; chmod 1777 var/lib/deep; echo d >var/lib/deep/d; chmod 0 var/lib/deep/d
rm usr/share/doc/hello/README usr/share/doc/hello/readme usr/share/doc/hello/zeros; echo doc >usr/share/doc/hello/README
chmod 664 usr/share/doc/hello/README
ln -s README usr/share/doc/hello/readme; chgrp -h 1000 usr/share/doc/hello/README usr/share/doc/hello/readme
mkdir usr/share/doc/more; chgrp 1000 usr/share/doc/more
chmod 775 usr/share/doc/more; echo f >usr/share/doc/hello/zeros; chmod 4755 usr/share/doc/hello/zeros
rm home/hello/notes; echo f >home/hello/notes; chown 1000 home/hello/notes; chmod 4755 home/hello/notes
""",
    host=r"""umask 022; mkdir -p tree/sub tree/new/deep doc/hello doc/more; echo f >tree/f; chmod 4755 tree/f
echo s >tree/sub/s; chmod 604 tree/sub/s; ln -s f tree/link
mkfifo tree/fifo; chmod 622 tree/fifo; mknod -m 640 tree/dev c 1 5; chmod 1777 tree/new/deep; echo d >tree/new/deep/d
chmod 0 tree/new/deep/d
echo doc >doc/hello/README; ln -s README doc/hello/readme; chown -R 42:42 tree/sub
setfattr -n user.not -v taken tree/sub/s; touch -d 2001-01-01 tree/sub/s""",
)


case(
    'copy-links',
    '- copy: { from: h/t, path: /t, exclude: [gone], mode: "go-w" }\n- append: { path: /t/a, content: more }',
    r"""
mkdir -p t/sub; printf abcmore >t/a; ln t/a t/b; ln t/a t/sub/c; ln -s nowhere t/s; ln t/s t/s2; mkfifo -m 640 t/p
ln t/p t/sub/p
""",
    host='umask 022; mkdir -p t/sub; printf abc >t/a; ln t/a t/b; ln t/a t/sub/c; ln t/a t/gone; ln -s nowhere t/s; '
    'ln t/s t/s2; mkfifo -m 660 t/p; ln t/p t/sub/p',
)


case(
    'copy-exclude',
    r"""
- copy: { from: h/t, path: /t, exclude: ["*.pyc", __pycache__, "docs/*.txt", sub/skip, "**/only", "{x,y}?"] }
- copy: { from: h/t/docs, path: /docs, exclude: ["deep/*"] }
""",
    r"""
cp -r "$H/t" t; cp -r t/docs docs; rm -r docs/deep/a.txt
cd t; rm -r a.pyc sub/b.pyc sub/__pycache__ docs/a.txt sub/skip sub/deeper/only x1 sub/y2
""",
    host='umask 022; mkdir -p t/sub/__pycache__ t/docs/deep t/skip t/sub/skip t/sub/deeper/only/z; cd t\n'
    'for f in a.pyc sub/b.pyc sub/__pycache__/x docs/a.txt docs/keep.md '
    'docs/deep/a.txt skip/f sub/skip/f sub/deeper/only/z/f x1 sub/y2 xx1 x.pyc.not; do echo $f >$f; done',
)


case(
    'other-types',
    r"""
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
""",
    r"""
rm etc/motd; mkdir etc/motd; printf x >etc/motd/x; rm -r var/cache/app; printf file >var/cache/app; rm -r usr/share/doc
ln -s ../lib usr/share/doc
rm dev/null; : >dev/null; rm lib; mkdir lib; rmdir var/lib; mkfifo -m 644 var/lib
""",
)


case(
    'opaque',
    r"""
- remove: { path: /var/cache/app, recursive: true }
- mkdir: { path: /var/cache/app, mode: "0755" }
- remove: { path: /usr/share/doc/hello, recursive: true }
- write: { path: /usr/share/doc/hello/new, content: "n", parents: true }
- remove: { path: /home, recursive: true }
- mkdir: { path: /home }
- remove: { path: /home }
""",
    'rm -r var/cache/app; mkdir var/cache/app; rm -r usr/share/doc/hello; mkdir usr/share/doc/hello; '
    'printf n >usr/share/doc/hello/new; rm -r home',
    also=is_opaque('var/cache/app', 'usr/share/doc/hello'),
)


case(
    'rename-directories',
    r"""
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
""",
    r"""
mv var/cache usr/cache; mkdir var/cache; printf n >var/cache/new; mv usr/share/doc usr/lib/doc
echo more >>usr/lib/doc/hello/README
mv usr/lib/doc/hello empty; mv data var/cache/data; mv bin usr/bin; ln -s usr/bin bin; mv usr/bin/sh usr/bin/shell
""",
)


case(
    'made-and-gone',
    r"""
- write: { path: /etc/new, content: n }
- remove: { path: /etc/new }
- mkdir: { path: /a/b/c, parents: true }
- copy: { from: h/t, path: /a/b/t }
- rename: { from: /a, path: /z }
- remove: { path: /z, recursive: true }
- rename: { from: /etc/motd, path: /etc/m }
- rename: { from: /etc/m, path: /etc/motd }
""",
    '',
    host='mkdir t; echo >t/f',
    also=upper_is_empty,
)


case(
    'no-change',
    r"""
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
""",
    '',
    host="mkdir empty; printf 'a kernel reads this from EROFS\\n' >motd",
    also=upper_is_empty,
)


case(
    'remove-globs',
    r"""
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
""",
    r"""
cp -r "$H/g" g; ln -s ../etc g/link; cd g; rm a1 b1 .hidden a3 sub/a3 sub/more/a3 one/a one/b2 two/c
rm -r one/deep sub/deep; rm ../bin/[a-c]*
""",
    host='umask 022; mkdir -p g/sub/more g/one/deep g/two g/sub/deep; cd g\n'
    'for f in x a1 b1 .hidden a3 sub/a3 sub/more/a3 sub/a1 one/a one/b2 one/d two/c two/x one/deep/f sub/deep/f; '
    'do echo $f >$f; done',
)
