"""Patches: what a manifest changes, beside the same change made by plain tools on what `umoci unpack` gives."""

import functools
import json
import os
import re
import time

from checks import check
from harness.common import BINARY, TOP, build, call, need, same_files, scratch
from harness.images import image
from harness.plain_tools import DIR, judge_patched, run_all
from harness.upper import clean, overlay

MANIFESTS = os.path.join(TOP, 'manifests')
# The manifests in manifests/ops, in the words of plain tools.
OPS = {
    'write': r"""
        cat "$P/motd" >etc/motd
        echo 'not mine any more' >home/hello/notes
        mkdir etc/profile.d; echo 'export LANG=C.UTF-8' >etc/profile.d/lang.sh
        install -m 600 -o 1000 -g 1000 /dev/null home/hello/token
        printf '#!/bin/sh\necho "good morning, ${1:-world}"\n' >usr/lib/app/greet; chmod 755 usr/lib/app/greet""",
    'append': r"""
        echo 'Authorised use only.' >>etc/motd
        cat "$P/motd" >>home/hello/notes
        echo Patched. >>usr/share/doc/hello/README""",
    'copy': r"""
        mkdir -p srv/app/templates
        cp "$P/app/main.py" "$P/app/app.ini" srv/app; cp "$P/app/templates/index.html" srv/app/templates
        ln -s main.py srv/app/run
        chown -hR 1000:1000 srv/app; chmod -R u=rwX,go=rX srv/app; chmod 755 srv/app/main.py
        install -m 444 "$P/motd" usr/share/doc/hello
        rm usr/share/doc/hello/README; install -m 644 "$P/motd" usr/share/doc/hello/README""",
    'extract': r"""
        rm etc/motd var/cache/app/*
        mkdir -p opt/extra
        tar -xpf "$P/extra.tar" --exclude '.wh.*'
        tar -xpf "$P/extra.tar" --exclude '.wh.*' -C opt/extra
        # As in a layer, a directory that the tar only implies has no time.
        cd opt/extra; touch -d @0 etc usr usr/lib var var/cache var/cache/app""",
    'diff': r"""
        patch -s -p1 <"$P/hello.patch"
        edit etc/passwd sed 's/root:x:0:0:root/root:x:0:0:Super-User/' """,
    'replace': r"""
        edit etc/motd sed 's/kernel/Linux kernel/'
        edit etc/passwd sed 's,:/bin/sh$,:/bin/ash,'
        edit usr/lib/app/hello sed 's/user \$(id -u)/uid $(id -u)/' """,
    'mkdir': r"""
        mkdir etc/app.d; mkdir -m 750 var/lib/app; chown 10:10 var/lib/app
        mkdir -p srv/www; mkdir -m 1777 srv/www/spool; chmod 700 var/cache/app""",
    'symlink': r"""
        mkdir -p usr/local/bin; ln -s /lib/app/hello usr/local/bin/greet
        ln -s ../proc/self/mounts etc/mtab; chown -h 1000:1000 etc/mtab; ln -sf issue etc/motd""",
    'link': r"""
        ln bin/busybox bin/busybox2; ln usr/lib/app/hello usr/lib/app/hello2
        ln -f usr/share/doc/hello/README etc/motd""",
    'remove': r"""
        rm bin/hello; rm -r var/cache/app; rm bin/nc bin/wget bin/ping
        rm usr/share/doc/hello/README usr/share/doc/hello/README.en usr/share/doc/hello/readme""",
    'rename': r"""
        mv etc/motd etc/issue; mv usr/share/doc/hello usr/share/doc/greetings; mv bin/hello usr/hello
        mv -f usr/lib/app/probe4 bin/ping""",
    'chmod': r"""
        chmod 4755 usr/lib/app/probe; chmod g-s,o= data; chmod a-w etc/passwd etc/group
        chmod -R u=rwX,go= usr/share""",
    'chown': r"""
        chown 1000 etc/motd; chown 1000:1000 var/lib; chgrp 1000 etc/shadow; chown -hR 3000000:50 usr/share/doc
        chown 1000 usr/lib/app/probe""",
    'xattr': r"""
        setcap cap_net_raw,cap_net_bind_service+ep bin/busybox
        setfattr -n user.origin -v 'a manifest' home/hello/notes; setfattr -n trusted.key -v 0x000102ff home/hello/notes
        setfattr -x user.comment home/hello/notes
        setfacl -d -m u::rwx,u:1000:rwx,g::r-x,o::- data
        setcap -r usr/lib/app/probe; setfattr -n user.checked -v yes usr/lib/app/hello
        setfattr -n user.checked -v yes usr/lib/app/probe""",
    'mknod': r"""
        mknod -m 666 dev/fuse c 10 229; mknod -m 660 dev/vdb b 254 16; chown 0:6 dev/vdb
        mkdir -p run/app; mkfifo -m 600 run/app/control; chown 1000:1000 run/app/control""",
    'user': r"""
        add_user -u 2000 -U -d /srv/app -s /bin/sh -c 'The application' app
        mkdir -p srv/app; chown 2000:2000 srv/app
        add_user -u 1001 -g hello -m -s /bin/false guest""",
    'include': r"""
        echo 'An image of the house.' >etc/issue; cat "$P/motd" >etc/motd; mkdir etc/profile.d
        echo 'umask 027' >etc/profile.d/umask.sh
        echo 'This one greets.' >>etc/issue""",
}
# And the other ones there, with the image they are for.
REAL = {
    'sshd': (
        'hello',
        r"""
        mkdir -p etc/ssh/sshd_config.d; cp "$P/sshd/sshd_config" etc/ssh
        cp "$P/sshd/sshd_config.d"/* etc/ssh/sshd_config.d
        echo nogroup:x:65534: >>etc/group; add_user -u 110 -g nogroup -d /run/sshd -s /usr/sbin/nologin sshd
        mkdir -p run/sshd; patch -s -p1 <"$P/sshd.patch"; sed -i 's/^#Port .*/Port 2222/' etc/ssh/sshd_config
        chmod -R u=rwX,go=rX etc/ssh
        echo 'Authorised use only.' >etc/ssh/banner; chmod 600 etc/ssh/sshd_config""",
    ),
    'python-app': (
        'python-slim',
        r"""
        add_user -u 2000 -g app -d /var/lib/app -s /usr/sbin/nologin -c 'runs the application' web
        mkdir -p srv/app/templates var/lib/app; chown 2000:10001 var/lib/app; chmod 750 var/lib/app
        cp "$P/app/main.py" srv/app; cp "$P/app/templates/index.html" srv/app/templates; ln -s main.py srv/app/run
        printf '[app]\naddress = 0.0.0.0\nport = 80\nstate = /var/lib/app\n' >srv/app/app.ini
        chown -hR 10001:10001 srv/app; chmod -R u=rwX,go=rX srv/app
        echo 'export APP_CONFIG=/srv/app/app.ini' >etc/profile.d/app.sh
        setcap cap_net_bind_service+ep usr/bin/python3.11""",
    ),
    'hardened': (
        'python-slim',
        r"""
        echo 'An image of the house.' >etc/issue; cat "$P/motd" >etc/motd; echo 'umask 027' >etc/profile.d/umask.sh
        find usr -type f -perm /6000 -exec chmod ug-s {} +
        setcap -r usr/bin/ping
        edit etc/passwd sed -E '/^(sync|games|news|uucp|irc):/s,[^:]*$,/usr/sbin/nologin,'
        rm -rf usr/share/doc/* usr/share/man/* usr/share/info/* usr/share/lintian/* usr/share/locale/*
        rm -rf var/cache/apt/*.bin var/lib/apt/lists/* var/cache/debconf/* var/cache/ldconfig/*
        rm -f etc/passwd- etc/group- etc/shadow- etc/gshadow- etc/subuid- etc/subgid-
        find opt/venv -name 'pip*' -prune -exec rm -r {} +""",
    ),
}


