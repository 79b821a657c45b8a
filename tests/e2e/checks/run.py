"""The command `run`: what it starts, what it pulls again, and registries on loopback that speak plain HTTP."""

import concurrent.futures
import contextlib
import json
import os
import signal
import subprocess

from checks import check
from harness.boot import ENV
from harness.common import BINARY, call, files, manifest_for, need, scratch
from harness.daemon import Daemon
from harness.proxy import slow
from harness.registry_bench import HELLO, LOGIN, all_of, bench, blobs, noise
from harness.run import Runs, runs
from layout import Layout, tagged

NO_NETWORK = {**os.environ, 'HTTPS_PROXY': 'http://127.0.0.1:1', 'HTTP_PROXY': 'http://127.0.0.1:1'}


@check('run-options')
def options():
    """What is for the machine comes to it, in whatever place it stands,
    and mistakes are told before anything is compiled."""
    with runs() as r:
        for args, words in (
            (['--memory', 'much', HELLO], '--memory'),
            ([HELLO, '--no-such'], '--no-such'),
            ([HELLO, '--volume', '/nosuch:/a'], '/nosuch'),
            ([HELLO, '--krunfw', '/nosuch'], 'libkrunfw'),
            (['./none'], 'no such file'),
            ([], 'IMAGE'),
            (['--pull', 'often', HELLO], '--pull'),
        ):
            r.run(*args, says=words, ok=(125,))
        need(not os.path.exists(r.cache), 'something was compiled')
        bundle, told = r.run(HELLO, says='5 layers')
        need(told == [] and os.path.basename(bundle) == 'hello', '%s %s' % (bundle, told))
        call(BINARY, 'verify', bundle)
        same = lambda *args: next(told for b, told in [r.run(*args)] if need(b == bundle, 'another bundle') is None)
        need(same(HELLO, 'a', '-x', '--memory', '1') == ['--', 'a', '-x', '--memory', '1'], 'a command without --')
        need(same(HELLO, '--', '-x') == ['--', '-x'], 'a command with --')
        told = same(
            '--memory',
            '512MiB',
            '-e',
            'A=1',
            HELLO,
            '--net',
            '-e',
            'B=',
            '--entrypoint',
            '',
            '-v',
            '/tmp:/t',
            '--',
            'x',
        )
        need(
            sorted(told[:-2])
            == sorted(['--memory=512MiB', '--env=A=1', '--env=B=', '--net', '--entrypoint=', '--volume=/tmp:/t'])
            and told[-2:] == ['--', 'x'],
            str(told),
        )
        need(told.index('--env=A=1') < told.index('--env=B='), 'another order: %s' % told)
        p = call(BINARY, 'run', '--help').stdout
        need(all(w in p for w in ('--pull', '--memory', '--engine', '--max-layer-bytes')), p)
        os.rename(os.path.join(r.tmp, 'bin/rootfs-boot'), os.path.join(r.tmp, 'aside'))
        r.run(HELLO, says='rootfs-boot is neither beside', ok=(125,), PATH='/nonexistent')


