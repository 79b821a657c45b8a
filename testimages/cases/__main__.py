"""Writes the cases: python3 testimages/cases OUT [--scale] [NAME...]

Each becomes OUT/NAME with layout/, manifest.yaml and expect.json. With --list it prints the names and the rules instead."""
import argparse
import os
import shutil

import rules_choice  # noqa: F401  (the modules register their cases)
import rules_files  # noqa: F401
import rules_image  # noqa: F401
import rules_merge  # noqa: F401
import rules_metadata  # noqa: F401
import rules_paths  # noqa: F401
import rules_whiteout  # noqa: F401
from registry import CASES


def main():
    ap = argparse.ArgumentParser(prog='testimages/cases', description=__doc__.split('\n')[0])
    ap.add_argument('out', nargs='?')
    ap.add_argument('names', nargs='*')
    ap.add_argument('--scale', action='store_true', help='the cases of size instead')
    ap.add_argument('--list', action='store_true')
    a = ap.parse_intermixed_args()
    cases = CASES
    if a.scale:
        from scale import SCALE         # composing them takes a while, so only when asked for
        cases = SCALE
    if a.list:
        for c in cases.values():
            print('%2d %-36s %s' % (c.rule, c.name, c.about))
        return
    if a.out is None:
        ap.error('OUT is missing')
    unknown = set(a.names) - set(cases)
    if unknown:
        ap.error('no such case: ' + ', '.join(sorted(unknown)))
    os.umask(0o022)
    for name in a.names or cases:
        path = os.path.join(a.out, name)
        shutil.rmtree(path, ignore_errors=True)
        cases[name].save(path)
    print('%d cases in %s' % (len(a.names or cases), a.out))


if __name__ == '__main__':
    main()