def manifests():
    """Every manifest of the project, by its path below manifests/ without .yaml."""
    found = [
        os.path.relpath(os.path.join(at, name), MANIFESTS)[:-5]
        for at, _, names in os.walk(MANIFESTS)
        for name in names
        if name.endswith('.yaml')
    ]
    return sorted(found)


def options_of(name):
    """What a manifest's image is on this machine, as --set."""
    img = REAL.get(name, ('hello',))[0]
    return [] if img == 'hello' else ['--set', 'IMAGE=oci:%s:latest' % os.path.relpath(image(img), MANIFESTS)]


def with_patches(script):
    return 'P=%s/patches\n%s' % (TOP, script)


@check('patch-ops')
def ops():
    found = {name[4:] for name in manifests() if name.startswith('ops/')}
    need(found == set(OPS), 'manifests/ops and what is known of it here differ: ' + ', '.join(sorted(found ^ set(OPS))))

    def run(name):
        with scratch() as tmp:
            judge_patched(os.path.join(MANIFESTS, 'ops', name + '.yaml'), with_patches(OPS[name]), tmp)

    return '%d operations' % run_all([(name, functools.partial(run, name)) for name in sorted(OPS)])


@check('patch-examples')
def examples():
    """All that lies in manifests/ compiles, to the same bytes whatever must not matter;
    the larger ones make what plain tools make."""

    def run(name):
        with scratch() as tmp:
            m = os.path.join(MANIFESTS, name + '.yaml')
            first = os.path.join(tmp, 'first')
            second = os.path.join(tmp, 'second')
            env = {k: v for k, v in os.environ.items() if k != 'SOURCE_DATE_EPOCH'}
            build(m, first, *options_of(name), cache=os.path.join(DIR, 'cache'), env=env)
            build(
                os.path.relpath(m, tmp),
                second,
                '--jobs',
                '1',
                *options_of(name),
                cache=os.path.join(DIR, 'cache'),
                cwd=tmp,
                umask=0o077,
                env={**env, 'TZ': 'Pacific/Kiritimati', 'LC_ALL': 'C', 'HOME': tmp},
            )
            same_files(first, second, 'built twice')
            call(BINARY, 'verify', first)
            clean(os.path.join(first, 'upper.ext4'))
            with open(os.path.join(first, 'bundle.json')) as file:
                need(TOP not in file.read(), 'bundle.json holds a path of this host')
            if name == 'python-app':
                with overlay(first, tmp) as (merged, _, _):
                    # Its user may listen on a port below 1024, for which it needs the capability.
                    said = call(
                        'unshare',
                        '--net',
                        'chroot',
                        '--userspec=web:app',
                        merged,
                        '/opt/venv/bin/python',
                        '/srv/app/main.py',
                        '--check',
                    ).stdout
                    need(
                        said == 'app: web listens on port 80, and may write to /var/lib/app\n',
                        'the application says ' + said,
                    )
                    with open(os.path.join(first, 'bundle.json')) as file:
                        created = json.load(file)['config'].get('created')
                    found = time.strftime(
                        '%Y-%m-%dT%H:%M:%S', time.gmtime(os.stat(os.path.join(merged, 'etc/profile.d/app.sh')).st_mtime)
                    )
                    need(
                        created and created.startswith(found),
                        'what a patch made is of %s, the image of %s' % (found, created),
                    )

    def compared(name):
        with scratch() as tmp:
            img, script = REAL[name]
            judge_patched(os.path.join(MANIFESTS, name + '.yaml'), with_patches(script), tmp, img, options_of(name))

    names = manifests()
    need(set(REAL) < set(names), 'not in manifests/: ' + ', '.join(sorted(set(REAL) - set(names))))
    n = run_all(
        [(name, functools.partial(run, name)) for name in names]
        + [(name + ' by plain tools', functools.partial(compared, name)) for name in sorted(REAL)]
    )
    # The tar among the patches is what the command beside it makes.
    with open(os.path.join(MANIFESTS, 'ops/extract.yaml')) as file:
        command = (
            re.search(r'made in patches/ by\n((?:  #  .*\n)+)', file.read())[1].replace('\n', ' ').replace('#', ' ')
        )
    with scratch() as tmp:
        call(
            'sh',
            '-euc',
            command.replace('-cf extra.tar', '-cf ' + os.path.join(tmp, 'extra.tar')),
            cwd=os.path.join(TOP, 'patches'),
        )
        call('cmp', os.path.join(tmp, 'extra.tar'), os.path.join(TOP, 'patches/extra.tar'))
    return '%d manifests, %d of them by plain tools too' % (len(names), n - len(names) + len(OPS))


