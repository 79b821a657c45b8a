"""The reading benchmark in a machine: the guest's kernel out of libkrunfw under qemu, with the reader as its PID 1.

Nothing of this project is in the guest but the reader, and every disk is attached in the same way. The emulation is in software and
its clock counts instructions, one a nanosecond, and what the guest waits for disks, whose files are in this machine's cache. What is
read warm takes the same time in every run, whatever else the machine does; times compare with each other and with no machine's.
"""
import ctypes
import os
import shutil
import struct
import subprocess

from reads_disks import TOP, ReadsError, TYPES, call, tool

KRUNFW = os.environ.get('ROOTFS_BOOT_KRUNFW', os.path.join(TOP, '.tools/guest/libkrunfw.so.5'))
PVH_NOTE = 18           # XEN_ELFNOTE_PHYS32_ENTRY


def kernel(path):
    """The kernel of libkrunfw as an ELF file: all of it as one segment, and a copy of the note that names its entry."""
    if not os.path.exists(KRUNFW):
        raise ReadsError('%s is not here: ci/tools --krunfw, or name another by ROOTFS_BOOT_KRUNFW' % KRUNFW)
    get = ctypes.CDLL(KRUNFW).krunfw_get_kernel
    get.restype = ctypes.c_void_p
    load, entry, size = ctypes.c_uint64(), ctypes.c_uint64(), ctypes.c_size_t()
    image = ctypes.string_at(get(ctypes.byref(load), ctypes.byref(entry), ctypes.byref(size)), size.value)
    for value in (8, 4):
        at = image.find(struct.pack('<III4s', 4, value, PVH_NOTE, b'Xen'))
        if at >= 0:
            break
    else:
        raise ReadsError('the kernel of %s has no PVH entry, by which qemu would start it' % KRUNFW)
    start = int.from_bytes(image[at + 16:at + 16 + value], 'little')
    note = struct.pack('<III4sQ', 4, 8, PVH_NOTE, b'Xen', start)
    head = struct.pack('<16sHHIQQQIHHHHHH', b'\x7fELF\x02\x01\x01', 2, 62, 1, start, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    head += struct.pack('<IIQQQQQQ', 1, 7, 4096, load.value, load.value, len(image), len(image), 4096)
    head += struct.pack('<IIQQQQQQ', 4, 4, 176, 0, 0, len(note), len(note), 4)
    with open(path, 'wb') as file:
        file.write((head + note).ljust(4096, b'\0') + image)


def boot_disk(path, reader, disks, steps, scratch):
    """The root of PID 1: itself, its plan, and the empty directories on which it mounts."""
    root = os.path.join(scratch, 'boot')
    for name in ('proc', 'sys', 'dev', *('mnt/' + contender for contender in disks)):
        os.makedirs(os.path.join(root, name))
    shutil.copy(reader, os.path.join(root, 'init'))
    with open(os.path.join(root, 'plan'), 'w') as plan:
        for letter, contender in zip('bcdefgh', disks):
            plan.write('\t'.join(('mount', TYPES[contender], '/dev/vd' + letter, '/mnt/' + contender)) + '\n')
        for label, contender, state, action, below, words in steps:
            plan.write('\t'.join(('do', label, state, action, os.path.join('/mnt', contender, below), *words)) + '\n')
    call(tool('mkfs.erofs', 'ci/tools --erofs'), path, root)


def run(reader, disks, steps, scratch, timeout=1500):
    """(label, the reader's line) of each step."""
    qemu = tool('qemu-system-x86_64', 'apt-get install qemu-system-x86')
    elf, boot = os.path.join(scratch, 'kernel.elf'), os.path.join(scratch, 'boot.erofs')
    kernel(elf)
    boot_disk(boot, reader, disks, steps, scratch)
    cmd = [qemu, '-M', 'microvm,acpi=off,auto-kernel-cmdline=on,isa-serial=off,pit=on,pic=on,rtc=on', '-accel', 'tcg', '-icount', 'shift=0', '-cpu', 'max', '-m', '3072',
           '-nodefaults', '-no-user-config', '-no-reboot', '-display', 'none', '-global', 'virtio-mmio.force-legacy=false', '-kernel', elf,
           # The clock's driver finds no interrupt left, and a triple fault is how the guest ends.
           '-append', 'console=hvc0 quiet reboot=t panic=-1 initcall_blacklist=cmos_init root=/dev/vda rootfstype=erofs ro init=/init',
           '-device', 'virtio-serial-device', '-chardev', 'stdio,id=out,signal=off', '-device', 'virtconsole,chardev=out']
    for i, path in enumerate([boot, *disks.values()]):
        if ',' in path:
            raise ReadsError('qemu takes no comma in the path of a disk: ' + path)
        cmd += ['-drive', 'if=none,id=d%d,format=raw,file=%s,readonly=on' % (i, path), '-device', 'virtio-blk-device,drive=d%d' % i]
    for path in disks.values():             # into the cache of this machine, whose disk is not what is measured
        with open(path, 'rb') as file:
            while file.read(1 << 20):
                pass
    try:
        p = subprocess.run(cmd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout)
        said = p.stdout
    except subprocess.TimeoutExpired as e:
        raise ReadsError('the guest was not done after %d s: %s' % (timeout, (e.stdout or b'')[-500:].decode(errors='replace')))
    lines = said.decode(errors='replace').replace('\r', '').splitlines()
    if 'done' not in lines:
        raise ReadsError('the guest: ' + '\n'.join(lines[-20:]))
    return [tuple(line.split('\t')) for line in lines if line.count('\t') == 1]
