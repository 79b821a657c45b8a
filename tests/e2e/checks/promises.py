"""The promises of SECURITY.md, and the checks that hold them."""

import os
import re

from checks import CHECKS, check
from harness.common import TOP, need


@check('promises')
def promises():
    """Every check that the table names is one."""
    with open(os.path.join(TOP, 'SECURITY.md')) as file:
        rows = [
            line
            for line in file.read().split('## What is promised')[1].split('## What is not')[0].splitlines()
            if line.startswith('| ')
        ][1:]
    need(len(rows) > 10, 'the table of promises is not found')
    known = {c.name for c in CHECKS}
    for row in rows:
        named = re.findall(r'`([a-z0-9-]+)`', row.split('|')[2])
        need(named, 'no check holds: ' + row)
        lost = sorted(set(named) - known)
        need(not lost, 'SECURITY.md names %s, and there is no such check: %s' % (', '.join(lost), row))
    return '%d promises' % len(rows)
