"""Runs one test of Eclipse Paho's interoperability suites, unchanged, as a user with a name.

    conformance.py SUITE.py TEST HOST PORT     with MUSTER_KEY in the environment

The suites connect without credentials, which Muster refuses by design. Their client
takes a user name as an option; this gives it one wherever the suite gives none.
"""

import functools
import importlib
import os
import runpy
import sys
import unittest


class EmptyPassword(bytes):
    """A password of no bytes that counts as given.

    The suites' packer has the two flags of CONNECT the wrong way round, so that a
    user name is well-formed only together with a password; an API key has none.
    """

    def __bool__(self):
        return True


def log_in(client, user):
    plain = client.connect

    @functools.wraps(plain)
    def connect(self, *args, **options):
        options.setdefault("username", user)
        options.setdefault("password", EmptyPassword())
        return plain(self, *args, **options)

    client.connect = connect


def main():
    suite, test, host, port = sys.argv[1:5]
    suite = os.path.abspath(suite)
    os.chdir(os.path.dirname(suite))
    sys.path.insert(0, os.path.dirname(suite))
    for version in ("V311", "V5"):
        log_in(importlib.import_module("mqtt.clients." + version).Client, os.environ["MUSTER_KEY"])

    whole = unittest.main

    def one_test():
        # The suites have an option for the filter that may not be subscribed, and
        # ignore it. devices/me is refused to whoever is not a device.
        sys.modules["__main__"].nosubscribe_topics = ("devices/me/commands/+",)
        whole(argv=[suite, "Test." + test])

    unittest.main = one_test
    sys.argv = [suite, "--hostname", host, "--port", port]
    runpy.run_path(suite, run_name="__main__")


main()