@check('run-inputs')
def inputs():
    """A bundle is used as long as all that it was made of is as it was, and no longer."""
    with runs() as r:
        at = lambda *names: os.path.join(r.tmp, *names)

        def write(name, text):
            os.makedirs(os.path.dirname(at(name)), exist_ok=True)
            with open(at(name), 'w') as file:
                file.write(text)

        write(
            'm/app.yaml',
            'image: oci:%s:latest\nplatform: linux/amd64\nvars: { WHAT: one }\npatches:\n  - include: more.yaml\n'
            '  - write: { path: /what, content: "${WHAT}" }\n  - copy: { from: tree, path: /tree }\n' % HELLO,
        )
        write('m/more.yaml', '- write: { path: /file, from: file }\n')
        write('m/file', 'one')
        write('m/tree/sub/file', 'one')
        run = lambda *args, **kw: r.run(at('m/app.yaml'), *args, **kw)[0]
        seen = [run(says='5 layers')]
        need(run() == seen[0], 'a second run has another bundle')

        def changed(what, *args):
            new = run(*args, says='5 layers')
            need(new not in seen, '%s: the same bundle' % what)
            need(run(*args) == new, '%s: and then another one' % what)
            seen.append(new)

        write('m/file', 'two')  # of the same size, and in the same tick perhaps
        changed('a source')
        write('m/tree/sub/file', 'two')
        changed('a file of a tree')
        write('m/tree/new', '')
        changed('a new file of a tree')
        write('m/more.yaml', '- write: { path: /file, content: "${WHAT}" }\n')
        changed('an included file')
        write('m/app.lock', json.dumps({'version': 1, 'images': {}}))
        changed('a lock that came')
        one = seen[-1]
        changed('--set', '--set', 'WHAT=two')
        need(run() == one, 'the bundle without --set is gone')
        for name in ('file', 'tree/sub/file', 'more.yaml', 'app.yaml'):
            os.utime(at('m', name), (1, 1))
        need(run() == one, 'a file that was only touched')
        os.unlink(os.path.join(one, 'fsmeta.erofs'))
        changed('a bundle that is not whole')
        need(len(r.made()) <= 3, 'bundles that nothing leads to: %s' % r.made())
        write('m/file', '')
        write('m/app.yaml', 'image: oci:a\nno: 1\n')
        r.run(at('m/app.yaml'), says='app.yaml:2:', ok=(125,))

        text = 'image: oci:%s:latest\nplatform: linux/amd64\n' % HELLO
        bundle, _ = r.run('-', stdin=text, says='5 layers')
        need(
            r.run('-', stdin=text)[0] == bundle and r.run('-', stdin=text + '#\n', says='5 layers')[0] != bundle,
            'standard input',
        )
        # Those that come at once wait for the first, and all have its bundle.
        write('m/app.yaml', text + 'patches:\n  - mkdir: { path: /new }\n')
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            jobs = [
                pool.submit(
                    call,
                    r.binary,
                    'run',
                    '--cache-dir',
                    r.cache,
                    at('m/app.yaml'),
                    ok=(7,),
                    env=r.env,
                    stdin=subprocess.DEVNULL,
                )
                for _ in range(6)
            ]
            ended = [job.result() for job in jobs]
        need(
            len({p.stdout.split('\n')[0] for p in ended}) == 1 and sum('5 layers' in p.stderr for p in ended) == 1,
            'six at once: %s' % [(p.stdout, p.stderr) for p in ended],
        )
    return '%d bundles' % len(seen)


@check('run-pull')
def pulls():
    """As docker run has it: --pull missing asks nobody for what is there,
    always does each time, never not even for what is not there."""
    with bench() as b:
        r = Runs(b.tmp)
        old, new = b.layout('old', [noise(1, 'gzip', 9000)]), b.layout('new', [noise(2, 'gzip', 9000)])
        b.site.push(old, 'app:1')
        proxy = b.site.proxy()
        name = proxy.host + '/app:1'
        bundle, _ = r.run(name, says='1 layers')
        need(os.path.basename(bundle) == 'app', 'the machine would be called ' + os.path.basename(bundle))
        b.site.push(new, 'app:1')
        proxy.forget()
        for args in ((), ('--pull', 'missing'), ('--pull', 'never'), ('--offline',)):
            need(r.run(*args, name)[0] == bundle, '%s: another bundle' % (args,))
        # Another question of the same tag has the image that is known, too.
        m = manifest_for(b.at('m.yaml'), name)
        first, _ = r.run(m, says='1 layers')
        need(not proxy.asked(), 'the registry was asked: %s' % [q.path for q in proxy.asked()])
        need(files(first)['fsmeta.erofs'] == files(bundle)['fsmeta.erofs'], 'another image')
        second, _ = r.run('--pull', 'always', name, says='1 layers')
        need(second != bundle and proxy.asked('manifests/1'), 'the new image is not taken')
        for args in (('--pull', 'always'), ()):
            need(r.run(*args, name)[0] == second, '%s: another bundle' % (args,))
        b.same(b.build(name), second, 'what run compiled')
        proxy.forget()
        r.run('--pull', 'never', proxy.host + '/app:2', says='not cached', ok=(125,))
        need(not proxy.asked(), '--pull never asks')
        interrupted(b, r)


