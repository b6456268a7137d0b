"""`python -m dagobert`: the same command, with the code of the current directory."""

import sys

from dagobert.cli import main

sys.exit(main())
