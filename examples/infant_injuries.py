"""Injuries of children under two at 98 emergency departments, 2002 to 2021, as a table for
`unseen audit`: is the child transferred, admitted, held or lost, instead of sent home?

    UNSEEN_DATA=/path/to/data python examples/infant_injuries.py infants.csv
    unseen audit infants.csv --target stays …     # the whole command: docs/infant_injuries.md

Real people and hospitals: hospitals get numbers of no meaning; report aggregates only.
"""

import sys

from unseen.tasks.neiss import infants_frame

if __name__ == "__main__":
    infants_frame().to_csv(sys.argv[1], index=False)
