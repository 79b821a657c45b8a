"""All programs that read a bundle say the same of it, and what lies in a file's place does no harm."""

import json
import os
import re
import resource
import shutil
import socket
import tarfile

from checks import check
from checks.sound import asks_boot, limited, own_copy, refused, said, verify
from harness.boot import BOOT
from harness.common import BINARY, HELLO, TOP, build, call, files, manifest_for, need, scratch
from layout import Layer, Layout, tagged
from tarfmt import d, f, sym


def in_its_place(path):
    """(what, how it is put there): none is a file that this program makes."""

    def listening(at):
        with socket.socket(socket.AF_UNIX) as s:
            here = os.getcwd()
            os.chdir(os.path.dirname(at))  # a socket's path is short
            s.bind(os.path.basename(at))
            os.chdir(here)

    def endless(at):
        with open(at, 'wb') as file:
            file.truncate(4 << 40)

    yield 'a link to /dev/zero', lambda at: os.symlink('/dev/zero', at)
    yield 'a link to the file itself', lambda at: os.symlink(path, at)
    yield 'a link to nothing', lambda at: os.symlink('nowhere', at)
    yield 'a fifo', os.mkfifo
    yield 'a socket', listening
    yield 'a directory', os.mkdir
    yield 'four tebibytes of hole', endless


@check('sound-directory')
def directory():
    """What lies in a signature's place, or in that of the layers of none, is judged by verify as by whoever uses it."""
    with scratch() as tmp:
        at = lambda *names: os.path.join(tmp, *names)
        image = Layout(at('none'))
        image.index(tagged(image.image([])))
        with open(at('none.yaml'), 'w') as file:
            file.write('image: oci:%s:latest\nplatform: linux/amd64\n' % at('none'))
        build(at('none.yaml'), at('out'), cache=at('cache'))
        if os.path.isdir(at('out/layers')):
            os.rmdir(at('out/layers'))
        call(BINARY, 'verify', at('out'))
        with open(at('notes'), 'w') as file:
            file.write('notes\n')

        def write(size):
            return lambda path: open(path, 'wb').write(bytes(size))

        cases = [
            (name, make)
            for name in ('bundle.json.minisig', 'layers')
            for make in (lambda path: os.symlink(at('notes'), path), write(100))
        ]
        cases += [
            ('bundle.json.minisig', os.mkdir),
            ('bundle.json.minisig', write(20_000)),
            ('layers', lambda path: os.symlink('.', path)),
        ]
        for name, make in cases:
            make(at('out', name))
            p = call(BINARY, 'verify', at('out'), ok=(1,))
            need(name in p.stdout + p.stderr, '%s is not named: %s' % (name, p.stdout + p.stderr))
            for args in (['--tar', at('tar')], ['--oci-layout', at('layout')]):
                p = call(BINARY, 'export', at('out'), *args, '--cache-dir', at('cache'), ok=(1,))
                need(name in p.stderr and not os.path.lexists(args[1]), 'export: %s: %s' % (name, p.stderr))
            (os.rmdir if os.path.isdir(at('out', name)) and not os.path.islink(at('out', name)) else os.unlink)(
                at('out', name)
            )
        call(BINARY, 'verify', at('out'))


@check('sound-openers')
def openers():
    """Everything that reads a bundle opens regular files alone, waits for nothing,
    and reads no more than there should be."""
    count = 0
    with scratch() as tmp:
        at = lambda name: os.path.join(tmp, name)
        build(HELLO, at('built'))
        out = own_copy(at('built'), at('out'))
        layer = sorted(name for name in files(out) if name.startswith('layers/'))[0]
        for name in ('bundle.json', 'bundle.vmdk', 'fsmeta.erofs', 'upper.ext4', layer):
            path = os.path.join(out, name)
            os.rename(path, at('kept'))
            for what, put in in_its_place(at('kept')):
                if name == 'upper.ext4' and 'hole' in what:
                    continue  # its size is wrong, which is another check's
                put(path)
                readers = [
                    [BINARY, 'verify', out],
                    [BINARY, 'export', out, '--raw', at('raw')],
                    [BOOT, '--dry-run', '--engine', 'qemu', out],
                ]
                if name in ('bundle.json', 'fsmeta.erofs'):
                    readers += [[BINARY, 'inspect', out]]
                for cmd in readers:
                    p = refused('%s is %s' % (name, what), *cmd, preexec_fn=limited)
                    need(
                        name in p.stdout + p.stderr,
                        '%s is %s, and the error of %s does not name it: %s' % (name, what, cmd[1], said(p)),
                    )
                    count += 1
                if os.path.isdir(path) and not os.path.islink(path):
                    os.rmdir(path)
                else:
                    os.unlink(path)
            os.rename(at('kept'), path)
        os.rename(os.path.join(out, 'layers'), at('layers'))
        os.symlink(at('layers'), os.path.join(out, 'layers'))
        refused('layers is a link', BINARY, 'verify', out)
        need(not os.path.exists(at('raw')), 'something was exported')
    return '%d cases' % count