@check('run-daemon')
def daemon():
    """Docker's own store is on this machine:
    its image is the one that it has now, and is saved only if that is another."""
    with runs() as r:
        at = lambda *names: os.path.join(r.tmp, *names)
        for name, layer in (('one', noise(1, 'gzip', 9000)), ('two', noise(2, 'gzip', 9000))):
            out = Layout(at(name))
            out.index(tagged(out.image([layer])))
            call(
                'skopeo',
                'copy',
                '--quiet',
                '--insecure-policy',
                'oci:%s:latest' % at(name),
                'docker-archive:%s.tar:example.com/app:latest' % at(name),
            )
        m = manifest_for(at('m.yaml'), 'docker-daemon:example.com/app:latest')
        with Daemon(at('docker.sock'), 'example.com/app:latest', at('one.tar')) as server:
            env, seen = {'DOCKER_HOST': 'unix://' + at('docker.sock')}, {}
            for word in ('docker-daemon:example.com/app:latest', m):
                server.archive, server.ident = at('one.tar'), 'sha256:one'
                one, _ = r.run(word, says='1 layers', **env)
                need(r.run(word, **env)[0] == one, 'a second run has another bundle')
                server.archive, server.ident = at('two.tar'), 'sha256:two'
                two, _ = r.run(word, says='1 layers', **env)
                need(r.run(word, **env)[0] == two, 'a second run has another bundle')
                seen[word] = [files(b)['fsmeta.erofs'] for b in (one, two)]
                need(seen[word][0] != seen[word][1], 'the same image')
            need(len({str(v) for v in seen.values()}) == 1, 'other images by a manifest')
            need(server.saved == 4, 'the image was saved %d times' % server.saved)
            server.shutdown()


