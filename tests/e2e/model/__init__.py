"""Independent models, which say what must come out, and generators of random images and patches for them to judge.

They are written from the specifications and from what is promised, not from the code under test.
"""
