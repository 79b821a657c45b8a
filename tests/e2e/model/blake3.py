"""BLAKE3 of small inputs, written after the specification's section 2, so that a check can make the hashes of a changed
bundle right.

python3 -m model.blake3 FILE      prints the hash
"""

import struct
import sys

IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
PERMUTATION = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
CHUNK_START, CHUNK_END, PARENT, ROOT = 1, 2, 4, 8
MASK = 0xFFFFFFFF
# The four columns, then the four diagonals.
MIXED = (
    (0, 4, 8, 12),
    (1, 5, 9, 13),
    (2, 6, 10, 14),
    (3, 7, 11, 15),
    (0, 5, 10, 15),
    (1, 6, 11, 12),
    (2, 7, 8, 13),
    (3, 4, 9, 14),
)


def compress(chaining, words, counter, length, flags):
    v = [*chaining, *IV[:4], counter & MASK, counter >> 32, length, flags]
    words = list(words)
    for _turn in range(7):
        for i, (a, b, c, d) in enumerate(MIXED):
            for word, (right, left) in zip(words[2 * i : 2 * i + 2], ((16, 12), (8, 7)), strict=True):
                v[a] = (v[a] + v[b] + word) & MASK
                x = v[d] ^ v[a]
                v[d] = (x >> right | x << (32 - right)) & MASK
                v[c] = (v[c] + v[d]) & MASK
                x = v[b] ^ v[c]
                v[b] = (x >> left | x << (32 - left)) & MASK
        words = [words[i] for i in PERMUTATION]
    return [x ^ y for x, y in zip(v[:8], v[8:], strict=True)]


def chunk(data, number, root):
    chaining = IV
    blocks = [data[at : at + 64] for at in range(0, len(data), 64)] or [b'']
    for i, block in enumerate(blocks):
        last = i + 1 == len(blocks)
        flags = CHUNK_START * (i == 0) | CHUNK_END * last | ROOT * (last and root)
        chaining = compress(chaining, struct.unpack('<16I', block.ljust(64, b'\0')), number, len(block), flags)
    return chaining


def node(data, number, root):
    """The chaining value over `data`, whose first chunk has the number `number`.
    The left side is as large as a power of two lets it be."""
    if len(data) <= 1024:
        return chunk(data, number, root)
    left = 1024 << (((len(data) - 1) // 1024).bit_length() - 1)
    words = node(data[:left], number, False) + node(data[left:], number + left // 1024, False)
    return compress(IV, words, 0, 64, PARENT | ROOT * root)


def hexdigest(data):
    return struct.pack('<8I', *node(data, 0, True)).hex()


if __name__ == '__main__':
    with open(sys.argv[1], 'rb') as opened:
        print(hexdigest(opened.read()))
