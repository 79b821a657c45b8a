"""Random patches on random images: what the kernel shows must be what the plain model of model/patch_model.py says.

Environment: PATCH_MODEL_SEEDS=from-to (other seeds than those of CI; all errors are built, not a few), PATCH_MODEL_OPS
(25 an image).
"""

import copy
import json
import os
import random
import re
import stat

from checks import check
from harness import compare
from harness.common import BINARY, Failed, build, call, need, need_no_leftovers, quiet_kernel, same_files, scratch
from harness.upper import clean, overlay
from model.patch_maker import Maker
from model.patch_notation import Unclear, Wrong, raw

SEEDS, OPS = range(1, 41), int(os.environ.get('PATCH_MODEL_OPS', 25))


def put(path, value):
    """Writes what lies on the host."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    done = {}

    def node(path, n):
        if id(n) in done:
            return os.link(done[id(n)], path, follow_symlinks=False)
        done[id(n)] = path
        if n.kind == 'symlink':
            return os.symlink(n.target, path)
        if n.kind == 'dir':
            os.mkdir(path)
            for name, child in n.names.items():
                node(path + b'/' + name, child)
        elif n.kind == 'file':
            with open(path, 'wb') as file:
                file.write(n.data)
        else:
            os.mknod(
                path,
                {'char': stat.S_IFCHR, 'block': stat.S_IFBLK, 'fifo': stat.S_IFIFO, 'socket': stat.S_IFSOCK}[n.kind],
                os.makedev(*n.rdev),
            )
        os.chown(path, 12345, 54321)  # that is not to be taken over
        os.chmod(path, n.mode)
        for name in (k for k in n.xattrs if k.startswith(b'user.') and len(n.xattrs[k]) < 100):
            os.setxattr(path, name, n.xattrs[name])

    if isinstance(value, bytes):
        with open(path, 'wb') as file:
            file.write(value)
    else:
        node(raw(path), value)


class Manifest:
    """Patches as text. `line` is that of the last one, in `file`: an included one if that is where it is."""

    def __init__(self, rng, directory, patches, image, size):
        self.rng, self.directory, self.vars, self.number = rng, directory, {}, 0
        body, line = self.listed(patches, '')
        head = ['image: oci:' + image, 'platform: linux/amd64'] + (['upper: { size: %s }' % size] if size else [])
        head += (
            ['vars:'] + ['  %s: %s' % (k, json.dumps(v, ensure_ascii=False)) for k, v in self.vars.items()]
            if self.vars
            else []
        )
        op = patches[-1][0] if patches else ''
        self.file, self.line, self.op = self.last if op == 'include' else ('m.yaml', line + len(head) + 2, op)
        self.path = os.path.join(directory, 'm.yaml')
        self.text = '\n'.join([*head, 'patches:' if body else 'patches: []', *body]) + '\n'
        with open(self.path, 'w') as file:
            file.write(self.text)

    def string(self, text, key=''):
        """A value in quotes, with some of it from a variable."""
        dollar = lambda s: re.sub(r'\$(?=[${])|\$\Z', '$$', s) if self.rng.random() < 0.7 else s.replace('$', '$$')
        if len(text) > 1 and len(text) < 4000 and self.rng.random() < 0.06:
            i = self.rng.randrange(len(text))
            j = self.rng.randint(i, min(len(text), i + 20))
            name = 'V%d' % len(self.vars)
            self.vars[name] = dollar(text[i:j])
            text = text[:i].replace('$', '$$') + '${%s}' % name + text[j:].replace('$', '$$')
        else:
            text = dollar(text)
        if key in ('mode', 'path') and re.fullmatch('0[0-7]{3}|/[a-z/]*[a-z]', text) and self.rng.random() < 0.5:
            return text
        return json.dumps(text, ensure_ascii=False)

    def value(self, v, key='', up=''):
        if isinstance(v, bool):
            return 'true' if v else 'false'
        if isinstance(v, int):
            return str(v)
        if isinstance(v, list):
            return '[%s]' % ', '.join(map(self.value, v))
        if isinstance(v, dict):
            return '{ %s }' % ', '.join(
                '%s: %s' % (json.dumps(k, ensure_ascii=False), self.value(x)) for k, x in v.items()
            )
        return self.string(up + v if key == 'from' and v.startswith('host/') else v, key)

    def listed(self, patches, up):
        """The lines of a list, and the index of the last patch's."""
        lines, at = [], 0
        for op, fields, host in patches:
            at = len(lines)
            if op == 'include':
                self.number += 1
                inner, line = self.listed(host, '../../')
                name = 'parts/%d/p%d.yaml' % (self.number, self.number)
                self.last = os.path.basename(name), line + 1, host[-1][0]
                os.makedirs(os.path.join(self.directory, os.path.dirname(name)), exist_ok=True)
                with open(os.path.join(self.directory, name), 'w') as file:
                    file.write('\n'.join(inner) + '\n')
                lines.append('  - include: ' + self.string(name))
                continue
            items = ['%s: %s' % (k, self.value(v, k, up)) for k, v in fields.items()]
            if self.rng.random() < 0.7:
                lines.append('  - %s: { %s }' % (op, ', '.join(items)))
            else:
                lines += ['  - %s:' % op] + ['      ' + item for item in items]
        return lines, at


