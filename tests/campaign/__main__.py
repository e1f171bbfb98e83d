"""The fault campaign: `python -m tests.campaign kills|runners|hostile`. Long; the tests run a short form of it.

kills: SIGKILLs at random moments of a reduced Table 1, whose tables must come out as an undisturbed run's.
runners: two runs on one store, killed and begun again at random, round by round.
hostile: broken and hostile files given to the commands that read such files.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.campaign import hostile, kills, runners


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description=__doc__)
    parser.add_argument("part", choices=("kills", "runners", "hostile"))
    parser.add_argument("--times", type=int, help="kills (100) or rounds (20)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=1, help="take each so-manieth hostile file alone")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="campaign-") as folder:
        if options.part == "kills":
            said = kills.campaign(Path(folder), options.times or 100, options.seed, report=print)
        elif options.part == "runners":
            said = runners.campaign(Path(folder), options.times or 20, options.seed, report=print)
        else:
            said = hostile.campaign(Path(folder), print, options.every)
    print(said)
    sys.exit(0 if said.startswith("passed") else 1)


if __name__ == "__main__":
    main()
