"""The terminal: `omnialign COMMAND`."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Runs a command; a user's mistake is one message on standard error and exit status 1."""
    # OpenMP's threads spin while they wait; beside another busy process that can halt training
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from omnialign.cli.app import app
    from omnialign.cli.output import fail
    from omnialign.errors import OmniAlignError

    try:
        app(prog_name="omnialign")
    except OmniAlignError as error:
        fail(str(error))
    except KeyboardInterrupt:
        fail("interrupted; what was saved is whole", status=130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
