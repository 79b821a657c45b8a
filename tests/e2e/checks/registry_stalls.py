"""Registries that fall silent: a build is patient for a minute, so this is of the longer suite."""

import os

from checks import check
from checks.registry_faults import EITHER, shape, suffer
from checks.registry_push import PUT, START, Pusher
from harness.common import HELLO, need
from harness.proxy import deaf, drip, slow_in, stall
from harness.registry_bench import all_of, bench, layers_in, noise


@check('registry-stalls', long=True)
def stalls():
    with bench() as b:
        layout = b.layout('app', [noise(1, 'gzip'), noise(2, 'zstd')])
        b.site.push(layout, 'app:1')
        want, clean = b.of(layout), shape(b.pull(b.site.plain, 'app:1').cache)
        one = layers_in(layout)[0][0]['digest']
        table = {
            'the manifest stays away once': lambda p: p.on('/manifests/', stall()),
            'a layer stands still once': lambda p: p.on(one, stall(100_000)),
            'a layer stays away once': lambda p: p.on(one, stall()),
        }
        return all_of(
            {name: (lambda name=name: suffer(b, name, 'app:1', want, clean, table[name], EITHER)) for name in table}
        )


@check('push-stalls', long=True)
def pushes():
    """What takes no more is given up after a while; what is only slow is not, and no drip of bytes lasts for ever."""
    with bench() as b:
        push, site = Pusher(b), b.site

        def slowly():
            # Longer than a minute for one blob, and never still for long.
            server = site.proxy().on('/(blobs/uploads)/.+digest=', slow_in(80), method='PUT')
            push(server, 'slow:1')
            push.comes_back('slow:1')

        def never():
            server = site.proxy().on(PUT, deaf(), None, method='PUT')
            push(server, 'deaf:1', 1, ['the upload stalled'])

        def silent():
            server = site.proxy().on(START, stall(), None, method='POST')
            push(server, 'silent:1', 1, ['no answer'])

        def dripping():
            site.push(os.path.join(os.path.dirname(os.path.dirname(HELLO)), 'testimages/hello'), 'app:1')
            server = site.proxy().on('/manifests/', drip(1), None)
            b.pull(server, 'app:1', fails=['too long'])
            need(len(server.asked('/manifests/')) == 2, 'asked %d times' % len(server.asked('/manifests/')))

        def dripping_blob():
            """A byte every two seconds is never silence, and no blob."""
            layout = b.layout('drip', [noise(7, 'gzip')])
            site.push(layout, 'drip:1')
            server = site.proxy().on(layers_in(layout)[0][0]['digest'], drip(2), None)
            b.pull(server, 'drip:1', fails=['--min-rate'])

        return all_of(
            {'slow': slowly, 'deaf': never, 'silent': silent, 'dripping': dripping, 'dripping blob': dripping_blob}
        )
