"""A minimal Debian 12 in a chroot, with little more than Rust, make and pip, in which this checkout and cargo's home
are at the same paths as here.

The same paths make what cargo built here fresh there, so that a machine may begin with a built target/. All that a run
mounts and starts lies in name spaces of its own, and is gone when the run ends, however it ends.
"""

import contextlib
import os
import pathlib
import re
import shutil
import stat
import subprocess
import tempfile

from harness import TOP

HOMES = {'root': '/root', 'user': '/home/user'}
OWNERS = {'root': 0, 'user': 1000}
CARGO_HOME = os.environ.get('CARGO_HOME', os.path.expanduser('~/.cargo'))
PASSED = {
    'http_proxy',
    'https_proxy',
    'no_proxy',
    'HTTP_PROXY',
    'HTTPS_PROXY',
    'NO_PROXY',
    'PIP_INDEX_URL',
    'PIP_EXTRA_INDEX_URL',
    'PIP_TRUSTED_HOST',
}
CERTIFICATES = 'etc/ssl/certs/ca-certificates.crt'

# Arguments: the root, the directory of the overlays, the base, this checkout, the home, Rust, CARGO_HOME, yes or no to
# KVM and to a built target/, and who runs the command; then the command.
ENTER = r"""
root=$1 over=$2 base=$3 top=$4 home=$5 rust=$6 cargo=$7 kvm=$8 built=$9 owner=${10}; shift 10
overlay() {     # overlay NAME LOWER PLACE
    mkdir -p "$over/$1/upper" "$over/$1/work" "$3"
    mount -t overlay -o "metacopy=on,lowerdir=$2,upperdir=$over/$1/upper,workdir=$over/$1/work" overlay "$3"
}
overlay system "$base" "$root"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
nodes='null zero full random urandom tty'
[ "$kvm" = no ] || nodes="$nodes kvm"
for node in $nodes; do : >"$root/dev/$node"; mount --bind "/dev/$node" "$root/dev/$node"; done
mkdir "$root/dev/shm"; mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
ln -s /proc/self/fd "$root/dev/fd"
: >"$root/etc/resolv.conf"; mount --bind /etc/resolv.conf "$root/etc/resolv.conf"
mkdir -p "$root/opt/rust"; mount --bind "$rust" "$root/opt/rust"; mount -o remount,bind,ro "$root/opt/rust"
for part in registry git; do [ ! -d "$cargo/$part" ] || overlay "cargo-$part" "$cargo/$part" "$root$cargo/$part"; done
[ "$built" = no ] || overlay target "$top/target" "$root$top/target"
if [ ! -e "$over/owned" ]; then
    who=$(stat -c %u:%g "$root$home")
    if [ "$who" != 0:0 ]; then
        chown -R -h "$who" "$root$top"
        # Cargo makes files in these directories, and only reads those that it had unpacked here, some of which are for
        # their owner alone.
        find "$root$cargo" -maxdepth 3 -exec chown -h "$who" {} +
        find "$root$cargo" ! -type l ! -perm -o=r -exec chmod a+rX {} +
    fi
    : >"$over/owned"
fi
exec chroot --userspec="$owner" --groups= "$root" "$@"
"""