def differences(out, tmp, tree, lower, was):
    """What is wrong with a bundle, as text. `lower` is tree.freeze() from before the patches, `was` its dump()."""
    expected, kept = tree.dump(), {compare.escape(p): n for p, n in tree.untouched(lower).items()}
    for path, names in kept.items():
        if expected[path]['type'] != 'dir':  # overlayfs counts the names of the layer, also those that are whited out
            expected[path]['nlink'] = names
    clean(os.path.join(out, 'upper.ext4'))
    with overlay(out, tmp) as (at, _, up):
        upper = compare.read(os.path.join(up, 'upper'))
        text = compare.show(expected, compare.read(at))
    wrong = []
    whiteouts = {e.get('inode', path) for path, e in upper.items() if e['type'] == 'char' and e['rdev'] == [0, 0]}
    for path, e in upper.items():
        if e['type'] == 'char' and e['rdev'] == [0, 0]:
            needless = path not in was or path in expected
        elif e['type'] == 'dir':
            needless = path in kept and path != '/' and not any(p.startswith(path + '/') for p in upper)
        else:
            needless = path in kept
        if needless:
            wrong.append('%s: needless in the upper, as %s' % (path, e['type']))
    if len(whiteouts) > 1:
        wrong.append('the whiteouts are of several inodes: ' + ', '.join(sorted(whiteouts)))
    return '\n'.join(([text] if text else []) + wrong)


class Run:
    """One image with one sequence of patches."""

    def __init__(self, seed, tmp):
        self.seed, self.tmp, self.maker = seed, tmp, Maker(seed)
        self.maker.image(os.path.join(tmp, 'image'))
        self.lower, self.base = self.maker.tree.freeze(), self.maker.tree
        self.was, self.good, self.bad = self.base.dump(), [], []
        while len(self.good) < OPS:
            patch, why = self.maker.patch()
            if why:
                self.bad.append((len(self.good), patch, why))
            else:
                self.good.append(patch)
        for path, value in self.maker.hosts:
            put(os.path.join(tmp, path), value)
        self.size = random.Random(seed).choice(('64MiB', '100MiB', None))

    def manifest(self, patches):
        return Manifest(random.Random(self.seed), self.tmp, patches, os.path.join(self.tmp, 'image'), self.size)

    def build(self, m, out, *args, ok=(0,), cache='cache'):
        return build(
            m.path,
            out,
            *args,
            cache=os.path.join(self.tmp, cache),
            ok=ok,
            env={**os.environ, 'SOURCE_DATE_EPOCH': str(self.maker.now)},
        )

    def judge(self, patches):
        """What is wrong with the result of some patches; None if they are not to be judged."""
        tree = copy.deepcopy(self.base)
        try:
            tree.apply(patches)
        except (Wrong, Unclear):
            return None
        with scratch() as tmp:
            try:
                self.build(self.manifest(patches), os.path.join(tmp, 'bundle'))
                call(BINARY, 'verify', os.path.join(tmp, 'bundle'))
                return differences(os.path.join(tmp, 'bundle'), tmp, tree, self.lower, self.was)
            except (Failed, OSError, ValueError) as e:
                return str(e)

    def least(self, patches):
        """The patches without those that it fails without as well."""
        for i in reversed(range(len(patches))):
            fewer = patches[:i] + patches[i + 1 :]
            if self.judge(fewer):
                patches = fewer
        return patches

    def failing(self, before, patch, why):
        """A patch that must fail does, and says where."""
        m = self.manifest([*self.good[:before], patch])
        with scratch() as tmp:
            out = os.path.join(tmp, 'bundle')
            p = self.build(m, out, ok=range(-64, 256))
            text = m.text.split('\n')
            where = '%s:%d: %s ' % (m.file, m.line, m.op)
            need(
                p.returncode in (1, 2),
                'seed %d: exit %d of what is an error (%s): %s\n%s'
                % (self.seed, p.returncode, why, '\n'.join(text[-12:]), p.stderr[-600:]),
            )
            need(
                where in p.stderr and 'panicked' not in p.stderr,
                'seed %d: the message does not begin with %r (%s): %s' % (self.seed, where, why, p.stderr[-600:]),
            )
            need_no_leftovers(tmp)


