"""What the checks stand on: how programs are run and judged, and the machines and registries that they meet.

Arrows go one way: a check uses the harness and the models, the harness uses the models, and a model uses neither.
Of the harness, a model uses only `compare`, to say where it contradicts itself. A check uses helpers of another
check's file where both are about one subject.

Modules with a command line of their own run as `python3 -m harness.NAME` in tests/e2e.
"""

import os
import sys

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
# Images, mounts and caches; it may be deleted at any time.
WORK = os.path.abspath(os.environ.get('WORK') or os.path.join(TOP, '.work'))

# The writers of tar and OCI layouts that the test images are made with, and the modules that ci/tools may have fetched.
sys.path.append(os.path.join(TOP, 'testimages/cases'))
sys.path.append(os.path.join(TOP, '.tools/python'))