@check('sound-image-openers')
def image_openers():
    """Layouts, archives and directories of skopeo's: the same holds for their files;
    but a link may lead to a regular file."""
    with scratch() as tmp:
        at = lambda name: os.path.join(tmp, name)
        count = 0
        layout = os.path.join(TOP, 'testimages/hello')
        shutil.copytree(layout, at('layout'))
        call('skopeo', 'copy', '--quiet', '--insecure-policy', 'oci:%s:latest' % layout, 'dir:' + at('skopeo'))
        blob = max(
            (os.path.join('blobs/sha256', n) for n in os.listdir(at('layout/blobs/sha256'))),
            key=lambda n: os.path.getsize(at('layout/' + n)),
        )
        for form, top, names in (
            ('oci', 'layout', ['index.json', 'oci-layout', blob]),
            ('dir', 'skopeo', ['manifest.json', os.path.basename(blob)]),
        ):
            m = manifest_for(at(form + '.yaml'), '%s:%s%s' % (form, at(top), ':latest' if form == 'oci' else ''))
            build(m, at(form + '.good'))
            for name in names:
                path = os.path.join(at(top), name)
                os.rename(path, at('kept'))
                for what, put in in_its_place(at('kept')):
                    put(path)
                    if what == 'a link to the file itself':
                        build(m, at(form + '.link'), '--force')
                    elif not (name == blob and 'hole' in what):
                        refused(
                            '%s is %s' % (name, what),
                            BINARY,
                            'build',
                            m,
                            '-o',
                            at('none'),
                            '--cache-dir',
                            at('none.cache'),
                            preexec_fn=limited_more,
                        )
                    count += 1
                    if os.path.isdir(path) and not os.path.islink(path):
                        os.rmdir(path)
                    else:
                        os.unlink(path)
                os.rename(at('kept'), path)
        # A name that is as long as the archive, which is a hole.
        header = tarfile.TarInfo('././@LongLink')
        header.type, header.size = tarfile.GNUTYPE_LONGNAME, 6 << 30
        with open(at('long.tar'), 'wb') as file:
            file.write(header.tobuf(tarfile.GNU_FORMAT))
            file.truncate((6 << 30) + 4096)
        for transport in ('docker-archive', 'oci-archive'):
            m = manifest_for(at('long.yaml'), '%s:%s' % (transport, at('long.tar')))
            p = refused('a name of 6 GiB', BINARY, 'build', m, '-o', at('none'), '--cache-dir', at('none.cache'))
            need('6442450944 bytes' in p.stderr, said(p))
        # What a manifest includes, and a file of variables.
        with open(at('m.yaml'), 'w') as file:
            file.write('image: oci:%s:latest\nplatform: linux/amd64\npatches: [{include: more.yaml}]\n' % at('layout'))
        for what, put in in_its_place('/dev/null'):
            put(at('more.yaml'))
            refused(
                'an included file is ' + what, BINARY, 'build', at('m.yaml'), '-o', at('none'), preexec_fn=limited_more
            )
            (os.rmdir if what == 'a directory' else os.unlink)(at('more.yaml'))
        refused(
            '--env-file without an end',
            BOOT,
            '--dry-run',
            '--env-file',
            '/dev/zero',
            at('oci.good'),
            preexec_fn=limited_more,
        )
        need(not os.path.exists(at('none')), 'something was built')
    return '%d cases' % count


def limited_more():
    """A build maps what it reads, and has buffers for each layer."""
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))


