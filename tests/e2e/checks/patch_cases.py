"""The cases of patches that the worked examples leave out: what a case is, and the check that runs all of them.

The cases themselves are in patch_paths, patch_files, patch_attributes and patch_formats.
"""

import collections
import functools
import os

from checks import check
from harness.common import TOP, call, scratch
from harness.plain_tools import judge_patched, run_all

Case = collections.namedtuple('Case', 'name patches script host head args also')
MORE = []


def case(name, patches, script, host='', head='', args=(), also=None):
    """Patches, the same in plain tools, and a script that makes the host's files in h/ beside the manifest."""
    MORE.append(Case(name, patches, script, host, head, args, also))


def run_case(c):
    with scratch() as tmp:
        os.mkdir(os.path.join(tmp, 'h'))
        if c.host:
            call('sh', '-euc', c.host, cwd=os.path.join(tmp, 'h'))
        m = os.path.join(tmp, 'm.yaml')
        with open(m, 'w') as file:
            file.write(
                'image: oci:%s/testimages/hello:latest\nplatform: linux/amd64\n%spatches:\n%s\n'
                % (TOP, c.head, c.patches.strip())
            )
        judge_patched(m, c.script, tmp, args=c.args, also=c.also)


@check('patch-more')
def more():
    return '%d cases' % run_all([(c.name, functools.partial(run_case, c)) for c in MORE])
