"""What the tests have dulwich do: dulwich_client.py COMMAND ARGUMENTS, as server/tests/it/clients.rs says.

The authority's certificate and the ssh command stand in the home's .gitconfig.
"""

import sys

from dulwich import porcelain


def clone(url, folder):
    porcelain.clone(url, folder)


def shallow(url, folder, depth):
    porcelain.clone(url, folder, depth=int(depth))


def partial(url, folder, filter_spec):
    porcelain.clone(url, folder, bare=True, filter_spec=filter_spec)


def fetch(folder):
    porcelain.fetch(folder, "origin")


def deepen(folder, depth):
    porcelain.fetch(folder, "origin", depth=int(depth))


def unshallow(folder):
    porcelain.fetch(folder, "origin", unshallow=True)


def push(folder, *refspecs):
    try:
        result = porcelain.push(folder, "origin", list(refspecs))
    except porcelain.DivergedBranches as error:
        sys.exit(f"refused: diverged: {error}")
    except porcelain.Error as error:
        sys.exit(f"refused: {error}")
    refused = {name: status for name, status in (result.ref_status or {}).items() if status}
    if refused:
        sys.exit(f"refused: {refused}")


globals()[sys.argv[1]](*sys.argv[2:])
