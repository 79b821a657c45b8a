"""Not for the image: manifests leave this directory out."""
import os
import unittest

import main


class Config(unittest.TestCase):
    def test_port(self):
        os.environ.pop('APP_CONFIG', None)
        self.assertEqual(main.config().getint('port'), 8000)
