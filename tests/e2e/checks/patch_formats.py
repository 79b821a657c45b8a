"""Patches of files of other formats: accounts, archives, unified diffs, regular expressions."""

from checks.patch_cases import case

# Files of other formats.
case(
    'users',
    r"""
- write: { path: /etc/gshadow, content: "root:*::\nhello:!::\naudio:*::hello\n", mode: "0640", owner: "0:42" }
- append: { path: /etc/group, content: "audio:x:29:hello\nvideo:x:44:" }       # without a newline at the end
- user: { name: one, groups: [audio, hello] }
- user: { name: two, uid: 1500, gid: 1600, groups: [video, audio], create-home: true, home: /srv/homes/two }
- user: { name: three, uid: 1700, group: "29", home: /nowhere, shell: /bin/false, comment: "Three, of three" }
- user: { name: four, uid: 1800, group: video }
- write: { path: /srv/homes/two/f, content: "", owner: "two:two" }
""",
    r"""
printf 'root:*::\nhello:!::\naudio:*::hello\n' >etc/gshadow; chmod 640 etc/gshadow; chown 0:42 etc/gshadow
printf 'audio:x:29:hello\nvideo:x:44:' >>etc/group
add_user -U -d /home/one -s /bin/sh -G audio,hello one; add_group -g 1600 two
add_user -u 1500 -g two -G video,audio -m -d /srv/homes/two -s /bin/sh two
add_user -u 1700 -g 29 -d /nowhere -s /bin/false -c 'Three, of three' three
add_user -u 1800 -g video -d /home/four -s /bin/sh four
: >srv/homes/two/f; chown 1500:1600 srv/homes/two/f
""",
)


case(
    'user-without-files',
    r"""
- remove: { path: "/etc/{passwd,group,shadow}" }
- user: { name: first, create-home: true, home: /first }
""",
    r"""
rm etc/passwd etc/group etc/shadow; echo first:x:1000:1000::/first:/bin/sh >etc/passwd; echo first:x:1000: >etc/group
mkdir -m 700 first; chown 1000:1000 first
""",
)


case(
    'layers',
    r"""
- extract: { from: h/e.tar.gz }
- extract: { from: h/through.tar }
- extract: { from: h/link.tar }
- extract: { from: h/usr.tar.zst, path: /usr }
- extract: { from: h/usr.tar.zst, path: /lib }        # through a link
- append: { path: /etc/extra, content: "more\n" }
- remove: { path: /var/cache/app/n }
""",
    r"""
rm -r etc/motd var/cache/app/* usr/share/doc/hello
tar --xattrs --xattrs-include='*' -xpf "$H/e.tar.gz" --exclude='.wh.*'
echo through >usr/lib/app/through; chown 12:13 usr/lib/app/through; touch -d @1600000000.25 usr/lib/app/through
ln usr/lib/app/hello usr/lib/app/hl
zstd -dcq "$H/usr.tar.zst" | tar -xp --exclude='.wh.*' -C usr; zstd -dcq "$H/usr.tar.zst" | tar -xp -C usr/lib
echo more >>etc/extra
rm var/cache/app/n; touch -d @1600000000.25 var/cache/app
""",
    host=r"""
umask 022; mkdir -p t/etc t/var/cache/app t/usr/share/doc u/share u/lib l/usr/lib/app m/lib/app
echo e >t/etc/extra; setfattr -n user.x -v y t/etc/extra; ln t/etc/extra t/etc/extra2
echo c >t/etc/capable; setcap cap_net_raw+ep t/etc/capable; ln -s extra t/etc/s; mkfifo t/etc/p; chmod 1770 t/etc
: >t/etc/.wh.motd; : >t/var/cache/app/.wh..wh..opq; echo n >t/var/cache/app/n; : >t/usr/share/doc/.wh.hello
own='--sort=name --owner=12 --group=13 --numeric-owner --mtime=@1600000000.25 --format=pax'
own="$own --pax-option=delete=atime,delete=ctime"
tar $own --xattrs --xattrs-include='*' -czf e.tar.gz -C t .
echo through >m/lib/app/through; tar $own -cf through.tar -C m lib/app/through
echo >l/usr/lib/app/hello; ln l/usr/lib/app/hello l/usr/lib/app/hl
tar $own -cf link.tar -C l usr/lib/app/hello usr/lib/app/hl; tar --delete -f link.tar usr/lib/app/hello
echo u >u/share/u; ln u/share/u u/lib/u; truncate -s 1M u/share/sparse; echo end >>u/share/sparse
tar $own -S -cf - -C u . | zstd -q -o usr.tar.zst""",
)