class Machine:
    """One machine of one role, with what its commands leave behind."""

    def __init__(self, directory, base, role, kvm=False, built=True):
        self.directory, self.base, self.role, self.kvm, self.built = directory, base, role, kvm, built
        self.home = HOMES[role]
        self.upper = os.path.join(directory, 'over/system/upper')
        os.makedirs(os.path.join(directory, 'root'))
        for path in (self.home, TOP, CARGO_HOME, '/etc'):
            self.make(path)
        os.chown(self.upper + self.home, OWNERS[role], OWNERS[role])
        copy_checkout(self.upper + TOP)
        copy_configuration(self.upper, self.upper + self.home)

    def make(self, path):
        """Makes a directory of the machine; what is above it may be entered by everybody."""
        os.makedirs(self.upper + path, exist_ok=True)
        for parent in pathlib.PurePath(path).parents:
            below = self.base + str(parent)
            os.chmod(
                self.upper + str(parent), 0o755 | (stat.S_IMODE(os.stat(below).st_mode) if os.path.isdir(below) else 0)
            )

    def run(
        self,
        command,
        path='/opt/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
        role=None,
        timeout=3600,
    ):
        """Runs a shell command in the checkout;
        returns its exit status and all that it said, in the order in which it said it."""
        role = role or self.role
        rust = subprocess.run(
            ['rustc', '--print', 'sysroot'], stdout=subprocess.PIPE, text=True, check=True
        ).stdout.strip()
        # How target/ was built belongs to what is fresh.
        passed = [
            '%s=%s' % (k, v)
            for k, v in os.environ.items()
            if k in PASSED or k.startswith('CARGO_PROFILE_') or k == 'CARGO_INCREMENTAL'
        ]
        p = subprocess.run(
            [
                'unshare',
                '--mount',
                '--pid',
                '--fork',
                '--kill-child',
                'bash',
                '-euc',
                ENTER,
                'enter',
                os.path.join(self.directory, 'root'),
                os.path.join(self.directory, 'over'),
                self.base,
                TOP,
                self.home,
                rust,
                CARGO_HOME,
                'yes' if self.kvm else 'no',
                'yes' if self.built else 'no',
                '%d:%d' % (OWNERS[role], OWNERS[role]),
                'env',
                '-i',
                'PATH=' + path,
                'HOME=' + HOMES[role],
                'CARGO_HOME=' + CARGO_HOME,
                'LC_ALL=C.UTF-8',
                *passed,
                'sh',
                '-c',
                'cd "$0" && ' + command,
                TOP,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors='replace',
            timeout=timeout,
        )
        return p.returncode, p.stdout


def copy_checkout(out):
    """What a clone would have, as it is now: all but what .gitignore names."""
    unwanted = {os.path.join(TOP, name) for name in ('.git', 'target', '.tools', '.work')} | {
        os.path.abspath(os.environ.get('WORK', '.work'))
    }
    shutil.copytree(
        TOP,
        out,
        symlinks=True,
        dirs_exist_ok=True,
        ignore=lambda at, names: [
            name for name in names if os.path.join(at, name) in unwanted or name == '__pycache__'
        ],
    )


def copy_configuration(root, home):
    """Where pip and cargo get packages, and whom they trust; apt's is the base's."""
    for source, target in (
        ('/etc/pip.conf', root + '/etc/pip.conf'),
        ('/' + CERTIFICATES, os.path.join(root, CERTIFICATES)),
        ('~/.config/pip/pip.conf', home + '/.config/pip/pip.conf'),
        ('~/.pip/pip.conf', home + '/.pip/pip.conf'),
        (CARGO_HOME + '/config.toml', root + CARGO_HOME + '/config.toml'),
    ):
        source = os.path.expanduser(source)
        if os.path.exists(source):
            os.makedirs(os.path.dirname(target), exist_ok=True)
            shutil.copy(source, target)


def bookworm_mirror():
    for update in (False, True):  # without lists apt does not know which of its sources are bookworm's
        if update:
            subprocess.run(['apt-get', 'update', '-qq'], check=True)
        listed = subprocess.run(
            ['apt-get', 'indextargets', '--format', '$(REPO_URI)', 'Codename: bookworm', 'Created-By: Packages'],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        if listed.stdout:
            return min(listed.stdout.split())
    raise ValueError('apt has no repository of Debian 12 (bookworm) configured, from which a machine could be made')


def debian(directory):
    """The base of all machines, made if it is not there:
    Debian 12 as apt of this machine gets it, make, pip, and an ordinary user."""
    base = os.path.join(directory, 'debian')
    if os.path.isdir(base):
        return base
    os.makedirs(directory, exist_ok=True)
    mirror = bookworm_mirror()
    dump = subprocess.run(
        ['apt-config', 'dump', '--format', '%F "%v";%n', 'Acquire'], stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    options = os.path.join(directory, 'apt.conf')
    wanted = re.compile('Acquire::(http|Check-|Retries)')
    pathlib.Path(options).write_text(''.join(line + '\n' for line in dump.splitlines() if wanted.match(line)))
    shutil.rmtree(base + '.new', ignore_errors=True)
    subprocess.run(
        [
            'mmdebstrap',
            '--quiet',
            '--mode=root',
            '--variant=minbase',
            '--include=make,python3-pip,ca-certificates',
            '--aptopt=' + options,
            '--customize-hook=chroot "$1" useradd --create-home user',
            'bookworm',
            base + '.new',
            'deb %s bookworm main' % mirror,
        ],
        stdout=subprocess.DEVNULL,
        check=True,
    )
    os.rename(base + '.new', base)
    return base


@contextlib.contextmanager
def machine(work, role, **kw):
    base = debian(os.path.join(work, 'first-run'))
    with tempfile.TemporaryDirectory(prefix='machine.', dir=work) as directory:
        yield Machine(directory, base, role, **kw)
