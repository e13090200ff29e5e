"""`python -m unseen`: the same as the command `unseen`."""

import sys

from unseen.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
