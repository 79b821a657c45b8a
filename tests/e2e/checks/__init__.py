"""What is checked, one file for each subject. Each file registers its checks here when it is imported."""

import collections
import importlib
import pkgutil

# `long`: only a run with --long has it.
Check = collections.namedtuple('Check', 'name run long')
CHECKS = []


def check(name, long=False):
    def register(run):
        CHECKS.append(Check(name, run, long))
        return run

    return register


def every_check():
    """Imports each file of this directory, so that none can be forgotten, and returns what they registered."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module('%s.%s' % (__name__, module.name))
    return CHECKS
