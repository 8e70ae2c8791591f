"""`python -m smooth_orchestrator`: the same as `smooth-orchestrate`."""

import sys

from smooth_orchestrator.cli import main

if __name__ == "__main__":
    sys.exit(main())