@check('patch-model')
def model():
    given = os.environ.get('PATCH_MODEL_SEEDS')
    seeds = range(int(given.split('-')[0]), int(given.split('-')[-1]) + 1) if given else SEEDS
    failed, counts = [], [0, 0]
    for seed in seeds:
        with scratch() as tmp, quiet_kernel():
            run = Run(seed, tmp)
            wrong = run.judge(run.good)
            if wrong:
                least = run.least(run.good)
                failed.append(
                    'seed %d, SOURCE_DATE_EPOCH=%d:\n%s\n%s'
                    % (seed, run.maker.now, run.manifest(least).text, run.judge(least) or wrong)
                )
            errors = run.bad if given else run.bad[:4]
            for error in errors:
                try:
                    run.failing(*error)
                except Failed as e:
                    failed.append(str(e))
            if seed % 4 == 0 and not wrong:
                for name in ('one', 'two'):
                    run.build(run.manifest(run.good), os.path.join(tmp, name), cache='cache-' + name)
                same_files(os.path.join(tmp, 'one'), os.path.join(tmp, 'two'), 'seed %d, built twice' % seed)
        counts[0] += len(run.good)
        counts[1] += len(errors)
    need(not failed, '%d failures:\n%s' % (len(failed), '\n'.join(failed)))
    return '%d images, %d patches, %d errors' % (len(seeds), *counts)


NOTHING = """
  - chmod: { path: /usr/bin/tool, mode: "4755" }
  - chmod: { path: /usr/bin/tool, mode: "u+s" }
  - chown: { path: /usr, owner: "0:0", recursive: true }
  - write: { path: /usr/bin/tool, content: "#!/bin/sh\\n", mode: "4755", owner: "0:0" }
  - append: { path: /etc/app.conf, content: "" }
  - replace: { path: /etc/app.conf, find: "key1", with: "key1" }
  - mkdir: { path: /usr/lib, parents: true }
  - mkdir: { path: /usr/lib, parents: true, mode: "0755", owner: root }
  - symlink: { path: /bin, target: usr/bin }
  - link: { path: /usr/lib/tool, target: /bin/tool }
  - remove: { path: "/usr/*/nothing*", missing: ok }
  - rename: { from: /usr/lib, path: /usr/lib2 }
  - rename: { from: /usr/lib2, path: /usr/lib }
  - rename: { from: /etc/app.conf, path: /lib/app.conf }
  - rename: { from: /usr/lib/app.conf, path: /etc/app.conf }
  - rename: { from: /etc/app.conf, path: /etc/../etc/app.conf }
  - xattr: { path: /usr/bin/tool, set: { user.x: "1" } }
  - xattr: { path: /usr/lib/tool, remove: [user.x] }
  - mkdir: { path: /made }
  - write: { path: /made/file, content: "gone again" }
  - remove: { path: /made, recursive: true }
  - remove: { path: /srv/app/tool }
  - link: { path: /srv/app/tool, target: /usr/bin/tool }
  - chmod: { path: /etc, mode: "0700" }
  - chmod: { path: /etc, mode: "a=rX,u+w" }"""


@check('patch-nothing')
def nothing():
    """Patches after which all is as before leave the upper empty:
    each one alone, where it is nothing alone, and all together."""
    with scratch() as tmp, quiet_kernel():
        maker = Maker(0)
        maker.image(os.path.join(tmp, 'image'), ())
        with open(os.path.join(tmp, 'm.yaml'), 'w') as file:
            file.write(
                'image: oci:%s/image\nplatform: linux/amd64\nupper: { size: 64MiB }\npatches:%s\n' % (tmp, NOTHING)
            )
        out = os.path.join(tmp, 'bundle')
        build(os.path.join(tmp, 'm.yaml'), out, env={**os.environ, 'SOURCE_DATE_EPOCH': '1'})
        clean(os.path.join(out, 'upper.ext4'))
        with overlay(out, tmp) as (at, _, up):
            left = sorted(compare.read(os.path.join(up, 'upper')).keys() - {'/'})
            need(not left, 'in the upper though nothing changed: ' + ', '.join(left))
            text = compare.show(maker.tree.dump(), compare.read(at))
            need(not text, text)