@check('patch-schema')
def schema():
    """The schemas are those of the program, every manifest is valid by them,
    and what the program refuses by its types is not."""
    import jsonschema  # here, so that missing_tools can say that they are missing
    import yaml

    validators = {}
    for file_name, args in (('schema.json', []), ('patches.schema.json', ['patches'])):
        said = call(BINARY, 'schema', *args).stdout
        with open(os.path.join(MANIFESTS, file_name)) as file:
            need(
                file.read() == said,
                'manifests/%s is not what `rootfs-compile schema%s` prints: make it again'
                % (file_name, ' patches' if args else ''),
            )
        doc = json.loads(said)
        kind = jsonschema.validators.validator_for(doc)
        kind.check_schema(doc)
        validators[file_name] = kind(doc)

    def errors_of(text, file_name='schema.json'):
        return [
            '%s: %s' % ('/'.join(map(str, e.absolute_path)), e.message)
            for e in validators[file_name].iter_errors(yaml.safe_load(text))
        ]

    lists = [
        os.path.join(TOP, 'patches', name)
        for name in os.listdir(os.path.join(TOP, 'patches'))
        if name.endswith('.yaml')
    ]
    for path in [os.path.join(MANIFESTS, name + '.yaml') for name in manifests()] + lists:
        with open(path) as file:
            text = file.read()
        first = re.match(r'# yaml-language-server: \$schema=(\S+)\n', text)
        need(first, os.path.relpath(path, TOP) + ' does not begin with the yaml-language-server line')
        named = os.path.normpath(os.path.join(os.path.dirname(path), first[1]))
        wanted = os.path.join(MANIFESTS, 'patches.schema.json' if path in lists else 'schema.json')
        need(named == wanted, '%s names the schema %s' % (os.path.relpath(path, TOP), first[1]))
        wrong = errors_of(text, os.path.basename(wanted))
        need(not wrong, '%s is not valid: %s' % (os.path.relpath(path, TOP), '\n'.join(wrong)))
    good = 'image: oci:x\nplatform: linux/amd64\nvars: { A: b, P: 80 }\nupper: { size: 16MiB }\npatches:\n'
    for patch in (
        '- mkdir: { path: /x, owner: 10, mode: "0755", parents: true }',
        '- user: { name: x, uid: 10, groups: [a], create-home: true }',
        '- include: x.yaml',
        '- mkdir: { path: /x, owner: "${A}", mode: "${A}", parents: "${A}" }',
        '- mknod: { path: /x, kind: char, major: "${A}", minor: 3 }',
        '- remove: { path: /x, missing: ok }',
    ):
        need(not errors_of(good + patch), 'by the schema wrong: %s: %s' % (patch, errors_of(good + patch)))
    for text in (
        'image: oci:x\nplatfrom: linux/amd64\n',
        'platform: linux/amd64\n',
        good + '  {}',
        *(
            good + '- ' + wrong
            for wrong in (
                'mkdir: { path: /x, recursive: true }',
                'mkdir: {}',
                'make: { path: /x }',
                'mkdir: /x',
                'mkdir: { path: /x }\n  remove: { path: /x }',
                'chmod: { path: /x, mode: 420 }',
                'mknod: { path: /x, kind: socket }',
                'remove: { path: /x, missing: maybe }',
                '{}',
                'user: { name: x, groups: a }',
            )
        ),
    ):
        need(errors_of(text), 'by the schema right: ' + text)
    need(errors_of('image: oci:x\n', 'patches.schema.json'), 'a manifest is valid by patches.schema.json')
    need(
        not errors_of('- mkdir: { path: /x }\n', 'patches.schema.json'),
        'a list of patches is not valid by patches.schema.json',
    )
    return '%d manifests, %d lists' % (len(manifests()), len(lists))


