"""What the tests have libgit2 do: pygit2_client.py COMMAND ARGUMENTS, as server/tests/it/clients.rs says."""

import os
import sys
from pathlib import Path

import pygit2

HOME = Path(os.environ["HOME"])


class Callbacks(pygit2.RemoteCallbacks):
    """A key from the home, the hosts that its file knows, and what the server says about each reference."""

    def __init__(self):
        super().__init__()
        self.refused = {}

    def credentials(self, url, username_from_url, allowed_types):
        key = HOME / ".ssh" / "id_ed25519"
        return pygit2.Keypair(username_from_url, str(key) + ".pub", str(key), "")

    def push_update_reference(self, refname, message):
        self.refused[refname] = message


def opened(folder):
    return pygit2.Repository(folder)


def clone(url, folder):
    pygit2.clone_repository(url, folder, callbacks=Callbacks())


def shallow(url, folder, depth):
    pygit2.clone_repository(url, folder, callbacks=Callbacks(), depth=int(depth))


def fetch(folder):
    opened(folder).remotes["origin"].fetch(callbacks=Callbacks())


def deepen(folder, depth):
    opened(folder).remotes["origin"].fetch(callbacks=Callbacks(), depth=int(depth))


def unshallow(folder):
    # libgit2's GIT_FETCH_DEPTH_UNSHALLOW, which pygit2 does not name.
    opened(folder).remotes["origin"].fetch(callbacks=Callbacks(), depth=2**31 - 1)


def push(folder, *refspecs):
    callbacks = Callbacks()
    try:
        opened(folder).remotes["origin"].push(list(refspecs), callbacks=callbacks)
    except pygit2.GitError as error:
        sys.exit(f"refused: {error}")
    refused = [f"{name}: {message}" for name, message in callbacks.refused.items() if message]
    if refused:
        sys.exit("refused: " + "; ".join(refused))


if "GOVC_TEST_CA" in os.environ:
    pygit2.settings.set_ssl_cert_locations(os.environ["GOVC_TEST_CA"], None)
# The settings of the home alone: none of the machine's.
pygit2.settings.search_path[pygit2.enums.ConfigLevel.SYSTEM] = ""
globals()[sys.argv[1]](*sys.argv[2:])
