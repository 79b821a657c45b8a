"""Runs one command and says what it spent: python3 -I -S spend.py RESULT tree|one COMMAND...

A program of its own, and a small one: the kernel counts a child's peak from the size that its parent had when it started it, so
a peak below some 9 MiB cannot be seen from here. RESULT gets a line "NAME VALUE" for each figure, RESULT.log what the command said.

Processor time and bytes are those of the command with all descendants that it waited for. `peak` is the largest process;
with `tree`, where it is more, the largest sum over all processes that were there at once, looked at 50 times a second. `others`
is how many cores were busy with something else meanwhile, on this machine or (steal) on its host.
"""
import _thread
import os
import sys
import time


def read(path):
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return b''
    try:
        return os.read(fd, 4096)
    except OSError:
        return b''
    finally:
        os.close(fd)


def resident(pid):
    """Bytes in memory of `pid` and all its descendants."""
    statm = read('/proc/%d/statm' % pid).split()
    total = int(statm[1]) * os.sysconf('SC_PAGE_SIZE') if statm else 0
    try:
        tasks = os.listdir('/proc/%d/task' % pid)
    except OSError:
        return total
    for task in tasks:
        for child in read('/proc/%d/task/%s/children' % (pid, task)).split():
            total += resident(int(child))
    return total


def busy():
    """Seconds that all cores together have worked since boot."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, read('/proc/stat').split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf('SC_CLK_TCK')


def main():
    result, mode, command = sys.argv[1], sys.argv[2], sys.argv[3:]
    most = [0]
    log = os.open(result + '.log', os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    actions = [(os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)]
    busy_before = busy()
    start = time.perf_counter()
    pid = os.posix_spawnp(command[0], command, os.environ, file_actions=actions)
    if mode == 'tree':
        def watch():
            while True:
                most[0] = max(most[0], resident(pid))
                time.sleep(0.02)
        _thread.start_new_thread(watch, ())
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    wall = time.perf_counter() - start
    worked = busy() - busy_before
    # Not yet reaped, it still has its counters.
    io = dict(line.split(b': ') for line in read('/proc/%d/io' % pid).splitlines())
    _, status, usage = os.wait4(pid, 0)
    cpu = usage.ru_utime + usage.ru_stime
    figures = {
        'code': os.waitstatus_to_exitcode(status),
        'wall': wall,
        'cpu': cpu,
        'others': max(0, (worked - cpu) / wall),
        'peak': max(usage.ru_maxrss * 1024, most[0]),
        'wchar': int(io.get(b'wchar', b'-1')),
        'written': int(io.get(b'write_bytes', b'-1')),
    }
    with open(result, 'w') as out:
        for name, value in figures.items():
            out.write('%s %r\n' % (name, value))


main()
