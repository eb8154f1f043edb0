"""`python -m workers ingest|segment|assemble [--burst]`: one worker, without the command line's comforts."""

from __future__ import annotations

import argparse
import logging

from gigamask.job import Stage
from gigamask.processes import die_with_named_parent
from gigamask.settings import Settings
from workers.loop import run_worker


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m workers", description="Run one worker.")
    parser.add_argument("stage", type=Stage, choices=list(Stage))
    parser.add_argument("--burst", action="store_true", help="do what is in the queue, then stop")
    chosen = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    die_with_named_parent()
    run_worker(chosen.stage, Settings(), burst=chosen.burst)


if __name__ == "__main__":
    main()
