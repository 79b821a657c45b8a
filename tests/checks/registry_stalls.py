"""Registries that fall silent: a build is patient for a minute, so this is of the longer suite."""
from registry import stall

from checks import check
from checks.registry import all_of, bench, layers_in, noise
from checks.registry_faults import EITHER, shape, suffer


@check('registry-stalls')
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
        return all_of({name: (lambda name=name: suffer(b, name, 'app:1', want, clean, table[name], EITHER)) for name in table})