DRY = r"""# every sign once
image: oci:%s/testimages/hello:latest
platform: linux/amd64
patches:
- write: { path: /etc/new, content: "n" }
- write:
    path: /bin/hello
    content: "n"
- write: { path: /etc/motd, content: "a kernel reads this from EROFS\n" }
- include: list.yaml
- rename: { from: /etc/motd, path: /etc/issue }
- copy: { from: h, path: /srv/h, parents: true }
- remove: { path: "/usr/share/doc/hello/[nr]*" }
- user: { name: app }
- chmod: { path: "/etc/{passwd,group}", mode: "0600" }
"""
DRY_CHANGES = [
    ('m.yaml', 5, 'write', '/etc/new', ['+ /etc/new']),
    ('m.yaml', 6, 'write', '/bin/hello', ['~ /usr/lib/app/hello']),
    ('m.yaml', 9, 'write', '/etc/motd', []),
    ('list.yaml', 2, 'remove', '/var/cache/app', ['- /var/cache/app']),
    ('list.yaml', 3, 'append', '/home/hello/notes', ['~ /home/hello/notes']),
    ('m.yaml', 11, 'rename', '/etc/motd', ['- /etc/motd', '+ /etc/issue']),
    ('m.yaml', 12, 'copy', '/srv/h', ['+ /srv', '+ /srv/h', '+ /srv/h/a', '+ /srv/h/b', '+ /srv/h/b/c']),
    (
        'm.yaml',
        13,
        'remove',
        '/usr/share/doc/hello/[nr]*',
        ['- /usr/share/doc/hello/na?ve', '- /usr/share/doc/hello/readme'],
    ),
    ('m.yaml', 14, 'user', 'app', ['~ /etc/group', '~ /etc/passwd', '~ /etc/shadow']),
    ('m.yaml', 15, 'chmod', '/etc/{passwd,group}', ['~ /etc/group', '~ /etc/passwd']),
]


