"""Man pages and completions for the programs that read them, and the examples of `--help`.

`rootfs-compile generate` writes the pages and the completions.
"""

import contextlib
import os
import re
import shlex

from checks import check
from harness.common import BINARY, TOP, call, files, need, scratch
from harness.registry_bench import bench

PROGRAMS = ('rootfs-boot', 'rootfs-compile')
LAYOUT = os.path.join(TOP, 'testimages/hello')
BOOT = os.path.join(os.path.dirname(BINARY), 'rootfs-boot')


def text_of(path):
    with open(path) as file:
        return file.read()


@contextlib.contextmanager
def generated():
    with scratch() as tmp:
        call(BINARY, 'generate', tmp)
        yield os.path.join(tmp, 'share')


def commands():
    """(name of the page, words that start the command) of all of them."""
    yield 'rootfs-boot', [BOOT]
    pending = [('rootfs-compile', [BINARY])]
    while pending:
        name, words = pending.pop()
        yield name, words
        listed = re.search(r'\nCommands:\n((?:  .*\n)+)', call(*words, '-h').stdout)
        for sub in re.findall(r'^  (\w+) ', listed[1], re.M) if listed else ():
            if sub != 'help':
                pending.append(('%s-%s' % (name, sub), [*words, sub]))


@check('man-pages')
def pages():
    """groff sets each page without a warning, and a page has what --help has: the usage, the options, the examples."""
    with generated() as share:
        at = os.path.join(share, 'man/man1')
        left = set(os.listdir(at))
        plain = lambda text: ' '.join(text.replace('\u2010', '-').split())
        for name, words in commands():
            page = os.path.join(at, name + '.1')
            p = call('groff', '-ww', '-man', '-Tutf8', '-P-cbou', '-rLL=200n', page)
            need(not p.stderr, '%s: %s' % (name, p.stderr))
            text, told = plain(p.stdout), call(*words, '--help').stdout
            for section in ('NAME', 'SYNOPSIS', 'DESCRIPTION', 'OPTIONS', 'EXAMPLES', 'SEE ALSO'):
                need(re.search('^%s$' % section, p.stdout, re.M), '%s has no %s' % (name, section))
            need(plain(re.search(r'Usage: (.*)', told)[1]) in text, name + ': another usage')
            options = set(re.findall(r'^ +(?:-\w, )?(--[\w-]+)', told, re.M))
            examples = re.findall(r'^  (\S.*)', told[told.index('Examples:') :], re.M)
            need(examples and options, name + ': its help was not understood')
            missing = [what for what in (*options, *map(plain, examples)) if what not in text]
            need(not missing, '%s lacks %s' % (name, ', '.join(missing)))
            left.remove(name + '.1')
        need(not left, 'pages of no command: %s' % left)
        return '%d pages' % len(os.listdir(at))


@check('completions')
def completions():
    """Each shell reads its file, and completes what was begun."""
    with generated() as share:
        bash = lambda name: os.path.join(share, 'bash-completion/completions', name)
        zsh = os.path.join(share, 'zsh/site-functions')
        fish = lambda name: os.path.join(share, 'fish/vendor_completions.d', name + '.fish')
        for name in PROGRAMS:
            call('bash', '-n', bash(name))
            call('zsh', '-n', os.path.join(zsh, '_' + name))
            call('fish', '--no-execute', fish(name))
            p = call(
                'zsh',
                '-fc',
                'fpath=(%s $fpath); autoload -Uz compinit; compinit -u -D; print -- $_comps[%s]'
                % (shlex.quote(zsh), name),
            )
            need(p.stdout.strip() == '_' + name, 'zsh completes %s with %r' % (name, p.stdout))

        def in_bash(*words):
            ask = r"""
                source "$1"; shift
                COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
                f=$(complete -p "$1"); f=${f#*-F }; f=${f%% *}
                "$f" "$1" "${@: -1}" "${@: -2:1}"
                printf "%s\n" "${COMPREPLY[@]}"
            """
            return set(call('bash', '-c', ask, 'bash', bash(words[0]), *words).stdout.split())

        def in_fish(*words):
            p = call(
                'fish',
                '--no-config',
                '-c',
                'source $argv[1]; complete --do-complete $argv[2]',
                '--',
                fish(words[0]),
                ' '.join(words),
            )
            return {line.split('\t')[0] for line in p.stdout.splitlines()}

        for shell, ask in (('bash', in_bash), ('fish', in_fish)):
            for words, wanted, strange in (
                (['rootfs-compile', 'in'], 'inspect', 'build'),
                (['rootfs-compile', 'cache', 'v'], 'verify', 'build'),
                (['rootfs-compile', 'build', '--dry'], '--dry-run', '--json'),
                (['rootfs-compile', 'run', '--timeo'], '--timeout', '--json'),
                (['rootfs-compile', 'run', '--pull', 'al'], 'always', 'never'),
                (['rootfs-boot', '--eph'], '--ephemeral', '--upper'),
                (['rootfs-boot', '--engine', 'q'], 'qemu', 'auto'),
            ):
                found = ask(*words)
                need(wanted in found and strange not in found, '%s completes %s with %s' % (shell, words, found))
        for name in ('generate', '--bundle-fd'):
            shown = [path for path in files(share) if name in text_of(os.path.join(share, path))]
            need(not shown, '%s, which is for packages and for programs, is in %s' % (name, shown))


@check('help-examples')
def examples():
    """The examples of rootfs-compile work, in the order of a bundle's life. Those that boot are read by a unit test."""
    told = {**dict(commands()), 'rootfs-compile-generate': [BINARY, 'generate']}
    of = lambda name: re.findall(
        r'^  (\S.*)', call(*told['rootfs-compile-' + name], '--help').stdout.split('\nExamples:\n')[1], re.M
    )
    done = 0
    with bench() as b:
        host = b.site.plain.host
        call(
            'skopeo', 'copy', '--dest-tls-verify=false', 'oci:%s:latest' % LAYOUT, 'docker://%s/python:3.12-slim' % host
        )
        call('skopeo', 'copy', 'oci:%s:latest' % LAYOUT, 'oci-archive:%s' % b.at('image.tar'))
        with open(b.at('app.yaml'), 'w') as file:
            file.write(
                'image: %s/python:3.12-slim\nvars: { PORT: "8080" }\n'
                'patches:\n  - write: { path: /port, content: "${PORT}" }\n' % host
            )
        env = {
            'PATH': os.path.dirname(BINARY) + ':' + os.environ['PATH'],
            'HOME': b.tmp,
            'XDG_CACHE_HOME': b.at('cache'),
        }
        os.mkdir(b.at('elsewhere'))
        for name in ('release.pub', 'app.tar'):
            os.symlink(b.at(name), b.at('elsewhere', name))
        here = {
            'python:3.12-slim': host + '/python:3.12-slim',
            'registry.example.com': host,
            '/usr/local': b.at('prefix'),
            '/var/cache/rootfs-compile': b.at('cache/rootfs-compile'),
        }
        for name in 'build inspect keygen sign verify push export pull cache cache-verify schema generate'.split():
            # The first key that is named is the one that others ask for.
            for example in reversed(of(name)) if name == 'sign' else of(name):
                for there, instead in here.items():
                    example = example.replace(there, instead)
                call('sh', '-c', example, env=env, cwd=b.at('elsewhere') if name == 'pull' else b.tmp)
                done += 1
        made = 'app.lock app.json app.img release.pub patches.schema.json prefix/share .local/share'.split()
        lacking = [name for name in made if not os.path.exists(b.at(name))]
        need(not lacking, 'the examples did not make %s' % lacking)
    return '%d examples' % done
