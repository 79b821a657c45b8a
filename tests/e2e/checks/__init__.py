"""The registry of end-to-end checks."""
import collections

Check = collections.namedtuple('Check', 'name run')
CHECKS = []


def check(name):
    def register(run):
        CHECKS.append(Check(name, run))
        return run
    return register