@check('patch-dry-run')
def dry_run():
    """What each patch would do, as text and as JSON, and nothing on disk but the cache."""
    with scratch() as tmp:
        work = os.path.join(tmp, 'work')
        os.makedirs(os.path.join(work, 'h/b'))
        for name, text in (
            ('m.yaml', DRY % TOP),
            ('h/a', 'a'),
            ('h/b/c', 'c'),
            (
                'list.yaml',
                '# a list\n- remove: { path: /var/cache/app, recursive: true }\n'
                '- append: { path: /home/hello/notes, content: "x" }\n',
            ),
        ):
            with open(os.path.join(work, name), 'w') as file:
                file.write(text)
        os.mkdir(os.path.join(tmp, 'tmp'))
        cache = os.path.join(tmp, 'cache')
        seen = lambda: sorted(
            os.path.join(at, name)
            for at, dirs, names in os.walk(tmp)
            for name in dirs + names
            if not os.path.join(at, name).startswith(cache)
        )
        before = seen()
        dry = lambda *args, ok=(0,): call(
            BINARY,
            'build',
            'm.yaml',
            '--dry-run',
            '--cache-dir',
            cache,
            *args,
            cwd=work,
            ok=ok,
            env={**os.environ, 'TMPDIR': os.path.join(tmp, 'tmp'), 'HOME': tmp},
        )
        text, doc = dry().stdout, json.loads(dry('--json').stdout)
        need(seen() == before, '--dry-run left behind: ' + ', '.join(sorted(set(seen()) - set(before))))
        # The name that is not UTF-8 is written somehow.
        plain = lambda path: re.sub(r'/na.*ve$', '/na?ve', path)
        want = [(*c[:4], sorted(c[4])) for c in DRY_CHANGES]
        found = [
            (
                os.path.basename(p['file']),
                p['line'],
                p['op'],
                p['path'],
                sorted('%s %s' % (c['change'], plain(c['path'])) for c in p['changes']),
            )
            for p in doc['patches']
            if p['op'] != 'include'
        ]
        for w, f in zip(want, found, strict=False):
            need(w == f, '--json: expected %s, found %s' % (w, f))
        need(len(want) == len(found), '--json has %d patches, not %d' % (len(found), len(want)))
        need(doc['upper']['size'] == 4 << 30, 'the upper would have %s bytes' % doc['upper'])
        found = []
        for line in text.splitlines():
            m = re.fullmatch(r'(\S+):(\d+): (\w+) (.*)', line)
            if m:
                found.append((os.path.basename(m[1]), int(m[2]), m[3], m[4], []))
            elif line.startswith('  ') and found:
                found[-1][4].append(plain(line[2:]))
            else:
                need(not line or found, 'a line that shows no patch: ' + line)
        found = [(*f[:4], sorted(f[4])) for f in found if f[2] != 'include']
        need(found == want, 'the text says otherwise than --json:\n' + text)
        # What fails fails here too, and still makes nothing.
        with open(os.path.join(work, 'm.yaml'), 'a') as file:
            file.write('- remove: { path: /none }\n')
        p = dry(ok=(1,))
        need('m.yaml:16: remove /none' in p.stderr, 'the error of --dry-run: ' + p.stderr)
        need(seen() == before, 'a --dry-run that fails left behind: ' + ', '.join(sorted(set(seen()) - set(before))))