def interrupted(b, r):
    """^C while layers come leaves nothing that looks like a bundle, and nothing of one."""
    layout = b.layout('slow', [noise(3, 'gzip')])
    b.site.push(layout, 'slow:1')
    proxy, before = b.site.proxy(), r.made()
    proxy.on(blobs(layout)[0], slow(4_000, 0.1))
    name = proxy.host + '/slow:1'
    p = subprocess.Popen(
        [r.binary, 'run', '--cache-dir', r.cache, name],
        env=r.env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not proxy.asked(blobs(layout)[0]):
        with contextlib.suppress(subprocess.TimeoutExpired):
            p.wait(0.05)
        need(
            p.poll() is None,
            'it ended before it could be interrupted: %s' % (p.stderr.read() if p.poll() is not None else ''),
        )
    p.send_signal(signal.SIGINT)
    p.communicate(timeout=60)
    need(p.returncode == -signal.SIGINT, 'exit %d' % p.returncode)
    places = [os.path.join(r.cache, 'bundles', d) for d in os.listdir(os.path.join(r.cache, 'bundles'))]
    left = [os.listdir(d) for d in places if not os.path.exists(os.path.join(d, 'record.json'))]
    need(r.made() == before and all(names == ['lock'] for names in left), 'left behind: %s' % left)
    r.run(name, says='1 layers')


@check('run-machine')
def machine():
    """The real thing: an image of a directory, then the same in a machine that ends with a code."""
    with scratch() as tmp:
        env = {**ENV, 'ROOTFS_COMPILE_CACHE': os.path.join(tmp, 'cache')}
        p = call(BINARY, 'run', HELLO, 'anywhere', env=env, stdin=subprocess.DEVNULL, timeout=600)
        need(p.stdout.startswith('hello, anywhere: ') and '5 layers' in p.stderr, p.stdout + p.stderr)
        p = call(
            BINARY,
            'run',
            HELLO,
            '--entrypoint',
            '/bin/sh',
            '--',
            '-c',
            'hostname; exit 3',
            env=env,
            stdin=subprocess.DEVNULL,
            timeout=600,
            ok=(3,),
        )
        need(p.stdout == 'hello\n' and 'layers' not in p.stderr, p.stdout + p.stderr)


@check('registry-loopback')
def loopback():
    """Plain HTTP without an option: on loopback alone, only where there is no TLS, and not through a proxy."""
    with bench() as b:
        site = b.site
        for name in ('hello:1', 'private/hello:1', 'public/hello:1'):
            site.push(HELLO, name)
        want, cases = b.of(HELLO), {}
        port = site.plain.host.split(':')[1]
        for name in (site.plain.host, 'localhost:' + port):
            cases[name] = lambda name=name: b.same(b.build(name + '/hello:1'), want, name)
        away = {'HTTP_PROXY': 'http://127.0.0.1:1', 'HTTPS_PROXY': 'http://127.0.0.1:1'}
        cases['no proxy'] = lambda: b.same(b.build(site.plain.host + '/hello:1', **away), want, 'no proxy')
        cases['a login'] = lambda: b.same(b.build(site.basic.host + '/private/hello:1', **LOGIN), want, 'a login')
        cases['a token'] = lambda: b.same(b.build(site.token.host + '/private/hello:1', **LOGIN), want, 'a token')
        cases['TLS'] = lambda: b.same(b.build(site.tls.host + '/hello:1', '--ca-cert', site.ca), want, 'TLS')
        for kind in ('tls', 'basic', 'token'):
            getattr(site, kind)  # started before there are threads
        # Whoever speaks TLS is not spoken to without, even if nobody trusts the certificate.
        cases['unknown CA'] = lambda: b.build(site.tls.host + '/hello:1', fails=[site.tls.host, 'certificate'])
        # Elsewhere it takes an option, or the variable.
        tunnel, proxy = site.proxy(), site.proxy()
        cases['elsewhere'] = lambda: b.build(
            'registry.invalid/hello:1',
            fails=['registry.invalid', '--insecure-registry'],
            HTTPS_PROXY='http://' + tunnel.host,
        )
        for i, text in enumerate(
            ('registry.invalid', 'other.invalid,registry.invalid:80 registry.invalid', ' registry.invalid, ')
        ):
            cases['variable %d' % i] = lambda text=text: b.same(
                b.build(
                    'registry.invalid/hello:1',
                    HTTP_PROXY='http://' + proxy.host,
                    ROOTFS_COMPILE_INSECURE_REGISTRIES=text,
                ),
                want,
                text,
            )
        cases['variable of another'] = lambda: b.build(
            'registry.invalid/hello:1',
            fails=['registry.invalid'],
            HTTP_PROXY='http://' + proxy.host,
            HTTPS_PROXY='http://127.0.0.1:1',
            ROOTFS_COMPILE_INSECURE_REGISTRIES='other.invalid registry.invalid:80',
        )
        said = all_of(cases, workers=3)
        with open(site.tls.log) as log:
            need('HTTP request to an HTTPS server' not in log.read(), 'a registry with TLS was spoken to without')
        need(
            {r.path for r in tunnel.asked()} == {'registry.invalid:443'},
            'elsewhere: %s' % {r.path for r in tunnel.asked()},
        )
        env = {'PATH': os.environ['PATH'], 'HOME': b.at('home')}
        call(BINARY, 'push', want, site.plain.host + '/bundles/hello:1', '--cache-dir', b.at('push'), env=env)
        call(
            BINARY,
            'pull',
            site.plain.host + '/bundles/hello:1',
            '-o',
            b.at('pulled'),
            '--cache-dir',
            b.at('push'),
            env=env,
        )
        need(files(b.at('pulled')) == files(want), 'what was pushed comes back as something else')
        return said