@check('sound-configs')
def configs():
    """Odd configs of images: either the build says no and names the image's config,
    or all who read the bundle say yes."""
    with scratch() as tmp:
        at = lambda name: os.path.join(tmp, name)
        out = Layout(at('layout'))
        cases = {
            'relative': ({'WorkingDir': 'srv/app'}, 'WorkingDir', None, '/srv/app'),
            'empty': ({'WorkingDir': '', 'StopSignal': '', 'User': ''}, '', None, '/'),
            'nul-dir': ({'WorkingDir': '/a\0b'}, 'WorkingDir', None, '/'),
            'long-dir': ({'WorkingDir': '/' + 256 * 'x'}, 'WorkingDir', None, '/'),
            'volumes': ({'Volumes': {'': {}, '/a\0': {}, '/' + 256 * 'x': {}, '/data': {}}}, 'Volumes', None, '/'),
            'signal': ({'StopSignal': 'SIGWHAT'}, 'StopSignal', None, '/'),
            'user': ({'User': 'a:b:c'}, None, 'User', None),
            'user-number': ({'User': '4294967296'}, None, 'User', None),
            'nul-env': ({'Env': ['A=\0']}, None, 'Env', None),
            'large-env': ({'Env': ['A%d=%s' % (i, 'x' * 1000) for i in range(2000)]}, None, 'Env', None),
            'many-env': ({'Env': ['A%d=' % i for i in range(40000)]}, '', None, '/'),
            'no-command': ({'Cmd': None, 'Entrypoint': None}, '', None, '/'),
        }
        for name, (config, warns, says, workdir) in cases.items():
            case = Layout(at(name))
            case.index(tagged(case.image([Layer(f('a', '1'))], config={'Cmd': ['/a'], **config})))
            m = manifest_for(at(name + '.yaml'), 'oci:%s:latest' % case.path)
            p = build(m, at(name + '.out'), ok=(1,) if says else (0,))
            if says:
                need(says in p.stderr and 'image' in p.stderr, '%s: %s' % (name, said(p)))
                need(not os.path.exists(at(name + '.out')), name + ' was built')
                continue
            need(warns in p.stderr, '%s: no warning: %s' % (name, said(p)))
            need(verify(at(name + '.out')).returncode == 0, name + ' is not sound')
            q = asks_boot(at(name + '.out'))
            need(
                q.returncode == 0 and json.loads(q.stdout)['command']['workdir'] == workdir, '%s: %s' % (name, said(q))
            )
            call(BINARY, 'export', at(name + '.out'), '--oci-layout', at(name + '.layout'))
            call(BINARY, 'pull', 'oci:' + at(name + '.layout'), '-o', at(name + '.back'))
        # What the manifest replaces does not count.
        with open(at('user.yaml'), 'a') as file:
            file.write('boot: {user: "0"}\n')
        build(at('user.yaml'), at('user.out'))
        need(asks_boot(at('user.out')).returncode == 0, "a user of the manifest's own")
        del out
    return '%d configs' % len(cases)


@check('sound-notes')
def notes():
    """A layer with 60,000 names through a link of the layer below: the index lists some, and counts the rest."""
    with scratch() as tmp:
        at = lambda name: os.path.join(tmp, name)
        out, deep = Layout(at('layout')), 'd' * 90
        out.index(
            tagged(out.image([Layer(d(deep), sym('link', deep)), Layer(*(f('link/%05d' % i) for i in range(60000)))]))
        )
        m = manifest_for(at('m.yaml'), 'oci:%s:latest' % out.path)
        build(m, at('out'))
        size = os.path.getsize(at('out/bundle.json'))
        need(size < 2 << 20, 'the index has %d bytes' % size)
        call(BINARY, 'verify', at('out'))
        text = call(BINARY, 'inspect', at('out')).stdout
        need(re.search(r'and \d+ more of these', text), 'inspect says nothing of the rest')
    return 'an index of %d bytes' % size


@check('sound-equal-xattrs')
def equal_xattrs():
    """270 files with the same 16 xattrs of 65,000 bytes: what a build makes of them, all readers take."""
    with scratch() as tmp:
        at = lambda name: os.path.join(tmp, name)
        xattrs = {'user.x%d' % i: 'v' * 65000 for i in range(16)}
        out = Layout(at('layout'))
        out.index(tagged(out.image([Layer(*(f('f%03d' % i, xattrs=xattrs) for i in range(270)))])))
        m = manifest_for(at('m.yaml'), 'oci:%s:latest' % out.path)
        build(m, at('out'), cache=at('cache'))
        call(BINARY, 'verify', at('out'))
        again = build(m, at('again'), cache=at('cache'))
        need('(1 cached)' in again.stderr and 'rebuilt' not in again.stderr, 'built again: ' + said(again))