case(
    'diffs',
    r"""
- write: { path: /srv/d/numbers, from: h/moved, parents: true, mode: "0755", owner: "3:4" }
- write: { path: /srv/d/gone, content: "gone\n" }
- write: { path: /srv/d/no-newline, content: "a\nb" }
- xattr: { path: /srv/d/numbers, set: { user.kept: k } }
- diff: { from: h/d.patch, path: /srv/d }
- diff:
    strip: 2
    content: "--- x/y/etc/motd\n+++ x/y/etc/motd\n@@ -1 +1,2 @@\n a kernel reads this from EROFS\n+and more\n"
""",
    r"""
mkdir -p srv/d; cp "$H/moved" srv/d/numbers; chmod 755 srv/d/numbers; chown 3:4 srv/d/numbers; echo gone >srv/d/gone
printf 'a\nb' >srv/d/no-newline
patch -s -p1 -d srv/d --no-backup-if-mismatch <"$H/d.patch"; setfattr -n user.kept -v k srv/d/numbers
echo 'and more' >>etc/motd
""",
    host=r"""
mkdir -p a b/new/deep; seq 300 >a/numbers; (echo one more; echo and more; seq 300) >moved
seq 300 | sed 's/^10$/ten/; 100d; 150a\
150 and a half
s/^200$/two hundred/; 201,220d; 300a\
end' >b/numbers; echo gone >a/gone; echo new >b/new/deep/file; printf 'a\nb' >a/no-newline
printf 'a\nc\nd' >b/no-newline
diff -ruN a b | sed -E 's,^(---|\+\+\+) .*\t1970-01-01 .*,\1 /dev/null,' >d.patch
grep -q 'No newline' d.patch; grep -q '^--- /dev/null' d.patch; grep -q '^+++ /dev/null' d.patch""",
)


# As `diff -N` writes it: not by /dev/null but by its time, the beginning of 1970, a file is one that is not there.
case(
    'diff-of-trees',
    r"""
- diff: { from: h/d.patch }
""",
    'patch -s -p1 <"$H/d.patch"',
    host='mkdir -p a/usr/share/doc/hello b/etc/new/deep b/usr/share/doc/hello; echo new >b/etc/new/deep/file; '
    'echo differs only by case >a/usr/share/doc/hello/readme\n'
    'diff -ruN a b >d.patch || [ $? = 1 ]',
)


case(
    'replacements',
    r"""
- copy: { from: h/r, path: /r, mode: "0600", owner: "1:2" }
- replace: { path: /r, find: "^#.*\n", with: "" }
- replace: { path: /r, find: '^(\w+)\s*=\s*(.*)$', with: "$2 <- $1", count: 2 }
- replace: { path: /r, find: "BEGIN(?s:.*)END", with: "$0$0" }
- replace: { path: /r, find: '(?i)(H)ELLO', with: "$${1}ullo" }
- replace: { path: /r, find: '(?-u:\xef)', with: "ï" }
- replace: { path: /r, find: "last$", with: "$$$$1" }
- replace: { path: /r, find: '\z', with: "end\n" }
""",
    r"""
printf '1 <- a\ntwo words <- b\nc = 3\nBEGIN\nmiddle\nENDBEGIN\nmiddle\nEND\nHullo hullo\nna\303\257ve\n$1\nend\n' >r
chmod 600 r; chown 1:2 r
""",
    host=r"""printf '# comment\na = 1\n#\nb=two words\nc = 3\nBEGIN\nmiddle\nEND\nHello hello\nna\357ve\nlast\n' >r""",
)
